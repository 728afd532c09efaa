"""What old code took out of ``**kwargs``, and what it ignored there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from training_losses.migration.catalog import Unconvertible, builtin_catalog
from training_losses.migration.parity import TOLERANCE, build_pair, load_old_state
from training_losses.migration.resolve import resolve
from training_losses.migration.translate import Untranslatable, translate, translate_forward

PAIR = {"vision_features": torch.eye(4, 3), "text_features": torch.ones(4, 3)}


def row(name: str) -> Any:
    (symbol,) = builtin_catalog().find(name)
    return symbol


def forward(name: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    case, _ = translate(row(name))
    return translate_forward(case, args, kwargs)


def test_arguments_that_were_taken_out_of_kwargs() -> None:
    x, y = torch.ones(4, 3), torch.zeros(4, dtype=torch.int64)
    assert forward("dynvision.losses.CrossEntropyLoss", x, y, num_valid_timesteps=3)["normalizer"] == 3
    assert forward("HybridPretrainVICRegLoss", x, x, match_ids=y)["match_ids"] is y
    assert torch.equal(
        forward("SimpleContrastiveLoss", x, x, decor_loss=torch.ones(()))["extra_loss"], torch.tensor(0.2)
    )
    assert forward("SimpleContrastiveLoss", x, x, decor_loss=None)["extra_loss"] is None
    with pytest.raises(Unconvertible):
        forward("SimpleContrastiveLoss", x, x, decor_loss="text")


def test_one_old_argument_for_two_new_ones() -> None:
    case, new = translate(row("HierarchicalCombinedLoss"), (), {"eps": 1e-6, "huber_delta": 2.0, "reduction": "sum"})
    assert (new["eps"], new["vicreg_eps"], new["huber_delta"], new["reduction"]) == (1e-6, 1e-6, 2.0, "sum")
    _, new = translate(row("HierarchicalCombinedLoss"))
    assert (new["eps"], new["vicreg_eps"]) == (1e-8, 1e-8)
    # VICReg had an eps of its own there
    _, new = translate(row("HierarchicalCombinedLoss"), (), {"eps": 1e-6, "vicreg_configs": [{}, {}, {}]})
    assert (new["eps"], new["vicreg_eps"]) == (1e-6, 1e-4)
    assert case.new is not None


@pytest.mark.parametrize("name", ["CLIPStyleLoss", "DecorrelationLoss", "FeatureConsistencyLoss"])
def test_what_nothing_read_is_left_out(name: str) -> None:
    assert set(forward(name, **PAIR, whatever=1)) == set(PAIR)


def test_what_went_on_to_other_losses_is_no_argument() -> None:
    with pytest.raises(Untranslatable, match="no argument 'whatever'"):
        translate(row("HierarchicalCombinedLoss"), (), {"whatever": 1})


@pytest.mark.parametrize("arguments", [{}, {"eps": 1e-3}, {"vicreg_variance_weight": 3.0, "huber_delta": 0.1}])
def test_the_pair_of_such_a_call_agrees(arguments: dict[str, Any]) -> None:
    pair = build_pair(row("HierarchicalCombinedLoss"), num_hierarchies=1, **arguments)
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 6, 3, 4, generator=draw, dtype=torch.float64)
    assert pair.compare([0.1 * x], [y]).failures(torch.float64) == []


def test_terms_of_the_caller_are_added() -> None:
    pair = build_pair(row("SimpleContrastiveLoss"))
    x, y = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    term = torch.tensor(0.7, dtype=torch.float64)
    compared = pair.compare(x, y, decor_loss=term)
    assert compared.failures(torch.float64) == []
    assert compared.gradients["decor_loss"] == 0


def test_queues_that_are_made_at_the_first_call() -> None:
    symbol = row("MemoryQueueContrastiveLoss")
    twin = resolve(symbol.twin)(dim=3, queue_size=8)
    draw = torch.Generator().manual_seed(0)

    def batch() -> tuple[torch.Tensor, ...]:
        return (*torch.randn(2, 4, 3, generator=draw), torch.arange(4))

    with torch.random.fork_rng():
        fresh = build_pair(symbol, dim=3, queue_size=8, dtype=torch.float32)
        assert fresh.compare(*batch()).old_loss > 0
        for _ in range(3):
            twin(*batch())
    state = twin.state_dict()
    pair = build_pair(
        symbol,
        dim=3,
        queue_size=8,
        dtype=torch.float32,
        prepare=lambda old: load_old_state(symbol, old, state),
    )
    for _ in range(3):
        assert pair.compare(*batch()).failures(torch.float32) == [], TOLERANCE
