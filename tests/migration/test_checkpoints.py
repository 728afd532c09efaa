"""Layouts, optimizers, recognition and refusal, safety of the write, pickled modules, the command."""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import training_losses.migration.checkpoint.files
from tests.migration.training import same
from tests.support.twins import twin
from training_losses.balancing.weighted_sum import WeightedSumLoss
from training_losses.contrastive import BarlowTwinsLoss, CLIPLoss
from training_losses.migration.__main__ import main
from training_losses.migration.catalog import Argument, Case, Catalog, StateRule, Symbol, builtin_catalog
from training_losses.migration.checkpoint import CheckpointError, convert_file, migrate_module, parse_assignments, plan
from training_losses.migration.parity import _flatten, _loss

HEADS = {"add_projection": True, "input_dim": 5, "projection_dim": 3}


def old_loss(**kwargs: Any) -> nn.Module:
    torch.manual_seed(0)
    return twin("contrastive_loss.ContrastiveLoss")(sampling_strategy="auto", **HEADS, **kwargs)


class Model(nn.Module):
    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5))
        self.loss = loss


def trained(model: nn.Module, named: bool = False) -> torch.optim.Optimizer:
    parameters: Any = model.named_parameters() if named else model.parameters()
    optimizer = torch.optim.Adam(parameters)
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, float(number + 1))
    optimizer.step()
    return optimizer


def converted(content: Any, *losses: str, **kwargs: Any) -> Any:
    catalog = kwargs.pop("catalog", builtin_catalog())
    made, result = plan(copy.deepcopy(content), catalog, assignments=parse_assignments(catalog, losses), **kwargs)
    assert not made.problems, made.problems
    return result


def problems(content: Any, *losses: str, **kwargs: Any) -> str:
    catalog = kwargs.pop("catalog", builtin_catalog())
    made, _ = plan(content, catalog, assignments=parse_assignments(catalog, losses), **kwargs)
    assert made.problems
    return "\n".join(made.problems)


# --- layouts ---------------------------------------------------------------------------------------------------------


def test_lightning_nested_and_wrapped_layouts() -> None:
    state = Model(old_loss()).state_dict()
    content = {
        "epoch": 3,
        "hyper_parameters": {"lr": 0.1, "sizes": (1, 2)},
        "state_dict": state,
        "ema": [{"decay": 0.9, "weights": OrderedDict((f"module._orig_mod.{k}", v) for k, v in state.items())}],
        "callbacks": {"best": {"score": torch.tensor(0.5)}},
    }
    result = converted(content)
    assert "loss.vision_head.layers.0.weight" in result["state_dict"]
    assert "module._orig_mod.loss.text_head.layers.2.bias" in result["ema"][0]["weights"]
    assert isinstance(result["state_dict"], OrderedDict)
    assert result["state_dict"]._metadata == state._metadata
    assert list(result) == list(content)
    same(result["hyper_parameters"], content["hyper_parameters"])
    losses = [
        f"{prefix}loss=training_losses.legacy.contrastive_loss.ContrastiveLoss" for prefix in ("", "module._orig_mod.")
    ]
    same(converted(result, *losses, reverse=True)["state_dict"], state)


def test_a_loss_alone_and_one_beside_other_entries() -> None:
    state = old_loss().state_dict()
    assert "vision_head.layers.0.weight" in converted(dict(state))
    result = converted({**{f"criterion.{k}": v for k, v in state.items()}, "epoch": 4, "note": "x"})
    assert "criterion.vision_head.layers.0.weight" in result
    assert (result["epoch"], result["note"]) == (4, "x")


def test_tied_tensors_stay_tied_and_copies_do_not_share() -> None:
    weight = torch.ones(2, 2)
    bank = twin("memory_queue_contrastive_loss.MemoryQueueContrastiveLoss")(dim=4, queue_size=5)
    result = converted({"a.w": weight, "b.w": weight, **{f"loss.{k}": v for k, v in bank.state_dict().items()}})
    assert result["a.w"].data_ptr() == result["b.w"].data_ptr()
    assert result["loss.vision_queue.ptr"].data_ptr() != result["loss.text_queue.ptr"].data_ptr()


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({f"loss.{k}": v for k, v in old_loss().state_dict().items()}, path, {"format": "pt"})
    _, written = convert_file(path, builtin_catalog(), write=True)
    assert written == tmp_path / "model.migrated.safetensors"
    new = CLIPLoss(input_dim=5, projection_dim=3)
    new.load_state_dict({k.removeprefix("loss."): v for k, v in load_file(written).items()})
    path.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        convert_file(path, builtin_catalog())


