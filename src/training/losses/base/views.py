"""Two views of a batch as rows."""

from __future__ import annotations

from torch import Tensor

from ..functional import upcast
from .base_loss import require_choice, require_floating

TOKENS = ("flatten", "concat")


def require_tokens(tokens: str) -> None:
    """Raise ``ValueError`` unless ``tokens`` is a way to turn ``[B, N, D]`` into rows."""
    require_choice("tokens", tokens, TOKENS)


def token_rows(z: Tensor, tokens: str = "flatten", name: str = "z") -> Tensor:
    """Rows of ``[B, D]`` or ``[B, N, D]``, in float32 or better; errors call them ``name``.

    ``flatten`` makes every token a row (``[B N, D]``), ``concat`` joins those of a sample (``[B, N D]``).
    """
    require_floating(**{name: z})
    if z.dim() not in (2, 3):
        raise ValueError(f"{name} must be [B, D] or [B, N, D] embeddings, found {list(z.shape)}")
    # not reshape(-1, D): the size would be ambiguous for an empty batch
    start, end = (0, 1) if tokens == "flatten" else (1, 2)
    return upcast(z.flatten(start, end) if z.dim() == 3 else z)


def split_views(z_a: Tensor, z_b: Tensor | None, *, split_single_input: bool) -> tuple[Tensor, Tensor]:
    """Both views, of one shape; without ``z_b`` the halves of ``z_a``, if that is allowed.

    Raises:
        ValueError: ``z_b`` is missing, the batch cannot be halved, or the shapes differ.
    """
    require_floating(z_a=z_a)
    if z_b is None:
        if not split_single_input or z_a.shape[0] % 2:
            raise ValueError(
                "z_b is needed, or split_single_input=True and an even batch; found z_b=None, "
                f"split_single_input={split_single_input}, z_a {list(z_a.shape)}"
            )
        z_a, z_b = z_a.chunk(2)
    require_floating(z_b=z_b)
    if z_a.shape != z_b.shape or z_a.dim() not in (2, 3):
        raise ValueError(
            f"z_a and z_b must have one common shape [B, D] or [B, N, D], found {list(z_a.shape)} and {list(z_b.shape)}"
        )
    return z_a, z_b
