"""Losses from configurations, and back."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from torch import nn

import training_losses
from tests.contract.record import LossRecord, all_records
from tests.contract.test_contract import value
from training_losses.base import BaseContrastiveLoss, ContrastiveOptions
from training_losses.base.schedules import CosineRamp, Schedule
from training_losses.config import (
    PRESETS,
    ConfigError,
    config_schema,
    create_loss_from_config,
    dump_config,
    expand_config,
)
from training_losses.contrastive.clip_loss import CLIPLoss
from training_losses.loss_registry import LossRegistry
from training_losses.predictive import HJEPACombinedLoss, HJEPALoss, SIGRegLoss

RECORDS = all_records()
SCHEMA = config_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def networks(record: LossRecord) -> bool:
    """Whether the loss was built from a network, which a configuration cannot hold."""

    def foreign(value: Any) -> bool:
        if isinstance(value, dict):
            return any(map(foreign, value.values()))
        if isinstance(value, list | tuple):
            return any(map(foreign, value))
        if isinstance(value, nn.Module) and hasattr(value, "constructor_arguments"):
            return foreign(value.constructor_arguments)
        return callable(value) and not isinstance(value, nn.modules.loss._Loss | Schedule)

    return foreign(record.constructor_kwargs())


@pytest.mark.parametrize("record", RECORDS, ids=[r.id for r in RECORDS])
def test_round_trip(record: LossRecord) -> None:
    loss = record.build()
    if networks(record):
        with pytest.raises(ConfigError, match=r"loss\.kwargs\."):
            dump_config(loss)
        return
    dumped = dump_config(loss)
    again = create_loss_from_config(yaml.safe_load(yaml.safe_dump(json.loads(json.dumps(dumped)))))
    assert type(again) is type(loss)
    written = dump_config(again)
    assert dump_config(create_loss_from_config(written)) == written, "defaults of schedules are written out once"
    assert written["kwargs"].keys() == dumped["kwargs"].keys()
    again.load_state_dict(loss.state_dict())
    inputs = record.make()
    if record.advance is not None:
        record.advance(loss, 1)
        record.advance(again, 1)
    torch.testing.assert_close(value(again(**inputs)), value(loss(**inputs)), rtol=0, atol=0)
    VALIDATOR.validate(dumped)


def test_the_schema_is_one_and_agrees_with_the_code() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    good = [
        {"preset": "small_scale", "kwargs": {"num_hierarchies": 3}},
        {"loss": {"terms": [{"name": "clip", "weight": 2}, {"name": "torch.nn.L1Loss"}]}, "model": {"width": 3}},
        [{"name": "vicreg"}],
        {"name": "hjepa_combined", "kwargs": {"regularizer": {"name": "sigreg", "kwargs": {"num_slices": 8}}}},
        {"loss": {"type": "combined", "hierarchy_weights": [1.0, 0.5]}, "model": {"num_hierarchies": 2}},
    ]
    bad = [
        {"preset": "large_scale"},
        {"name": "clip", "kwargs": {"temperatur": 0.1}},
        {"name": "clip", "kwargs": {"temperature": "0.1"}},
        {"name": "clip", "temperature": 0.1},
        {"name": "hjepa_combined", "kwargs": {"regularizer": {"name": "sigreg", "kwargs": {"slices": 8}}}},
        {"name": "hard_negative", "kwargs": {"mining": "soft"}},
        {"name": "moco"},
    ]
    for config in good:
        VALIDATOR.validate(config)
        create_loss_from_config(config)
    for config in bad:
        with pytest.raises(jsonschema.ValidationError):
            VALIDATOR.validate(config)
        with pytest.raises(ConfigError):
            create_loss_from_config(config)


ERRORS = [
    (
        {"loss": {"terms": [{"name": "clip"}, {"name": "clip", "label": "b", "kwargs": {"redution": "sum"}}]}},
        r"^loss\.terms\[1\]\.kwargs\.redution: unknown key; did you mean 'reduction'\?$",
    ),
    ({"name": "clip", "kwargs": {"temperature": "0.1"}}, r"^loss\.kwargs\.temperature: .*text '0\.1': remove quotes"),
    ({"type": "geometric_mean", "epsilon": "0.1"}, r"^loss\.epsilon: expected a number, found the text '0\.1': remove"),
    ({"type": "combined", "vicreg_weight": ["0.1"]}, r"^loss\.vicreg_weight\[0\]: .*found the text '0\.1'"),
    ({"name": "hjepa", "kwargs": {"detach_targets": "no"}}, r"^loss\.kwargs\.detach_targets: .*'no': YAML 1\.2 "),
    ({"name": "sigreg", "kwargs": {"num_slices": "1e3"}}, r"^loss\.kwargs\.num_slices: .*integer, found 1000\.0"),
    ({"type": "mse", "use_vicreg": False}, r"^loss\.use_vicreg: type mse never read this key: remove it"),
    ({"type": "combined", "hierarchy_weight": [1.0]}, r"^loss\.hierarchy_weight: .*'hierarchy_weights'"),
    ({"type": "huber"}, r"^loss\.type: expected one of .*'huber'"),
    ({"type": "hjepa_sigreg", "sigreg_weight": 25.0}, r"^loss\.sigreg_weight: never had an effect"),
    ({"type": "hierarchical_combined", "vicreg_configs": [{"ep": 1}]}, r"^loss\.vicreg_configs\[0\]\.ep: .*'eps'"),
    ({"type": "hierarchical_combined", "vicreg_configs": [3]}, r"^loss\.vicreg_configs\[0\]: expected a mapping"),
    ({"type": "combined", "apply_vicreg_per_level": False}, r"^loss\.apply_vicreg_per_level: type combined never read"),
    ({"type": "cjepa", "detach_targets": False}, r"^loss\.detach_targets: type cjepa never read"),
    ({"type": "cjepa", "contrastive_on_context": "yes"}, r"^loss\.contrastive_on_context: expected one of True, False"),
    ({"name": "clp"}, r"^loss\.name: Unknown loss 'clp'; did you mean 'clip'"),
    ({"name": "torch.nn.Linear"}, r"^loss\.name: 'torch\.nn\.Linear' is no loss"),
    ({"name": "moco"}, r"^loss\.kwargs: moco needs 'embed_dim'"),
    ({"name": "clip", "kwargs": {"temperature": -1.0}}, r"^loss: clip: temperature must be .*-1\.0"),
    ({"name": "vicreg", "kwargs": {"chunk_size": 1.5}}, r"^loss\.kwargs\.chunk_size: expected .*found 1\.5"),
    ({"name": "hjepa_combined", "kwargs": {"regularizer": "sigreg"}}, r"^loss\.kwargs\.regularizer: expected a loss"),
    (
        {"name": "hjepa_combined", "kwargs": {"regularizer": {"name": "sigreg", "kwargs": {"num_slices": True}}}},
        r"^loss\.kwargs\.regularizer\.kwargs\.num_slices: expected an integer, found True",
    ),
    (
        {"name": "hjepa", "kwargs": {"schedules": {"hierarchy_weights": {"type": "ramp"}}}},
        r"^loss\.kwargs\.schedules\.hierarchy_weights: schedule type",
    ),
    ({"preset": "huge"}, r"^loss\.preset: expected one of small_scale"),
    ({"terms": []}, r"^loss\.terms: expected a list of terms"),
    ({"terms": [{"name": "clip"}, {"name": "clip", "label": "clip"}]}, r"^loss\.terms\[1\]: a second term is called"),
    ({"terms": [{"weight": 1.0}]}, r"^loss\.terms\[0\]: the key 'name' is missing"),
    ({"criterion": [{"name": "energi"}]}, r"^criterion\[0\]\.name: Unknown loss"),
    ({"loss": None}, r"^loss: expected a mapping"),
    ({}, r"^loss: expected name and kwargs"),
    ({"nme": "clip"}, r"^loss\.nme: unknown key; did you mean 'name'"),
]


@pytest.mark.parametrize(("config", "message"), ERRORS, ids=[str(i) for i in range(len(ERRORS))])
def test_errors_name_the_place(config: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_loss_from_config(config)


def test_files(tmp_path: Path) -> None:
    config = {"loss": {"name": "hjepa", "kwargs": {"loss_type": "mse", "hierarchy_weights": [1.0, 0.5]}}}
    texts = {
        "a.yaml": yaml.safe_dump(config),
        "a.json": json.dumps(config),
        "a.toml": '[loss]\nname = "hjepa"\n[loss.kwargs]\nloss_type = "mse"\nhierarchy_weights = [1.0, 0.5]\n',
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        for path in (tmp_path / name, str(tmp_path / name)):
            assert dump_config(create_loss_from_config(path)) == config["loss"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "loss: [1", "does not parse"),
        ("a.yaml", "!!python/object/apply:os.getcwd []", "does not parse"),
        ("a.toml", "loss = ", "does not parse"),
        ("a.ini", "", "expected .yaml"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        create_loss_from_config(tmp_path / name)


GEOMETRIC = """
loss:
  type: 'geometric_mean'
  epsilon: 1e-8
  min_loss_value: 1e-4
  regularization_weight: 0.01
