"""Layouts, optimizers, recognition and refusal, safety of the write, pickled modules, the command."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
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
from training_losses.migration.parity import _flatten, _loss, resolve
from training_losses.migration.translate import translate

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
            args[1].write(b"half")
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


# --- kinds of files --------------------------------------------------------------------------------------------------


def flat(prefix: str, tensor: torch.Tensor) -> dict[str, Any]:
    names = ("loss.vision_projection.0.weight", "zoo.weight")
    model = {f"model.{prefix}{name}": tensor for name in names}
    state = {f"optim.state.{name}.exp_avg": tensor for name in names}
    return model | state | {f"optim.param_groups.{name}.lr": 0.1 for name in names}


@pytest.mark.parametrize("prefix", ["", "module.", "_fsdp_wrapped_module."])
def test_flattened_optimizers_follow(prefix: str) -> None:
    """Keys of torch.distributed.checkpoint: all of them or none."""
    result = converted(flat(prefix, torch.ones(2, 2)))
    assert list(result) == [
        f"model.{prefix}loss.vision_head.layers.0.weight",
        f"model.{prefix}zoo.weight",
        "optim.state.loss.vision_head.layers.0.weight.exp_avg",
        "optim.state.zoo.weight.exp_avg",
        "optim.param_groups.loss.vision_head.layers.0.weight.lr",
        "optim.param_groups.zoo.weight.lr",
    ]
    alone = {key: value for key, value in flat(prefix, torch.ones(2, 2)).items() if key.startswith("optim")}
    assert list(converted(alone)) == [key for key in result if key.startswith("optim")]
    odd = flat(prefix, torch.ones(2, 2)) | {"optim.state.loss.other.exp_avg": torch.ones(1)}
    assert "the optimizer names 'loss.other'" in problems(odd)


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_named_states_follow_a_model_with_a_prefix(prefix: str) -> None:
    names = ["loss.vision_projection.0.weight", "loss.text_projection.0.weight"]
    state = {name: {"exp_avg": torch.full((2, 2), float(n))} for n, name in enumerate(names)}
    content = {
        "model": {prefix + name: torch.ones(2, 2) for name in names},
        "optim": {"state": state, "param_groups": [{"params": names}]},
    }
    result = converted(content)["optim"]
    assert list(result["state"]) == ["loss.vision_head.layers.0.weight", "loss.text_head.layers.0.weight"]
    assert result["param_groups"][0]["params"] == list(result["state"])
    content["optim"]["state"]["elsewhere.weight"] = {"exp_avg": torch.ones(1)}
    assert "the optimizer names 'elsewhere.weight'" in problems(content)


def test_an_order_that_cannot_be_known_is_asked_for() -> None:
    """Two losses whose key encoders vanish: which of the equal shapes they are, only the program knows."""
    state = {f"{name}.{part}.weight": torch.ones(2, 2) for name in ("b", "a") for part in ("x", "y")}
    rules = (StateRule("x.*", ("second.*",)), StateRule("y.*", ("first.*",)))
    case = Case("n.New", "exact", arguments={"x": Argument("x")}, state=rules)
    catalog = Catalog((Symbol("s", "m.Old", "class", "legacy.m.Old", ("old.m.Old",), (), (case,), "1", "2"),), {}, {})
    entries = {n: {"exp_avg": torch.full((2, 2), float(n))} for n in range(4)}
    content = {"model": state, "optimizer": {"state": entries, "param_groups": [{"params": [0, 1, 2, 3]}]}}
    given = ("a=m.Old", "b=m.Old")
    assert "several orders of them fit: say which it was with --order" in problems(content, *given, catalog=catalog)

    def order(word: str) -> list[float]:
        states = converted(content, *given, catalog=catalog, order=word)["optimizer"]["state"]
        return [float(states[n]["exp_avg"][0, 0]) for n in range(4)]

    assert order("module") == [0, 1, 2, 3]  # b.second, b.first, a.second, a.first
    assert order("name") == [1, 0, 3, 2]  # a.x, a.y, b.x, b.y were sorted; a.first, a.second, b.first, b.second are
    with pytest.raises(CheckpointError, match="order must be one of module, name, file, found 'odd'"):
        plan(content, catalog, order="odd")


def test_orders_that_are_nobodys_stay() -> None:
    model = Model(old_loss())
    own = sorted(model.named_parameters(), key=lambda p: p[0][::-1])
    optimizer = torch.optim.Adam(own)
    for number, (_, parameter) in enumerate(own):
        parameter.grad = torch.full_like(parameter, float(number + 1))
    optimizer.step()
    before = optimizer.state_dict()
    result = converted({"model": model.state_dict(), "optimizer": before})["optimizer"]
    same(result["state"], before["state"])
    renamed = [n.replace("_projection", "_head.layers") for n, _ in own]
    assert result["param_groups"][0]["param_names"] == renamed


def test_reverse_keeps_the_order_of_an_optimizer() -> None:
    model = nn.ModuleDict({"loss": CLIPLoss(input_dim=5, projection_dim=3), "rest": nn.Linear(2, 2)})
    optimizer = trained(model, named=True).state_dict()
    content = {"model": model.state_dict(), "optimizer": optimizer}
    result = converted(
        content, "loss=training_losses.legacy.contrastive_loss.ContrastiveLoss:loss_type=infonce", reverse=True
    )
    same(result["optimizer"]["state"], optimizer["state"])
    assert "loss.vision_projection.0.weight" in result["optimizer"]["param_groups"][0]["param_names"]


def test_heads_of_another_kind_are_no_loss() -> None:
    heads = {
        f"{name}_projection.{kind}": torch.zeros(2, 2) for name in ("vision", "text") for kind in ("weight", "bias")
    }
    for prefix in ("", "model.", "loss."):
        content = {prefix + key: value for key, value in heads.items()}
        made, result = plan(content, builtin_catalog())
        assert made.empty, made.problems
        assert result is content
    queue = {"loss.vision_queue": torch.zeros(2, 3, 4), "loss.queue_ptr": torch.zeros(1)}
    assert "'vision_queue', which it does not have" in problems(queue)


def test_a_loss_inside_that_could_be_part_of_another_is_asked_for() -> None:
    state = {f"criterion.contrastive_loss.{key}": value for key, value in old_loss().state_dict().items()}
    assert "say which with --loss criterion=NAME or --loss criterion.contrastive_loss=NAME" in problems(state)
    one = converted(state, "criterion.contrastive_loss=training_losses.legacy.contrastive_loss.ContrastiveLoss")
    assert "criterion.contrastive_loss.vision_head.layers.0.weight" in one
    other = converted(state, "criterion=hybrid_pretrain_vicreg_loss.HybridPretrainVICRegLoss")
    assert "criterion.vision_head.layers.0.weight" in other


def test_places_may_stand_before_prefixes() -> None:
    """The command prints places, so it takes them, too."""
    state = old_loss().state_dict()
    content = {"model": {"w": torch.ones(1)}, "criterion": dict(state)}
    assert (
        "vision_head.layers.0.weight"
        in converted(content, "criterion=training_losses.legacy.contrastive_loss.ContrastiveLoss")["criterion"]
    )
    made, result = plan(content, builtin_catalog(), skip=["criterion"])
    assert made.empty
    assert result is content
    back = converted(
        converted(content),
        "criterion=training_losses.legacy.contrastive_loss.ContrastiveLoss:loss_type=infonce",
        reverse=True,
    )
    same(back["criterion"], dict(state))


def test_the_suffix_of_the_output_is_its_format(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({f"loss.{k}": v for k, v in old_loss().state_dict().items()}, path)
    catalog = builtin_catalog()
    _, written = convert_file(path, catalog, write=True, output=tmp_path / "a.safetensors")
    assert written is not None
    loaded = load_file(written)
    assert sorted(loaded) == sorted(k for k in torch.load(convert_file(path, catalog, write=True)[1]))
    _, back = convert_file(
        written,
        catalog,
        write=True,
        output=tmp_path / "b.pt",
        reverse=True,
        losses=["loss=barlow_twins_loss.BarlowTwinsLoss"],
    )
    same(dict(sorted(torch.load(back).items())), dict(sorted(torch.load(path).items())))
    torch.save({"epoch": 3, "model": {f"loss.{k}": v for k, v in old_loss().state_dict().items()}}, path)
    with pytest.raises(
        CheckpointError, match=r"named tensors and nothing else, found 'epoch' \(int\), 'model' \(dict\)"
    ):
        convert_file(path, catalog, write=True, output=tmp_path / "c.safetensors")
    assert not list(tmp_path.glob(".training*"))


def test_only_regular_files_are_replaced(tmp_path: Path) -> None:
    path = saved(tmp_path)
    target = tmp_path / "dangling.pt"
    target.symlink_to(tmp_path / "nowhere.pt")
    folder = tmp_path / "folder.pt"
    folder.mkdir()
    for output, kind in ((target, "a link"), (folder, "a folder"), (Path("/dev/null"), "no regular file")):
        with pytest.raises(CheckpointError, match=f"that is {kind}, which is not replaced"):
            convert_file(path, builtin_catalog(), write=True, output=output, force=True)
    assert target.is_symlink()
    assert Path("/dev/null").is_char_device()


def test_temporary_files_of_killed_runs_are_removed(tmp_path: Path) -> None:
    path = saved(tmp_path)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = tmp_path / f".training-losses-abc.{gone.pid}.tmp"
    alive = tmp_path / f".training-losses-abc.{os.getppid()}.tmp"
    for file in (left, alive):
        file.write_bytes(b"half")
    convert_file(path, builtin_catalog(), write=True)
    assert not left.exists()
    assert alive.exists()


def test_odd_keys_cycles_and_deep_trees(tmp_path: Path) -> None:
    odd = {0: torch.zeros(1), "loss.vision_projection.0.weight": torch.zeros(2, 2)}
    assert list(converted(odd)) == [0, "loss.vision_head.layers.0.weight"]
    cycle: dict[str, Any] = {"loss.vision_projection.0.weight": torch.zeros(2, 2)}
    cycle["self"] = cycle
    with pytest.raises(CheckpointError, match="self: this container holds itself"):
        plan(cycle, builtin_catalog())
    deep: Any = {"w": torch.zeros(1)}
    for _ in range(300):
        deep = {"x": deep}
    with pytest.raises(CheckpointError, match="nested more than 200 levels deep"):
        plan(deep, builtin_catalog())


def test_sharded_files_with_an_index(tmp_path: Path) -> None:
    state = {f"loss.{k}": v for k, v in old_loss().state_dict().items()} | {"zoo.weight": torch.ones(3)}
    names = sorted(state)
    shards = {"m-1.safetensors": names[:5], "m-2.safetensors": names[5:]}
    for name, keys in shards.items():
        save_file({key: state[key].contiguous() for key in keys}, tmp_path / name)
    index = tmp_path / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {key: name for name, keys in shards.items() for key in keys}}))
    _, written = convert_file(index, builtin_catalog(), write=True)
    assert written == tmp_path / "m.migrated.safetensors.index.json"
    weights = json.loads(written.read_text())["weight_map"]
    loaded = {key: value for name in set(weights.values()) for key, value in load_file(tmp_path / name).items()}
    same(dict(sorted(loaded.items())), dict(sorted(converted(state).items())))
    assert all(key in load_file(tmp_path / name) for key, name in weights.items())
    (tmp_path / "m-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"names the file m-2.safetensors, which does not exist"):
        convert_file(index, builtin_catalog())


def test_folders_say_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a folder, and no file"):
        convert_file(tmp_path, builtin_catalog())
    (tmp_path / ".metadata").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"format_utils dcp_to_torch"):
        convert_file(tmp_path, builtin_catalog())


def test_trust_is_advised_for_a_blocked_class_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"x": Model(old_loss())}, path)
    with pytest.raises(CheckpointError, match=r"holds an object of [\w.]*Model; --trust"):
        convert_file(path, builtin_catalog())
    path.write_bytes(b"PK\3\4 broken")
    with pytest.raises(CheckpointError) as caught:
        convert_file(path, builtin_catalog())
    assert "--trust" not in str(caught.value)


def test_large_files_stay_on_disk(tmp_path: Path) -> None:
    """The peak of a process beyond that of one that converts almost nothing, over the size of the file."""
    queue = torch.randn(1 << 21, 4).T.contiguous()
    state = {f"w{n}": torch.randn(1 << 20) for n in range(8)}
    state |= {
        "loss.vision_queue": queue,
        "loss.text_queue": queue + 1,
        "loss.queue_ptr": torch.zeros(1, dtype=torch.long),
    }
    torch.save(state, tmp_path / "large.pt")
    torch.save({k: v[:, :4].clone() if v.dim() > 1 else v[:4].clone() for k, v in state.items()}, tmp_path / "small.pt")
    code = (
        "import sys; from training_losses.migration.__main__ import main\n"
        "main(['checkpoint', sys.argv[1], '--write'])\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )

    def peak(name: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / name)], capture_output=True, text=True, check=True
        )
        return int(done.stdout.split()[-1]) << 10

    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of a process is read from /proc")
    share = (peak("large.pt") - peak("small.pt")) / (tmp_path / "large.pt").stat().st_size
    assert share < 0.5, share
    back = torch.load(tmp_path / "large.migrated.pt")
    torch.testing.assert_close(back["loss.vision_queue.features"], queue.T)
    assert back["loss.vision_queue.features"].is_contiguous()


# --- loading into objects --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("assign", [False, True])
def test_copies_of_one_entry_are_independent(assign: bool) -> None:
    old = twin(MEMORY)(dim=4, queue_size=8)
    torch.manual_seed(0)
    old(torch.randn(3, 4), torch.randn(3, 4), list("abc"))
    source = {k: v.clone() for k, v in old.state_dict().items()}
    case, keywords = translate(builtin_catalog().find(MEMORY)[0], (), {"dim": 4, "queue_size": 8})
    assert case.new is not None
    new = resolve(case.new)(**keywords)
    new.load_state_dict(dict(source), assign=assign)
    for _ in range(2):
        new(torch.randn(3, 4), torch.randn(3, 4))
    assert (int(new.vision_queue.ptr), int(new.text_queue.ptr)) == (1, 1)
    assert source["queue_ptr"].tolist() == [3]


def test_subclasses_of_a_new_loss_take_old_keys() -> None:
    class Mine(CLIPLoss):
        pass

    class Deeper(Mine):
        pass

    state = old_loss().state_dict()
    mine = Deeper(input_dim=5, projection_dim=3)
    mine.load_state_dict(state)
    torch.testing.assert_close(mine.vision_head.layers[0].weight.detach(), state["vision_projection.0.weight"])