# --- what is recognised, what is refused -----------------------------------------------------------------------------


def test_names_that_are_no_losses_are_asked_for() -> None:
    content = {f"encoder.{k}": v for k, v in old_loss().state_dict().items()}
    assert "its name is not that of a loss" in problems(content)
    assert "encoder.vision_head.layers.0.bias" in converted(
        content, "encoder=training_losses.legacy.contrastive_loss.ContrastiveLoss"
    )
    made, result = plan(content, builtin_catalog(), skip=["encoder"])
    assert made.empty
    assert result is content


def test_unknown_keys_of_a_loss_are_refused() -> None:
    content = {f"loss.{k}": v for k, v in old_loss().state_dict().items()} | {"loss.extra": torch.ones(1)}
    assert "'extra', which it does not have" in problems(content)
    assert "has no rule for 'extra'" in problems(
        content, "loss=training_losses.legacy.contrastive_loss.ContrastiveLoss"
    )
    beside = {f"other.{k}": v for k, v in old_loss().state_dict().items()}
    made, _ = plan(
        content | beside,
        builtin_catalog(),
        assignments=parse_assignments(
            builtin_catalog(),
            [
                "loss=training_losses.legacy.contrastive_loss.ContrastiveLoss",
                "other=training_losses.legacy.contrastive_loss.ContrastiveLoss",
            ],
        ),
    )
    assert len(made.problems) == 1, made.problems  # though every pass sees it
    assert "no state_dict has keys below 'x.'" in problems(
        content, "x=training_losses.legacy.contrastive_loss.ContrastiveLoss", skip=["loss"]
    )


def test_normalisation_constants_are_not_dropped_by_themselves() -> None:
    content = {"loss_input.mean": torch.zeros(3), "loss_input.std": torch.ones(3)}
    made, result = plan(content, builtin_catalog())
    assert made.empty
    assert result is content


