"""Names of attributes that only the old classes had, by successor. From ``tools/old_members.py``."""

from __future__ import annotations

from typing import Final

_NAMES: Final = {
    "training_losses.alignment.soft_dtw.SoftDTWLoss": """
        calc_distance_matrix cossim dist_funcs dtw_dist func_dtw func_dtw_r gamma normalize
    """,
    "training_losses.balancing.image_reconstruction.ImageGeometricMeanLoss": """
        compute_regularization current_epoch device epsilon final_regularization initial_regularization
        l1_loss lpips_loss min_loss_value perceptual_loss regularization_weight update_epoch warmup_epochs
    """,
    "training_losses.balancing.image_reconstruction.ImageProductLoss": """
        alpha beta device epsilon gamma l1_loss l1_mean l1_std lpips_loss lpips_mean lpips_std
        multiplicative_loss multiplicative_weight perceptual_loss perceptual_mean perceptual_std update_count
        update_stats use_log_space
    """,
    "training_losses.balancing.image_reconstruction.ImageWeightedSumLoss": """
        alpha beta device gamma l1_loss lpips_loss perceptual_loss
    """,
    "training_losses.balancing.multitask.MultiTaskLoss": """
        dynamic_weighting loss_functions loss_weights running_losses task_names
    """,
    "training_losses.balancing.weighted_sum.WeightedSumLoss": """
        primary_loss secondary_loss secondary_loss_weight tertiary_loss tertiary_loss_weight
    """,
    "training_losses.contrastive.barlow_twins.BarlowTwinsLoss": """
        add_projection batch_norm_last_layer correlation_mode lambda_coeff text_projection vision_projection
    """,
    "training_losses.contrastive.clip_loss.CLIPLoss": """
        add_projection bank_ptr bank_size cache_labels dataset_size global_indices global_initialized
        global_size global_text_embeddings global_vision_embeddings hard_negative_weight loss_type
        memory_bank_size sampling_strategy text_bank text_projection update_global_embeddings
        update_memory_bank use_hard_negatives vision_bank vision_projection
    """,
    "training_losses.contrastive.decorrelation.DecorrelationLoss": """
        coef epsilon min_variance_threshold reduction track_feature_stats
    """,
    "training_losses.contrastive.decoupled_loss.IntraInterModalLoss": """
        lambda_t lambda_v
    """,
    "training_losses.contrastive.dynamic_temperature_loss.DynamicTemperatureLoss": """
        base_temperature dim max_temp min_temp
    """,
    "training_losses.contrastive.hard_negative_loss.HardNegativeLoss": """
        dim hard_negative_factor mining_strategy
    """,
    "training_losses.contrastive.hybrid_pretrain_vicreg.HybridPretrainVICRegLoss": """
        adaptive_transition alignment_history alignment_snr contrastive_loss contrastive_pretrain_steps
        current_phase current_step early_transition early_transition_step gradual_transition_steps
        in_pretrain_phase max_diag_similarity mean_similarity min_alignment_threshold min_diag_similarity
        total_steps transition_complete vicreg_loss
    """,
    "training_losses.contrastive.info_nce.InfoNCELoss": """
        iteration
    """,
    "training_losses.contrastive.moco.MoCoLoss": """
        K T dim m text_key_encoder text_queue_ptr update_key_encoder vision_key_encoder vision_queue_ptr
    """,
    "training_losses.contrastive.moco_loss.MemoryQueueLoss": """
        add_projection bank_ptr bank_size dataset_size dim global_indices global_initialized global_size
        global_text_embeddings global_vision_embeddings initial_temperature initialize_queue initialized
        loss_type max_temperature memory_bank_size queue_fill_level queue_ptr queue_size sampling_strategy
        text_bank text_projection update_global_embeddings update_memory_bank use_two_buffers vision_bank
        vision_projection
    """,
    "training_losses.contrastive.simclr_loss.SimCLRLoss": """
        add_projection bank_ptr bank_size dataset_size eps global_indices global_initialized global_size
        global_text_embeddings global_vision_embeddings loss_type memory_bank_size sampling_strategy text_bank
        text_projection update_global_embeddings update_memory_bank use_cosine_similarity vision_bank
        vision_projection
    """,
    "training_losses.contrastive.vicreg.AdaptiveVICRegLoss": """
        adaptive_weights flatten_patches weight_momentum
    """,
    "training_losses.contrastive.vicreg.VICRegLoss": """
        adaptive_weights cov_coeff current_epoch current_step curriculum effective_cov_coeff
        effective_var_coeff epsilon flatten_patches get_warmup_factor num_epochs sim_coeff total_steps
        update_weights var_coeff warmup_epochs weight_momentum
    """,
    "training_losses.multimodal.feature_consistency.FeatureConsistencyLoss": """
        detach_reference distance_fn normalize_features
    """,
    "training_losses.multimodal.mixed_loss.MixedContrastiveLoss": """
        add_projection loss_weights text_projection vision_projection
    """,
    "training_losses.perceptual.vgg.VGGPerceptualLoss": """
        device feature_extractors layer_mapping layer_names normalize
    """,
    "training_losses.predictive.contrastive_jepa.ContrastiveJEPALoss": """
        contrastive_on_context eps get_loss_summary
    """,
    "training_losses.predictive.hjepa_combined.HJEPACombinedLoss": """
        apply_vicreg_per_level eps get_loss_summary num_hierarchies sigreg_loss sigreg_weight vicreg_loss
        vicreg_losses vicreg_on_targets vicreg_weights
    """,
    "training_losses.predictive.sigreg.SIGRegLoss": """
        flatten_patches num_test_points univariate_test vectorized
    """,
    "training_losses.supervised.cross_entropy.LabelSmoothingCrossEntropyLoss": """
        smoothing weight
    """,
    "training_losses.supervised.mse.WeightedMSELoss": """
        clip_grad
    """,
    "training_losses.supervised.supervised_contrastive_loss.SupervisedContrastiveLoss": """
        add_projection bank_ptr bank_size dataset_size global_indices global_initialized global_size
        global_text_embeddings global_vision_embeddings loss_type memory_bank_size sampling_strategy text_bank
        text_projection update_global_embeddings update_memory_bank use_class_weights vision_bank
        vision_projection
    """,
    "training_losses.temporal.cross_entropy.TemporalCrossEntropyLoss": """
        allow_broadcasting compute_loss extract_outputs requires_responses valid_reductions validate_shapes
        weight
    """,
    "training_losses.temporal.energy.EnergyLoss": """
        allow_broadcasting batch_activity batch_energy compute_loss extract_outputs hooks norm_factors ord p
        register_hooks remove_hooks requires_responses valid_reductions validate_shapes
    """,
    "training_losses.temporal.presentation.PresentationSchedule": """
        criterion criterion_params data_presentation_pattern loss_reaction_time n_residual_timesteps
        n_timesteps non_input_value non_label_index shuffle_presentation_pattern
    """,
}

OLD_MEMBERS: Final = {path: frozenset(names.split()) for path, names in _NAMES.items()}
