"""Old losses are trained, their checkpoints converted, and the successors continue with the same numbers.

The parity records say how to call an old loss inside the domain of its row; what they cannot drive is driven here.
Rows and tests are matched: a row with state that no test continues fails ``test_every_row_with_state_is_continued``.
"""

from __future__ import annotations

import contextlib
import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.migration.training import (
    BEFORE,
    Run,
    checkpoint,
    close,
    convert,
    new_run,
    old_run,
    optimizer_of,
    restore,
    row_id,
    rows_with_state,
    same,
    sample_of,
)
from tests.parity.records_hjepa import levels
from tests.parity.records_temporal import ActivityRecord, drive, small_network
from tests.parity.records_triangulate import ImageRecord, networks, seeded_features
from tests.support.parity import ParityRecord, all_records
from tests.support.twins import twin
from training_losses.base import MomentumEncoder
from training_losses.contrastive import CLIPLoss, MoCoLoss, SimCLRLoss
from training_losses.migration.catalog import Case, Symbol, builtin_catalog
from training_losses.migration.checkpoint import convert_file
from training_losses.migration.parity import resolve
from training_losses.migration.state import convert_state
from training_losses.migration.translate import Untranslatable, translate, translate_forward
from training_losses.predictive.hjepa import HJEPALoss
from training_losses.predictive.hjepa_combined import HJEPACombinedLoss
from training_losses.predictive.sigreg import SIGRegLoss
from training_losses.temporal.energy import EnergyLoss
from training_losses.temporal.presentation import PresentationSchedule

SEEDS = range(8)


def with_targets(record: ParityRecord) -> ParityRecord:
    return replace(
        record,
        variant=f"{record.variant} targets",
        kwargs=lambda s: {**record.kwargs(s), "vicreg_on_targets": True},
    )


def usable(record: ParityRecord) -> bool:
    return record.row.kind == "class" and record.by_hand is None and not isinstance(record, ActivityRecord)


def chosen() -> dict[str, tuple[ParityRecord, int]]:
    """Per row with state the first record and seed that lead to it."""
    records = [r for r in all_records() if usable(r)]
    extra = [with_targets(r) for r in records if r.id.endswith(("combined.CombinedLoss", "CombinedLoss-last_level"))]
    extra = [r for r in extra if r.system == "hjepa"]
    found: dict[str, tuple[ParityRecord, int]] = {}
    for record in [*records, *extra]:
        if not any(case.state for case in record.row.cases):
            continue
        for seed in SEEDS:
            sample = sample_of(record, seed)
            with contextlib.suppress(Untranslatable):
                case, _ = translate(record.row, (), record.kwargs(sample))
                if case.state:
                    found.setdefault(row_id(record.row, case), (record, seed))
    return found


CHOSEN = chosen()


def stand_ins(record: ParityRecord, seed: int) -> contextlib.AbstractContextManager[None]:
    return networks(seeded_features(seed)) if isinstance(record, ImageRecord) else contextlib.nullcontext()


@pytest.mark.parametrize("row", CHOSEN)
def test_continues_there_and_back(row: str, tmp_path: Path) -> None:
    record, seed = CHOSEN[row]
    sample = sample_of(record, seed)
    with stand_ins(record, seed):
        old, case, kwargs = old_run(record, sample)
        assert row_id(record.row, case) == row
        for step in range(BEFORE):
            old.step(step)
        saved = checkpoint(old)
        content = convert(saved, record.row, tmp_path)
        new = new_run(record, sample, case, kwargs)
        restore(new, content)
        # converting again changes nothing, neither what was converted nor what the successor saves
        same(convert(content, record.row, tmp_path), content)
        mine = checkpoint(new)
        same(convert(mine, record.row, tmp_path), mine)
        # back: every key that was not dropped, bit for bit
        back = convert(content, record.row, tmp_path, reverse=True, **numbers_go(case))
        kept = {k: v for k, v in saved["state_dict"].items() if not dropped(case, k)}
        assert set(back["state_dict"]) == set(kept)
        for key, value in back["state_dict"].items():
            same(value, kept[key])
        if record.symbol not in NOT_LOADABLE:
            # what the old class did not save, it lost as well when it was resumed
            old, _, _ = old_run(record, sample)
            restore(old, saved)
        close(old, new, BEFORE)


REFUSED = ("combined.HierarchicalCombinedLoss", "hybrid_pretrain_vicreg_loss.HybridPretrainVICRegLoss")
"""Trained objects that do not say how they were built, or are in a phase that no state of the successor matches."""