@pytest.mark.parametrize("content", [3, {"a": 1}, torch.ones(2), []])
def test_files_without_state_are_errors(content: Any) -> None:
    with pytest.raises(CheckpointError, match="neither a state_dict nor a module"):
        plan(content, builtin_catalog())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loss", "expected PREFIX=OLD.NAME"),
        ("loss=NoSuch", "no row for 'NoSuch'"),
        ("loss=CombinedLoss", "several rows"),
        ("loss=clip_style_loss.CLIPStyleLoss", "no row has state rules"),
    ],
)
def test_wrong_assignments(text: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        parse_assignments(builtin_catalog(), [text])


# --- optimizers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [False, True])
def test_optimizers_by_number_keep_the_order(named: bool) -> None:
    model = Model(old_loss())
    optimizer = trained(model, named)
    result = converted({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    same(result["optimizer"]["state"], optimizer.state_dict()["state"])
    if named:
        assert "loss.vision_head.layers.0.weight" in result["optimizer"]["param_groups"][0]["param_names"]


def test_optimizer_states_by_name() -> None:
    model = Model(old_loss())
    state = {name: {"step": torch.tensor(1.0), "exp_avg": p.detach()} for name, p in model.named_parameters()}
    groups = [{"lr": 0.1, "params": list(state)}]
    result = converted({"model": model.state_dict(), "optim": {"state": state, "param_groups": groups}})["optim"]
    assert list(result["state"]) == result["param_groups"][0]["params"]
    assert "loss.vision_head.layers.0.weight" in result["state"]


def test_dropped_parameters_leave_the_optimizer(tmp_path: Path) -> None:
    """EMAMoCoLoss held the key encoders: their numbers vanish, those behind them move up."""
    vision, text = nn.Linear(5, 4), nn.Linear(3, 4)
    loss = twin("ema_moco_loss.EMAMoCoLoss")(vision, text, dim=4, K=6)
    model = nn.ModuleDict({"loss": loss, "vision": vision, "text": text})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for number, parameter in enumerate(vision.parameters()):
        parameter.grad = torch.full_like(parameter, number + 1.0)
    optimizer.step()
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    result = converted(content)["optimizer"]
    assert result["param_groups"][0]["params"] == [0, 1, 2, 3]
    after = torch.optim.SGD([*vision.parameters(), *text.parameters()], lr=0.1, momentum=0.9)
    after.load_state_dict(result)
    for parameter in vision.parameters():
        torch.testing.assert_close(
            after.state[parameter]["momentum_buffer"], optimizer.state[parameter]["momentum_buffer"]
        )
    # numbers that fit no state_dict are refused, unless the state may go
    content["optimizer"]["param_groups"][0]["params"].append(8)
    assert "no state_dict of the file fits" in problems(content)
    assert converted(content, drop_optimizer=True)["optimizer"]["state"] == {}


def swapped() -> Catalog:
    """A successor that holds its parameters in another order, one of them transposed."""
    rules = (StateRule("b.*", ("second.*",)), StateRule("a.*", ("first.*",), transpose=True))
    arguments = {"x": Argument("x")}
    case = Case("n.New", "exact", arguments=arguments, state=rules)
    return Catalog((Symbol("s", "m.Old", "class", "legacy.m.Old", ("old.m.Old",), (), (case,), "1", "2"),), {}, {})


@pytest.mark.parametrize("named", [False, True])
def test_parameters_in_another_order_take_their_states_along(named: bool) -> None:
    model = nn.ModuleDict({
        "loss": nn.ModuleDict({"a": nn.Linear(2, 3, bias=False), "b": nn.Linear(4, 4, bias=False)}),
        "rest": nn.Linear(1, 1),
    })  # fmt: skip
    optimizer = trained(model, named).state_dict()
    result = converted({"model": model.state_dict(), "o": optimizer}, catalog=swapped())["o"]
    before, after = optimizer["state"], result["state"]
    torch.testing.assert_close(after[0]["exp_avg"], before[1]["exp_avg"])
    torch.testing.assert_close(after[1]["exp_avg"], before[0]["exp_avg"].T)
    same(after[2], before[2])
    if named:
        names = ["loss.second.weight", "loss.first.weight", "rest.weight", "rest.bias"]
        assert result["param_groups"][0]["param_names"] == names


# --- the write -------------------------------------------------------------------------------------------------------


def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    torch.save({"state_dict": Model(old_loss()).state_dict()}, path)
    return path


@pytest.mark.parametrize("fault", ["save", "fsync", "replace", "chmod"])
@pytest.mark.parametrize("error", [OSError("disk full"), RuntimeError("broken"), KeyboardInterrupt()])
def test_a_fault_leaves_nothing_behind(
    fault: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path)
    before = path.read_bytes()
    target = tmp_path / "out.pt"
    target.write_bytes(b"what was there")

    def fail(*args: Any) -> None:
        if fault == "save":
            Path(args[1]).write_bytes(b"half")
        raise error

    owner = (
        training_losses.migration.checkpoint.files.torch
        if fault == "save"
        else training_losses.migration.checkpoint.files.os
    )
    monkeypatch.setattr(owner, fault, fail)
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else CheckpointError
    with pytest.raises(expected):
        convert_file(path, builtin_catalog(), write=True, output=target, force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.pt", "out.pt"]
    assert path.read_bytes() == before
    assert target.read_bytes() == b"what was there"


def test_where_it_may_write(tmp_path: Path) -> None:
    path = saved(tmp_path)
    catalog = builtin_catalog()
    made, written = convert_file(path, catalog)
    assert made.changes
    assert written is None
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]
    for output, message in (
        (path, "that is FILE itself"),
        (tmp_path / "no" / "x.pt", "does not exist"),
    ):
        with pytest.raises(CheckpointError, match=message):
            convert_file(path, catalog, write=True, output=output, force=True)
    convert_file(path, catalog, write=True)
    with pytest.raises(CheckpointError, match="exists"):
        convert_file(path, catalog, write=True)
    with pytest.raises(CheckpointError, match="does not exist or is no file"):
        convert_file(tmp_path / "none.pt", catalog)


# --- pickled modules -------------------------------------------------------------------------------------------------


def test_pickled_modules_need_trust(tmp_path: Path) -> None:
    model = Model(twin("barlow_twins_loss.BarlowTwinsLoss")(lambda_coeff=0.1))
    path = tmp_path / "model.pt"
    torch.save(model, path)
    with pytest.raises(CheckpointError, match="--trust"):
        convert_file(path, builtin_catalog(), write=True)
    made, written = convert_file(path, builtin_catalog(), write=True, trust=True)
    assert not made.problems, made.problems
    assert written is not None
    loaded = torch.load(written, weights_only=False)
    assert type(loaded.loss) is BarlowTwinsLoss
    x, y = torch.randn(6, 5), torch.randn(6, 5)
    with torch.no_grad():
        torch.testing.assert_close(_loss(_flatten(loaded.loss(x, y))), _loss(_flatten(model.loss(x, y))))


def test_losses_inside_pickled_losses() -> None:
    inner = twin("barlow_twins_loss.BarlowTwinsLoss")(lambda_coeff=0.1)
    model = Model(inner)
    new, changes, found = migrate_module(nn.Sequential(model, inner), builtin_catalog())
    assert not found, found
    assert new[0].loss is new[1]
    assert len(changes) == 1
    tasks = twin("multitask_loss.MultitaskLoss")(loss_functions={"a": inner})
    new, _, found = migrate_module(tasks, builtin_catalog())
    assert not found, found
    assert type(new.tasks["a"]) is BarlowTwinsLoss


def test_reported_arguments_that_were_not_kept_count_as_not_given() -> None:
    kept = Argument("reduction", "mean")
    case = Case(
        "training_losses.supervised.mse.WeightedMSELoss",
        "exact",
        arguments={"reduction": kept, "store": Argument("store", None, report="there is no store")},
    )
    symbol = Symbol("s", "mse.Old", "class", f"{__name__}.Stored", (), (), (case,), "1", "2")
    new, changes, found = migrate_module(Stored(), Catalog((symbol,), {}, {}))
    assert not found, found
    assert len(changes) == 1
    assert type(new).__name__ == "WeightedMSELoss"


MEMORY = "memory_queue_contrastive_loss.MemoryQueueContrastiveLoss"


class Stored(nn.Module):
    """An old class that does not keep its argument ``store``."""

    def __init__(self, reduction: str = "mean", store: Any = None) -> None:
        super().__init__()
        self.reduction = reduction


def test_arguments_that_were_not_kept_are_named() -> None:
    _, changes, found = migrate_module(Model(twin("hjepa.combined.HierarchicalCombinedLoss")()), builtin_catalog())
    assert not changes
    assert "does not keep its argument jepa_loss_type, " in found[0]


def test_objects_that_changed_after_they_were_built_are_refused() -> None:
    loss = twin("barlow_twins_loss.BarlowTwinsLoss")()
    loss.scaling = {"of": "mine"}
    _, changes, found = migrate_module(Model(loss), builtin_catalog())
    assert not changes
    assert "loss: barlow_twins_loss.BarlowTwinsLoss is not what its attributes say: scaling changed" in found[0]


def test_an_object_that_cannot_be_built_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = twin("barlow_twins_loss.BarlowTwinsLoss")()

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network,\nno weights")

    monkeypatch.setattr(type(loss), "__init__", offline)
    _, changes, (found,) = migrate_module(Model(loss), builtin_catalog())
    assert not changes
    assert "cannot be built again from its attributes: no network, no weights; build" in found


def test_a_queue_before_its_first_call_is_empty() -> None:
    new, _, found = migrate_module(twin(MEMORY)(dim=5, queue_size=8), builtin_catalog())
    assert not found, found
    assert new.vision_queue.features.shape == (8, 5)
    assert new.vision_queue.filled == 0


def test_modules_do_not_go_back() -> None:
    assert "cannot be turned back" in problems(WeightedSumLoss(terms={"a": nn.MSELoss()}), reverse=True)


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path)
    assert main(["checkpoint", str(path)]) == 1
    assert "8 keys would change" in capsys.readouterr().out
    assert main(["checkpoint", str(path), "--write", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert len(data["changes"]) == 8
    written = data["written"]
    assert main(["checkpoint", written]) == 0
    assert "nothing to convert" in capsys.readouterr().out
    assert (
        main(
            [
                "checkpoint",
                written,
                "--reverse",
                "--write",
                "--loss",
                "loss=training_losses.legacy.contrastive_loss.ContrastiveLoss",
            ]
        )
        == 0
    )
    back = torch.load(Path(written).with_suffix(".old.pt"), weights_only=True)
    same(back, torch.load(path, weights_only=True))
    assert main(["checkpoint", str(tmp_path / "none.pt")]) == 2
    assert "does not exist" in capsys.readouterr().err
