"""The numbers that configurations stand for: presets, and what the old sections left unsaid."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from training.losses._config_types import ConfigError, convert
from training.losses.config import config_schema, expand_config
from training.losses.loss_registry import LossRegistry

SIGREG = {
    "test_method": "reference_points", "t_min": 0.2, "t_max": 4.0, "num_knots": 32,
    "standardize": True, "scale_by_samples": False, "split_single_input": True,
}  # fmt: skip
LENGTH = {"eps": 1e-8, "mask_average": "positions"}


@pytest.mark.parametrize(
    ("preset", "kwargs"),
    [
        (
            "small_scale",
            {
                "hierarchy_weights": [1.0, 0.7, 0.5], "regularizer_weight": 0.1, "vicreg_invariance_weight": 25.0,
                "vicreg_variance_weight": 25.0, "vicreg_covariance_weight": 1.0,
            },
        ),
        (
            "imagenet_scale",
            {
                "hierarchy_weights": [1.0, 0.7, 0.5], "regularizer_weight": [0.05, 0.05, 0.025],
                "vicreg_variance_weight": 15.0, "vicreg_covariance_weight": 1.0,
            },
        ),
        (
            "fine_tuning",
            {
                "loss_type": "huber", "huber_delta": 0.5, "hierarchy_weights": [1.0, 0.5, 0.25],
                "regularizer_weight": 0.01,
            },
        ),
    ],
)  # fmt: skip
def test_presets(preset: str, kwargs: dict[str, Any]) -> None:
    assert expand_config({"preset": preset}) == {"name": "hjepa_combined", "kwargs": kwargs}


@pytest.mark.parametrize(
    ("section", "name", "kwargs"),
    [
        ({"type": "sigreg"}, "sigreg", {"invariance_weight": 25.0, "sigreg_weight": 25.0, **SIGREG}),
        (
            {"type": "geometric_mean"},
            "image_geometric_mean",
            {"floor_weight": 0.01, "objective": "log_sum", "floor_mode": "value", "detach_target": False},
        ),
        (
            {"type": "cjepa"},
            "contrastive_jepa",
            {"jepa_loss": {"name": "hjepa", "kwargs": LENGTH}, "contrast": "features", "eps": 1e-8, "metrics": True},
        ),
        (
            {"type": "vicreg"},
            "vicreg",
            {"covariance_norm": "pairs", "view_reduction": "mean", "split_single_input": True},
        ),
        (
            {"type": "hjepa_sigreg"},
            "hjepa_combined",
            {
                "jepa_loss": {"name": "hjepa", "kwargs": LENGTH}, "regularizer": {"name": "sigreg", "kwargs": SIGREG},
                "regularizer_weight": 1.0, "regularize": "context", "views": "halves", "tokens": "keep",
            },
        ),
    ],
)  # fmt: skip
def test_old_sections_that_say_nothing(section: dict[str, Any], name: str, kwargs: dict[str, Any]) -> None:
    assert expand_config(section) == {"name": name, "kwargs": kwargs}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"flatten_patches": True, "sigreg_vectorized": True}, ("flatten", None)),
        ({"flatten_patches": False, "sigreg_vectorized": False}, ("concat", 1)),
    ],
)
def test_old_switches(given: dict[str, bool], wanted: tuple[str, int | None]) -> None:
    kwargs = expand_config({"type": "sigreg", **given})["kwargs"]
    assert (kwargs["tokens"], kwargs["chunk_size"]) == wanted


def test_the_schema_allows_no_other_keys() -> None:
    schema = config_schema()
    terms = schema["$defs"]["terms"]["properties"]["terms"]["items"]["anyOf"]
    closed = [schema["$defs"]["loss_mse"], schema["$defs"]["loss_mse"]["properties"]["kwargs"], *terms]
    closed += [schema["$defs"][form] for form in ("preset", "terms", "torch")]
    assert [part["additionalProperties"] for part in closed] == [False] * len(closed)


def test_tensors_are_not_made_of_lists() -> None:
    given = torch.zeros(2)
    assert convert(torch.Tensor, given, "here", None) is given
    with pytest.raises(ConfigError, match=r"here.*a tensor"):
        convert(torch.Tensor, [0.0, 0.0], "here", None)


def test_three_names_are_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LossRegistry, "_classes", {f"loss_{letter}": torch.nn.Module for letter in "abcde"})
    monkeypatch.setattr(LossRegistry, "_load", None)
    with pytest.raises(ValueError, match="did you mean") as caught:
        LossRegistry.get("loss_x")
    hint = str(caught.value).partition(" (available")[0]
    assert len(re.findall("'loss_[a-e]'", hint)) == 3
