"""The numbers that configurations stand for: presets, and what the old sections left unsaid."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from training_losses._config_types import ConfigError, convert
from training_losses.config import config_schema, create_loss_from_config, expand_config
from training_losses.loss_registry import LossRegistry

SIGREG = {
    "test_method": "reference_points", "t_min": 0.2, "t_max": 4.0, "num_knots": 32,
    "standardize": True, "scale_by_samples": False, "split_single_input": True,
}  # fmt: skip
LENGTH = {"eps": 1e-8, "mask_average": "positions"}


LEVELS = {"hierarchy_weights": [1.0, 0.5, 0.25], "loss_type": "smooth_l1"}


@pytest.mark.parametrize(
    ("preset", "name", "kwargs"),
    [
        (
            "small_scale",
            "hjepa_combined",
            {
                **LEVELS, "regularizer_weight": 0.05, "vicreg_invariance_weight": 10.0, "vicreg_variance_weight": 10.0,
                "vicreg_covariance_weight": 0.5,
            },
        ),
        (
            "imagenet_scale",
            "hjepa_combined",
            {
                **LEVELS, "regularizer_weight": 0.1, "vicreg_invariance_weight": 25.0, "vicreg_variance_weight": 25.0,
                "vicreg_covariance_weight": 1.0,
            },
        ),
        (
            "fine_tuning",
            "hjepa",
            {"loss_type": "mse", "hierarchy_weights": [1.0, 0.3, 0.1], "normalize_embeddings": True},
        ),
    ],
)  # fmt: skip
def test_presets(preset: str, name: str, kwargs: dict[str, Any]) -> None:
    assert expand_config({"preset": preset}) == {"name": name, "kwargs": kwargs}


def test_the_presets_weigh_their_levels_as_they_say() -> None:
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(4, 6, 5, generator=generator, dtype=torch.float64) for _ in range(6)]
    for preset, weights in (("small_scale", [1.0, 0.5, 0.25]), ("fine_tuning", [1.0, 0.3, 0.1])):
        loss = create_loss_from_config({"preset": preset})
        weighed = loss.jepa_loss if preset == "small_scale" else loss
        out = weighed(given[:3], given[3:])
        wanted = sum(w * out[f"loss_h{i}"] for i, w in enumerate(weights))
        torch.testing.assert_close(out.loss, wanted, rtol=1e-6, atol=0.0)


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
