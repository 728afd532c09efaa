"""One record per registered loss: what the contract tests need to know about it.

To add a loss, append a ``LossRecord`` to the list ``RECORDS`` of ``tests/contract/records_<family>.py`` (the files are
found by their name; create one for a new family).  ``test_contract.py`` then runs every check on it.  The smallest
record::

    from tests.contract.record import LossRecord, two_views

    RECORDS = [
        LossRecord("vicreg", two_views(6), grad=("z_a", "z_b")),
        LossRecord("vicreg", two_views(6), grad=("z_a", "z_b"), variant="chunked", kwargs={"chunk_size": 2}),
    ]

* ``inputs(generator, dtype, batch)`` builds the keyword arguments of ``forward``.  Keep them small (6 features or
  fewer): gradcheck perturbs every element.  Nested dicts and lists of tensors are fine.
* ``grad`` names the keyword arguments whose floating tensors get gradients; they are also the ones that are scaled, set
  to zero and cast to half precision.
* ``kwargs`` are the constructor's; give a function without arguments when they hold modules (built anew each time).
* ``advance(loss, step)`` runs before every step of the state check: drive schedules there.
* ``single`` and ``empty`` say what a batch of one / of none does: ``"finite"`` (a finite value with a finite gradient)
  or ``"error"`` (a ``ValueError``).
* ``reductions`` lists the values of ``reduction`` that the loss accepts; ``()`` for a loss without that argument.
  ``mean_count(inputs)`` is the divisor of ``"mean"`` when it is not the number of elements of ``"none"``.
* ``bad`` maps a description to a function that breaks the inputs; each must raise ``ValueError``.  Without it, the
  first ``grad`` tensor loses its last row.
* ``may_be_integers`` names floating inputs that may be integers as well (targets of a regression).
* ``idle(inputs, bad)`` says where a value ``bad`` (NaN, inf or -inf) takes no part in the loss: keyword argument ->
  boolean masks in the place of its tensors.  There a bad value must not show; everywhere else it must.
* ``exempt`` maps a check (a test function's name without ``test_``) to the reason why it cannot hold.  An exemption
  from ``compiles`` must also stand in the class docstring.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

Inputs = dict[str, Any]
InputBuilder = Callable[[torch.Generator, torch.dtype, int], Inputs]
Outcome = Literal["finite", "error"]


@dataclass(frozen=True)
class LossRecord:
    name: str
    inputs: InputBuilder
    grad: tuple[str, ...]
    variant: str = ""
    kwargs: Mapping[str, Any] | Callable[[], Mapping[str, Any]] = field(default_factory=dict)
    advance: Callable[[nn.Module, int], None] | None = None
    single: Outcome = "finite"
    empty: Outcome = "error"
    reductions: tuple[str, ...] = ()
    mean_count: Callable[[Inputs], float] | None = None
    bad: Mapping[str, Callable[[Inputs], Inputs]] = field(default_factory=dict)
    idle: Callable[[Inputs, float], Mapping[str, Any]] | None = None
    exempt: Mapping[str, str] = field(default_factory=dict)
    may_be_integers: tuple[str, ...] = ()
    batch: int = 4
    half_atol: float = 2e-3

    @property
    def id(self) -> str:
        return f"{self.name}-{self.variant}" if self.variant else self.name

    def constructor_kwargs(self) -> dict[str, Any]:
        return dict(self.kwargs() if callable(self.kwargs) else self.kwargs)

    def build(self, **overrides: Any) -> nn.Module:
        """A fresh loss with reproducible initial weights; the global generator is left as it was."""
        from training_losses._public import REGISTRY
        from training_losses.loss_registry import LossRegistry

        importlib.import_module(f"training_losses.{REGISTRY[self.name]}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return LossRegistry.create(self.name, **{**self.constructor_kwargs(), **overrides})

    def make(self, dtype: torch.dtype = torch.float32, *, batch: int | None = None, seed: int = 0) -> Inputs:
        """Inputs for one call; tensors named in ``grad`` are leaves that require a gradient."""
        generator = torch.Generator().manual_seed(seed)
        made = self.inputs(generator, dtype, self.batch if batch is None else batch)
        return self.change(made, lambda t: t)

    def change(self, inputs: Inputs, transform: Callable[[Tensor], Tensor]) -> Inputs:
        """``inputs`` with ``transform`` applied to the floating tensors of ``grad``, as new leaves."""

        def leaf(value: Any) -> Any:
            if isinstance(value, Tensor) and value.is_floating_point():
                return transform(value.detach()).clone().requires_grad_()
            return value

        return {k: pytree.tree_map(leaf, v) if k in self.grad else v for k, v in inputs.items()}

    def leaves(self, inputs: Inputs) -> list[Tensor]:
        """The tensors that require a gradient, in a fixed order."""
        found = pytree.tree_leaves({k: inputs[k] for k in self.grad if k in inputs})
        return [t for t in found if isinstance(t, Tensor) and t.requires_grad]


def draw(generator: torch.Generator, dtype: torch.dtype, *shape: int) -> Tensor:
    """Standard normal numbers; drawn in float64 so that every dtype sees the same values."""
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def two_views(dim: int = 6, *tokens: int) -> InputBuilder:
    """``z_a`` and ``z_b``, [batch, *tokens, dim], correlated but not equal."""

    def build(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
        a, b = draw(g, dtype, batch, *tokens, dim), draw(g, dtype, batch, *tokens, dim)
        return {"z_a": a, "z_b": a + 0.5 * b}

    return build


def two_modalities(dim: int = 6, *, ids: Literal["none", "unique", "repeated"] = "none") -> InputBuilder:
    """``vision_features`` and ``text_features`` [batch, dim], with integer ``match_ids`` unless ``ids="none"``."""

    def build(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
        made: Inputs = {k: draw(g, dtype, batch, dim) for k in ("vision_features", "text_features")}
        if ids != "none":
            made["match_ids"] = torch.arange(batch) // (2 if ids == "repeated" else 1)
        return made

    return build


def all_records() -> list[LossRecord]:
    """The records of every ``records_*.py`` beside this file."""
    here = Path(__file__).parent
    modules = [importlib.import_module(f"tests.contract.{p.stem}") for p in sorted(here.glob("records_*.py"))]
    return [record for module in modules for record in module.RECORDS]