@pytest.mark.parametrize("row", CHOSEN)
def test_a_pickled_object_continues(row: str, tmp_path: Path) -> None:
    """The whole object in a file, trained, with the optimizer beside it."""
    record, seed = CHOSEN[row]
    sample = sample_of(record, seed)
    with stand_ins(record, seed):
        old, case, _ = old_run(record, sample)
        for name, values in (("update_epoch", [2]), ("update_step", [7, 60])):
            if record.symbol == "vicreg_loss.VICRegLoss":
                getattr(old.loss, name)(*values)
        for step in range(BEFORE):
            old.step(step)
        content = {"criterion": old.loss, "optimizer": old.optimizer and old.optimizer.state_dict()}
        torch.save(content, tmp_path / "run.pt")
        plan, written = convert_file(tmp_path / "run.pt", builtin_catalog(), write=True, trust=True)
        if record.symbol in REFUSED:
            assert "build the successor in code" in plan.problems[0]
            return
        assert not plan.problems, plan.problems
        assert written is not None
        content = torch.load(written, weights_only=False)
        loss = content["criterion"]
        assert type(loss) is resolve(case.new or "")

        def call(step: int) -> Any:
            return loss(**translate_forward(case, (), copy.deepcopy(record.inputs(sample, step))))

        new = Run(loss, call, optimizer_of(loss), sample.seed)
        if new.optimizer is not None:
            new.optimizer.load_state_dict(content["optimizer"])
        close(old, new, BEFORE)


NOT_LOADABLE = {"memory_queue_contrastive_loss.MemoryQueueContrastiveLoss"}
"""Old classes whose state does not load into a new object: the trained object goes on itself."""


def numbers_go(case: Case) -> dict[str, bool]:
    lossy = any(not rule.new and "*" in rule.old for rule in case.state)
    return {"drop_optimizer": lossy}


def dropped(case: Case, key: str) -> bool:
    if not key.startswith("criterion."):
        return False
    return (
        not convert_state(case, {key.removeprefix("criterion."): torch.zeros(1, 1)[0]}) if single(case, key) else False
    )


def single(case: Case, key: str) -> bool:
    """Whether the rule for ``key`` drops it (the value plays no role then)."""
    short = key.removeprefix("criterion.")
    rule = next(r for r in case.state if r.old and r.match(short) is not None)
    return not rule.new


# --- what the records cannot drive -----------------------------------------------------------------------------------


def symbol(name: str) -> Symbol:
    (found,) = builtin_catalog().find(name)
    return found


@pytest.mark.parametrize("symmetric", [True, False])
def test_ema_moco_continues(symmetric: bool, tmp_path: Path) -> None:
    """The queues go on where they were; the key encoders move to MomentumEncoder."""
    torch.manual_seed(0)
    encoders = {side: [nn.Linear(5, 4).double(), nn.Linear(3, 4).double()] for side in ("old", "new")}
    for a, b in zip(encoders["old"], encoders["new"], strict=True):
        b.load_state_dict(a.state_dict())
    loss = twin("ema_moco_loss.EMAMoCoLoss")(*encoders["old"], dim=4, K=7, m=0.9, T=0.2, symmetric=symmetric).double()
    loss.vision_encoder, loss.text_encoder = encoders["old"]

    def batch(step: int) -> list[torch.Tensor]:
        g = torch.Generator().manual_seed(step)
        return [torch.randn(3, width, generator=g).double() for width in (5, 3)]

    def sgd(side: str) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for e in encoders[side] for p in e.parameters()], lr=0.1)

    old = Run(loss, lambda step: loss(*batch(step)), sgd("old"), 0)
    for step in range(BEFORE):
        old.step(step)
    saved = checkpoint(replace_optimizer(old, None))
    content = convert(saved, symbol("ema_moco_loss.EMAMoCoLoss"), tmp_path)
    assert not [key for key in content["state_dict"] if "encoder" in key]
    for a, b in zip(encoders["old"], encoders["new"], strict=True):
        b.load_state_dict(a.state_dict())
    keys = [MomentumEncoder(encoder, momentum=0.9) for encoder in encoders["new"]]
    for name, key in zip(("vision", "text"), keys, strict=True):
        prefix = f"criterion.{name}_key_encoder."
        mine = {k.removeprefix(prefix): v for k, v in saved["state_dict"].items() if k.startswith(prefix)}
        key.encoder.load_state_dict(mine)
    case, arguments = translate(symbol("ema_moco_loss.EMAMoCoLoss"), (), {
        "vision_encoder": None, "text_encoder": None, "dim": 4, "K": 7, "m": 0.9, "T": 0.2, "symmetric": symmetric,
    })  # fmt: skip
    assert case.new == f"{MoCoLoss.__module__}.MoCoLoss"
    moco = MoCoLoss(**arguments).double()

    def call(step: int) -> Any:
        x, y = batch(step)
        out = moco(encoders["new"][0](x), encoders["new"][1](y), keys[0](x), keys[1](y))
        for key, encoder in zip(keys, encoders["new"], strict=True):
            key.update(encoder)  # the old loss moved them at the end of its call
        return out

    new = Run(moco, call, None, 0)
    restore(new, content)
    new.optimizer = sgd("new")
    close(old, new, BEFORE)


