"""Frozen twin of ``src.training.losses.loss_factory``: a loss from a namespace of command-line arguments.

Kept on purpose: temperatures and the memory bank are rescaled, model dimensions rewritten, unknown names mean
``ContrastiveLoss``, the mining strategy is ignored, and pre-training imports the package under its former name, so it
works only where that name exists. Successors: ``training_losses.create_loss``,
``training_losses.contrastive.info_nce.InfoNCELoss``.
"""

import logging

import torch
import torch.nn.functional as F
from torch import nn

from training_losses.migration.deprecation import deprecated_module

from .barlow_twins_loss import BarlowTwinsLoss
from .combined_loss import CombinedLoss
from .contrastive_loss import ContrastiveLoss
from .decoupled_contrastive_loss import DecoupledContrastiveLoss
from .dynamic_temperature_contrastive_loss import DynamicTemperatureContrastiveLoss
from .hard_negative_mining_contrastive_loss import HardNegativeMiningContrastiveLoss
from .memory_queue_contrastive_loss import MemoryQueueContrastiveLoss
from .multimodal_mixed_contrastive_loss import MultiModalMixedContrastiveLoss
from .vicreg_loss import VICRegLoss

deprecated_module(__name__)

logger = logging.getLogger(__name__)


class SimpleContrastiveLoss(nn.Module):
    """Symmetric InfoNCE with one random positive per row and column, plus half a squared distance of positives."""

    def __init__(self, temperature=0.1):
        super().__init__()
        self.temperature = temperature
        self.iteration = 0

    def forward(self, vision_features, text_features, match_ids=None, **kwargs):
        self.iteration += 1
        batch_size = vision_features.shape[0]
        vision, text = F.normalize(vision_features, dim=1), F.normalize(text_features, dim=1)
        similarity = vision @ text.T / self.temperature
        matches = torch.eye(batch_size, dtype=torch.bool, device=similarity.device)
        if match_ids is not None:
            identity = matches.clone()
            for i in range(batch_size):
                for j in range(batch_size):
                    matches[i, j] = bool(match_ids[i] == match_ids[j])
            if not matches.any(dim=1).all():
                matches |= identity

        def draw(row):
            positives = row.nonzero().flatten()
            return positives[torch.randint(0, len(positives), (1,)).item()]

        v2t_targets = torch.tensor([draw(row) for row in matches], device=similarity.device)
        t2v_targets = torch.tensor([draw(column) for column in matches.T], device=similarity.device)
        v2t_loss = F.cross_entropy(similarity, v2t_targets)
        t2v_loss = F.cross_entropy(similarity.T, t2v_targets)

        distances = [F.mse_loss(vision[i], text[draw(row)]) for i, row in enumerate(matches) if not row.all()]
        mse_loss = sum(distances) / len(distances) if distances else 0.0
        with torch.no_grad():
            own = torch.arange(batch_size, device=similarity.device)
            v2t_hits = matches[own, similarity.argmax(dim=1)].float().mean()
            t2v_hits = matches[similarity.argmax(dim=0), own].float().mean()
            pos_sim = similarity[matches].mean().item()
            neg_sim = 0.0 if matches.all() else similarity[~matches].mean().item()
        infonce = v2t_loss + t2v_loss
        total = infonce / 2 + 0.5 * mse_loss
        decor_loss = kwargs.get("decor_loss", 0.0)
        if isinstance(decor_loss, torch.Tensor):
            total = total + 0.2 * decor_loss
        return {
            "loss": total,
            "infonce_loss": infonce.item() / 2,
            "mse_loss": mse_loss.item() if isinstance(mse_loss, torch.Tensor) else 0.0,
            "v2t_loss": v2t_loss.item(),
            "t2v_loss": t2v_loss.item(),
            "accuracy": ((v2t_hits + t2v_hits) / 2).item(),
            "pos_sim": pos_sim,
            "neg_sim": neg_sim,
            "separation": pos_sim - neg_sim,
            "temperature": self.temperature,
            "decor_loss": decor_loss.item() if isinstance(decor_loss, torch.Tensor) else 0.0,
        }


def create_loss_function(args, dataset_size=None, train_loader=None):
    loss_type = args.loss_type
    if getattr(args, "use_simple_model", False):
        return SimpleContrastiveLoss(temperature=args.temperature)
    if args.use_mixed_loss:
        loss_type = "mixed"
    dim = _model_dimension(args)
    builders = {
        "barlow_twins": _barlow_twins,
        "vicreg": _vicreg,
        "memory_queue": _memory_queue,
        "dynamic_temp": _dynamic_temperature,
        "hard_negative": _hard_negative,
        "mixed": _mixed,
        "decoupled": _decoupled,
        "combined": _combined,
    }
    for name, build in builders.items():
        if loss_type == name:
            return build(args, dim, dataset_size)
    return _contrastive(args, dim, dataset_size)


def _model_dimension(args):
    dim = 768
    if getattr(args, "fusion_dim", None) is not None:
        dim = args.fusion_dim
        if dim == 512 and getattr(args, "vision_model", "") == "vit-base":
            logger.warning("vit-base has 768 features: the fusion dimension 512 is not used")
            dim = 768
    if dim <= 0:
        logger.warning("the model dimension %s is replaced by 768", dim)
        dim = 768
    return dim


def _barlow_twins(args, dim, dataset_size):
    return BarlowTwinsLoss(
        lambda_coeff=getattr(args, "lambda_coeff", 0.005),
        batch_norm_last_layer=getattr(args, "batch_norm_last", True),
        correlation_mode=getattr(args, "correlation_mode", "cross_modal"),
        add_projection=True,
        projection_dim=dim * 2,
        input_dim=dim,
        normalize_embeddings=True,
    )