"""


def test_a_configuration_of_the_old_code_is_read_as_omegaconf_read_it(tmp_path: Path) -> None:
    path = tmp_path / "config_geometric.yaml"
    path.write_text(GEOMETRIC)
    old = OmegaConf.to_container(OmegaConf.load(path))
    assert old["loss"]["epsilon"] == 1e-8, "a number there"
    for config in (path, yaml.safe_load(GEOMETRIC), old):
        loss = create_loss_from_config(config)
        assert (loss.eps, loss.floor) == (1e-8, 1e-4)
    assert expand_config(yaml.safe_load(GEOMETRIC)) == expand_config(old)


@pytest.mark.parametrize("number", ["1e-8", "1E-8", "1.e-8", "+1e-8", "0.1e-7", ".1e-7", "1.0e-8", "10e-9"])
def test_numbers_of_yaml_1_2(tmp_path: Path, number: str) -> None:
    path = tmp_path / "loss.yaml"
    path.write_text(f"terms:\n- name: vicreg\n  weight: {number}\n  kwargs: {{eps: {number}}}\n")
    for config in (path, yaml.safe_load(path.read_text())):
        kwargs = dump_config(create_loss_from_config(config))["kwargs"]
        assert kwargs["weights"] == {"vicreg": 1e-8}
        assert kwargs["terms"]["vicreg"]["kwargs"] == {"eps": 1e-8}
    (tmp_path / "loss.json").write_text('{"name": "vicreg", "kwargs": {"eps": 1e-8}}')
    assert create_loss_from_config(tmp_path / "loss.json").eps == 1e-8


@pytest.mark.parametrize(
    ("name", "kind", "changes"),
    [
        ("small_scale", HJEPACombinedLoss, {"vicreg_eps": 0.5}),
        ("imagenet_scale", HJEPACombinedLoss, {"vicreg_eps": 0.5}),
        ("fine_tuning", HJEPALoss, {"eps": 0.5}),
    ],
)
def test_presets(name: str, kind: type[nn.Module], changes: dict[str, Any]) -> None:
    loss = create_loss_from_config({"preset": name, "kwargs": changes})
    assert type(loss) is kind
    assert (loss.regularizers[0] if kind is HJEPACombinedLoss else loss).eps == 0.5
    assert dump_config(loss)["kwargs"] == {**PRESETS[name]["kwargs"], **changes}
    x = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(loss([x] * 3, [x.flip(0)] * 3).loss)


def test_old_dictionaries_show_what_keeps_their_numbers() -> None:
    expanded = expand_config({"loss": {"type": "Combined", "vicreg_weight": 0.2}, "model": {"num_hierarchies": 2}})
    assert expanded["name"] == "hjepa_combined"
    assert expanded["kwargs"] | {"views": "halves", "vicreg_eps": 1e-8, "num_hierarchies": 2} == expanded["kwargs"]
    assert expand_config(expanded) == expanded


def test_criteria_keep_their_order_weights_and_old_names() -> None:
    config = {"criterion": [{"name": "energy_loss", "weight": 0.2, "kwargs": {"p": 2}}, {"name": "cross_entropy_loss"}]}
    dumped = dump_config(create_loss_from_config(config))["kwargs"]
    assert dumped["weights"] == {"energy_loss": 0.2, "cross_entropy_loss": 1.0}
    assert dumped["terms"]["energy_loss"]["kwargs"]["order"] == 2


def test_dump_writes_plain_values_and_refuses_networks() -> None:
    ramp = CosineRamp(start=0.0, end=1.0, length=10)
    loss = HJEPACombinedLoss(regularizer=[SIGRegLoss(num_slices=4)], schedules={"regularizer_weight": ramp})
    dumped = dump_config(loss)
    assert dumped["kwargs"]["regularizer"] == [{"name": "sigreg", "kwargs": {"num_slices": 4}}]
    assert dumped["kwargs"]["schedules"]["regularizer_weight"]["type"] == "cosine_ramp"
    assert dump_config(nn.L1Loss(reduction="sum")) == {"name": "torch.nn.L1Loss", "kwargs": {"reduction": "sum"}}
    with pytest.raises(ConfigError, match=r"loss\.kwargs\.jepa_loss: Linear is no registered loss"):
        dump_config(HJEPACombinedLoss(jepa_loss=nn.Linear(2, 2)))


def test_a_registered_subclass_dumps_its_own_arguments() -> None:
    loss = training_losses.create_loss("adaptive_vicreg", momentum=0.5, eps=1e-3)
    assert dump_config(loss) == {"name": "adaptive_vicreg", "kwargs": {"momentum": 0.5, "eps": 1e-3}}


def test_public_names() -> None:
    assert training_losses.create_loss_from_config is create_loss_from_config
    assert isinstance(training_losses.create_loss_from_config({"name": "hjepa"}), HJEPALoss)


def test_options_of_the_base_class_are_arguments_like_any_other() -> None:
    shared = inspect.signature(BaseContrastiveLoss.__init__).parameters.keys() - {"self"}
    assert shared == ContrastiveOptions.__annotations__.keys()
    for name in ("clip", "simclr", "info_nce", "intra_inter_modal", "hard_negative", "memory_queue", "supcon"):
        assert config_schema()["$defs"][f"loss_{name}"]["properties"]["kwargs"]["properties"].keys() > shared
    config = {"name": "clip", "kwargs": {"temperature": 0.1, "label_smoothing": 0.2, "reduction": "sum"}}
    loss = create_loss_from_config(config)
    assert isinstance(loss, CLIPLoss)
    assert (loss.temperature, loss.reduction, dump_config(loss)) == (0.1, "sum", config)
    with pytest.raises(ConfigError, match=r"loss\.kwargs\.temprature: unknown key; did you mean 'temperature'"):
        create_loss_from_config({"name": "clip", "kwargs": {"temprature": 0.1}})
    with pytest.raises(TypeError, match="temprature"):
        LossRegistry.create("clip", temprature=0.1)
