"""Frozen twin of ``dynvision.losses.mask_non_labels``, which the old package defined itself.

Replaced by ``training_losses.temporal.select_valid`` and ``select_void``.
"""

import torch

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)


def mask_non_labels(outputs, label_indices, non_label_index=-1, selector="!="):
    """Rows of ``outputs`` and ``label_indices`` whose label is not (``"!="``) or is (``"=="``) the void label.

    With two-dimensional labels a row comes once per matching element, as it always did.
    """
    if selector == "!=":
        rows = torch.where(label_indices != non_label_index)[0]
    elif selector == "==":
        rows = torch.where(label_indices == non_label_index)[0]
    else:
        raise ValueError(f"selector {selector!r} is neither '!=' nor '=='")
    rows = rows.to(outputs.device)
    return outputs[rows], label_indices.to(outputs.device)[rows]