def _vicreg(args, dim, dataset_size):
    settings = {
        "sim_coeff": getattr(args, "sim_weight", 5.0),
        "var_coeff": getattr(args, "var_weight", 5.0),
        "cov_coeff": getattr(args, "cov_weight", 1.0),
        "epsilon": 1e-4,
        "warmup_epochs": getattr(args, "vicreg_warmup_epochs", 5),
        "curriculum": getattr(args, "use_curriculum", True),
        "num_epochs": getattr(args, "num_epochs", 30),
    }
    pretrain_steps = getattr(args, "contrastive_pretrain_steps", 200)
    if not getattr(args, "use_contrastive_pretrain", False):
        return VICRegLoss(**settings)
    transition = {
        "adaptive_transition": getattr(args, "adaptive_transition", True),
        "min_alignment_threshold": getattr(args, "min_alignment_threshold", 0.3),
        "gradual_transition_steps": getattr(args, "gradual_transition_steps", 100),
    }
    from src.training.loss.hybrid_pretrain_vicreg_loss import HybridPretrainVICRegLoss

    temperature = getattr(args, "temperature", 0.07)
    return HybridPretrainVICRegLoss(
        **settings,
        contrastive_pretrain_steps=pretrain_steps,
        temperature=temperature,
        **transition,
        fusion_dim=dim,
        vision_dim=768 if hasattr(args, "vision_model") and "vit-base" in args.vision_model else dim,
        text_dim=768 if hasattr(args, "text_model") and "bert" in args.text_model else dim,
    )


def _memory_queue(args, dim, dataset_size):
    queue_size = args.queue_size
    if not queue_size:
        queue_size = 8192 if dataset_size is None else 2048
        if dataset_size is not None:
            for threshold, size in ((10000, 16384), (5000, 8192), (1000, 4096)):
                if dataset_size > threshold:
                    queue_size = size
                    break
    return MemoryQueueContrastiveLoss(dim=dim, queue_size=queue_size, temperature=args.temperature * 1.1)


def _dynamic_temperature(args, dim, dataset_size):
    base = args.temperature
    min_temp = args.dynamic_temp_min if args.dynamic_temp_min is not None else max(0.01, 0.6 * base)
    max_temp = args.dynamic_temp_max if args.dynamic_temp_max is not None else min(0.3, 2.0 * base)
    return DynamicTemperatureContrastiveLoss(base_temperature=base, min_temp=min_temp, max_temp=max_temp, dim=dim)


def _hard_negative(args, dim, dataset_size):
    strategy = args.mining_strategy
    if not strategy or strategy == "auto":
        strategy = "semi-hard" if args.batch_size < 32 else "hard"
    factor = args.hard_negative_factor
    if factor is None:
        factor = 3.0 if strategy == "semi-hard" else 2.0
    logger.info(f"{strategy} negatives, factor {factor:.1f}")  # the number format raises for anything else
    return HardNegativeMiningContrastiveLoss(
        temperature=args.temperature, hard_negative_factor=factor, mining_strategy="semi-hard", dim=dim
    )


def _mixed(args, dim, dataset_size):
    return MultiModalMixedContrastiveLoss(
        temperature=args.temperature,
        loss_weights=_mixed_weights(args),
        add_projection=args.use_hard_negatives,
        projection_dim=args.dim or 256,
        input_dim=args.dim or None,
    )


def _mixed_weights(args):
    return {
        "infonce": args.contrastive_weight,
        "nt_xent": args.classification_weight,
        "supervised": args.multimodal_matching_weight,
    }


def _decoupled(args, dim, dataset_size):
    return DecoupledContrastiveLoss(
        temperature=args.temperature,
        lambda_v=getattr(args, "lambda_v", 0.5),
        lambda_t=getattr(args, "lambda_t", 0.5),
    )


def _combined(args, dim, dataset_size):
    heads = {"add_projection": args.use_hard_negatives, "projection_dim": dim, "input_dim": dim}
    primary = ContrastiveLoss(temperature=args.temperature, **heads)
    secondary = _decoupled(args, dim, dataset_size)
    tertiary = MultiModalMixedContrastiveLoss(temperature=args.temperature, loss_weights=_mixed_weights(args), **heads)
    return CombinedLoss(
        primary_loss=primary,
        secondary_loss=secondary,
        secondary_loss_weight=getattr(args, "secondary_loss_weight", 0.5),
        tertiary_loss=tertiary,
        tertiary_loss_weight=getattr(args, "tertiary_loss_weight", 0.3),
    )


def _contrastive(args, dim, dataset_size):
    sampling = args.contrastive_sampling
    if sampling == "auto":
        if dataset_size is None:
            sampling = "memory-bank"
        else:
            small, medium = dataset_size < 1000, dataset_size < 10000
            sampling = "global" if small else "memory-bank" if medium else "in-batch"
    if sampling == "in-batch":
        logger.warning("in-batch sampling needs large batches")
    factor = 0.85 if args.batch_size < 64 else 0.9 if args.batch_size < 128 else 0.95
    if sampling != "in-batch":
        factor = 1.0 if sampling == "memory-bank" else 1.05
    temperature = args.temperature * factor
    logger.info("temperature x %.2f", temperature / args.temperature)  # a zero temperature raises here
    return ContrastiveLoss(
        temperature=temperature,
        loss_type="infonce",
        reduction="mean",
        add_projection=True,
        projection_dim=dim,
        input_dim=dim,
        sampling_strategy=sampling,
        memory_bank_size=args.memory_bank_size * 2,
        dataset_size=dataset_size,
    )
