"""Frozen twins of old loss code: the package ``src.training.losses`` (also ``training_losses``, ``src.training.loss``).

Nothing here changes any more. The eleven modules below are imported in the old package's order and its fourteen names
are exported; eight further modules are imported by their full path only. Once the sub-module
``supervised_contrastive_loss`` is imported, that name means the module, as it always did. The twins of the other old
code bases live in the packages ``alignment``, ``hjepa``, ``dynvision`` and ``triangulate``.
"""

# the old order of imports
# isort: off
if __name__ == "legacy":
    # found in its folder, with the root of a checkout on sys.path: the one real package takes its place
    import sys
    from pathlib import Path

    sys.path.append(str(Path(__file__).resolve().parents[1] / "tools" / "checkout"))
    __import__("training_losses.migration.aliases").migration.aliases.stand_aside(__name__)
else:
    from training_losses.migration.deprecation import deprecated_module

    from .memory_queue_contrastive_loss import MemoryQueueContrastiveLoss
    from .dynamic_temperature_contrastive_loss import DynamicTemperatureContrastiveLoss
    from .hard_negative_mining_contrastive_loss import HardNegativeMiningContrastiveLoss
    from .contrastive_loss import ContrastiveLoss
    from .multimodal_mixed_contrastive_loss import MultiModalMixedContrastiveLoss
    from .decoupled_contrastive_loss import DecoupledContrastiveLoss
    from .vicreg_loss import VICRegLoss
    from .barlow_twins_loss import BarlowTwinsLoss
    from .hybrid_pretrain_vicreg_loss import HybridPretrainVICRegLoss
    from .losses import CrossEntropyLoss, MeanSquaredError
    from .contrastive_learning import compute_recall_at_k, nt_xent_loss, supervised_contrastive_loss

    deprecated_module(__name__)
    del deprecated_module

    __all__ = [
        "MemoryQueueContrastiveLoss",
        "DynamicTemperatureContrastiveLoss",
        "HardNegativeMiningContrastiveLoss",
        "ContrastiveLoss",
        "MultiModalMixedContrastiveLoss",
        "DecoupledContrastiveLoss",
        "VICRegLoss",
        "BarlowTwinsLoss",
        "HybridPretrainVICRegLoss",
        "nt_xent_loss",
        "supervised_contrastive_loss",
        "compute_recall_at_k",
        "CrossEntropyLoss",
        "MeanSquaredError",
    ]