def replace_optimizer(run: Run, optimizer: torch.optim.Optimizer | None) -> Run:
    return Run(run.loss, run.call, optimizer, run.seed)


def test_losses_inside_a_loss_continue(tmp_path: Path) -> None:
    """CombinedLoss over two old losses with heads: the keys of both layers change, and Adam goes on."""
    torch.manual_seed(0)
    old_loss = twin("contrastive_loss.ContrastiveLoss")
    heads = {"add_projection": True, "input_dim": 5, "projection_dim": 3}
    inner = [
        old_loss(loss_type=kind, sampling_strategy="auto", temperature=0.3, **heads) for kind in ("infonce", "nt_xent")
    ]
    combined = twin("combined_loss.CombinedLoss")(inner[0], inner[1], secondary_loss_weight=0.25).double()

    def batch(step: int) -> dict[str, torch.Tensor]:
        g = torch.Generator().manual_seed(step)
        return {n: torch.randn(6, 5, generator=g).double() for n in ("vision_features", "text_features")}

    old = Run(combined, lambda step: combined(**batch(step)), optimizer_of(combined), 0)
    for step in range(BEFORE):
        old.step(step)
    content = convert(checkpoint(old), symbol("combined_loss.CombinedLoss"), tmp_path)
    assert "criterion.terms.primary.vision_head.layers.0.weight" in content["state_dict"]
    terms: dict[str, nn.Module] = {}
    for name, loss in zip(("primary", "secondary"), inner, strict=True):
        case, arguments = translate(symbol("contrastive_loss.ContrastiveLoss"), (), {
            "loss_type": loss.loss_type, "sampling_strategy": "auto", "temperature": 0.3, **heads,
        })  # fmt: skip
        terms[name] = resolve(case.new or "")(**arguments)
    assert [type(term) for term in terms.values()] == [CLIPLoss, SimCLRLoss]
    weighted = resolve("training_losses.balancing.weighted_sum.WeightedSumLoss")(
        terms=terms, weights={"primary": 1.0, "secondary": 0.25}
    ).double()
    views = {"vision_features": "z_a", "text_features": "z_b"}

    def call(step: int) -> Any:
        made = batch(step)
        return weighted(**made, **{views[name]: value for name, value in made.items()})

    new = Run(weighted, call, optimizer_of(weighted), 0)
    restore(new, content)
    close(old, new, BEFORE)


def test_hjepa_sigreg_continues(tmp_path: Path) -> None:
    record = next(r for r in all_records() if r.id == "hjepa-combined.CombinedLoss")
    sample = replace(sample_of(record, 3), batch=6)
    plain = {"num_slices": 5, "fixed_slices": True, "invariance_weight": 0.0, "sigreg_weight": 1.0}
    weights = [1.0, 0.7, 0.3]
    jepa, sigreg = twin("hjepa.hjepa_loss.HJEPALoss"), twin("hjepa.sigreg.SIGRegLoss")
    before = twin("hjepa.combined.HJEPASIGRegLoss")(jepa(hierarchy_weights=weights), sigreg(**plain), 0.3).double()
    (row,) = (s for s in builtin_catalog().symbols if s.old == "combined.HJEPASIGRegLoss")
    regularizer = translate(next(s for s in builtin_catalog().symbols if s.old == "sigreg.SIGRegLoss"), (), plain)[1]
    arguments = translate(row, (), {
        "jepa_loss": HJEPALoss(hierarchy_weights=weights), "sigreg_loss": SIGRegLoss(**regularizer),
        "sigreg_weight": 0.3,
    })[1]  # fmt: skip
    after = HJEPACombinedLoss(**arguments).double()

    def batch(step: int) -> dict[str, Any]:
        return levels(sample, step, context_features=(3, sample.dim))

    directions = resolve("training_losses.functional.counter_random.counter_normal")(
        5, sample.dim * 3 if not plain.get("flatten_patches", True) else sample.dim, seed=0, step=torch.tensor(0),
        dtype=torch.float64,
    )  # fmt: skip
    before.sigreg_loss._fixed_random_slices = nn.functional.normalize(directions, dim=1)
    old = Run(before, lambda step: before(**batch(step)), None, 0)
    new = Run(after, lambda step: after(**batch(step)), None, 0)
    for step in range(BEFORE):
        old.step(step)
    restore(new, convert(checkpoint(old), row, tmp_path))
    close(old, new, BEFORE)


def test_activity_continues(tmp_path: Path) -> None:
    """The old loss had swallowed the network; its weights are dropped, the hooks of the new one are attached again."""
    record = next(r for r in all_records() if isinstance(r, ActivityRecord) and "activity" in r.symbol)
    sample = sample_of(record, 3)
    network, leaves = small_network(sample, False)
    record.mark(network, sample)
    before = twin("dynvision.activity_loss.ActivityLoss")()
    before.register_hooks(network)
    case, arguments = translate(record.row, (), {})
    after = EnergyLoss(**arguments)
    optimizer = torch.optim.SGD(list(leaves.values()), lr=0.01)
    losses = []

    def step(number: int) -> None:
        drive(network, sample.randn(2, sample.batch, 2, 4, 4, salt=number), False, 0, (1,))
        losses.append([loss(None, None) for loss in attached])
        optimizer.zero_grad()
        losses[-1][0].backward()
        optimizer.step()

    attached: list[nn.Module] = [before]
    for number in range(BEFORE):
        step(number)
    before.extra = nn.Linear(1, 1)  # a network with weights of its own, as a real one has
    before._model_ref.weight = before.extra.weight
    content = checkpoint(Run(before, step, None, 0))
    content["state_dict"] = {k: v for k, v in content["state_dict"].items() if ".extra." not in k}
    assert any("_model_ref" in key for key in content["state_dict"])
    restored = Run(after, step, None, 0)
    restore(restored, convert(content, record.row, tmp_path))
    getattr(after, case.members["register_hooks"])(network)
    attached.append(after)
    for number in range(BEFORE, BEFORE + 20):
        step(number)
    for old, new in losses[BEFORE:]:
        torch.testing.assert_close(new, old, rtol=1e-6, atol=1e-6)


def test_temporal_base_converts(tmp_path: Path) -> None:
    """No loss: all that it saved was a constructor argument of the successor, which saves nothing."""
    before = twin("dynvision.temporal_masking.TemporalBase")(n_timesteps=4)
    after = Run(PresentationSchedule(n_steps=4), lambda step: None, None, 0)
    content = convert(
        checkpoint(Run(before, lambda step: None, None, 0)), symbol("temporal_masking.TemporalBase"), tmp_path
    )
    assert list(content["state_dict"]) == ["backbone.weight"]
    restore(after, content)


DRIVEN_HERE = {
    "dynvision: activity_loss.ActivityLoss",
    "dynvision: temporal_masking.TemporalBase",
    "hjepa: combined.HJEPASIGRegLoss",
    "multimodal_insight: combined_loss.CombinedLoss",
    "multimodal_insight: ema_moco_loss.EMAMoCoLoss",
}


def test_every_row_with_state_is_continued() -> None:
    assert set(rows_with_state()) == set(CHOSEN) | DRIVEN_HERE
    assert not set(CHOSEN) & DRIVEN_HERE


def test_a_wrong_conversion_is_noticed(tmp_path: Path) -> None:
    """The check itself: heads that were swapped give other losses."""
    row = next(name for name in CHOSEN if "nt_xent" in name)
    record, seed = CHOSEN[row]
    sample = sample_of(record, seed)
    old, case, kwargs = old_run(record, sample)
    old.step(0)
    content = convert(checkpoint(old), record.row, tmp_path)
    state = content["state_dict"]
    for key in [k for k in state if "vision_head" in k]:
        other = key.replace("vision_head", "text_head")
        state[key], state[other] = copy.deepcopy(state[other]), copy.deepcopy(state[key])
    new = new_run(record, sample, case, kwargs)
    restore(new, content)
    with pytest.raises(AssertionError):
        close(old, new, 1, steps=2)
