"""The criterion list: the requirement's YAML builds a ``WeightedSumLoss`` with the recorded totals and terms."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from tests.support.golden import Case, load_cases
from tests.support.harness_dynvision import with_weights
from tests.support.twins import twin
from training_losses.balancing import WeightedSumLoss
from training_losses.config import create_loss_from_config
from training_losses.migration.parity import deviation
from training_losses.temporal import EnergyLoss, TemporalCrossEntropyLoss

DOCUMENT = """
criterion:
  - name: cross_entropy_loss
    weight: 1.0
    kwargs: {reduction: mean, ignore_index: -1}
  - name: energy_loss
    weight: 0.05
    kwargs: {reduction: mean, p: 1}
"""

# totals that the new class refuses or gives another graph, each for the reason in the spec
OUTSIDE = {
    "all_masked_doc": "the zero keeps its graph",
    "nan_doc": "NaN in valid rows: compared below",
    "negative_weight_doc": "refused",
    "zero_weight_doc": "refused as the only term",
    "document_spelling_doc": "works now",
    "unknown_name_doc": "another exception text",
    "unreduced_doc": "an unreduced term is allowed",
}
CASES = [
    c
    for c in load_cases("dynvision", "criterion_list")
    if c.symbol == "scenario_criteria" and c.data["variant"] == "doc" and c.data["case"] not in OUTSIDE
]


def as_yaml_form(pairs: Any, void: int) -> list[dict[str, Any]]:
    """The pairs of the old code in the form of the requirement."""
    terms = []
    for name, settings in pairs or [("CrossEntropyLoss", {})]:
        kwargs = {"ignore_index": void, **settings} if name == "CrossEntropyLoss" else dict(settings)
        terms.append({"name": name, "weight": kwargs.pop("weight", 1.0), "kwargs": kwargs})
    return terms


def parts(out: Any, kind: str) -> list[torch.Tensor]:
    return [value for key, value in out.items() if key.startswith(f"{kind}.")]


@pytest.mark.parametrize("case", CASES, ids=[c.data["case"] for c in CASES])
def test_recorded_totals_and_terms(case: Case) -> None:
    call = case.calls[0]
    given, expected = case.decode(call["kwargs"]), case.decode(call["returns"])
    leaves = {k: v.requires_grad_() for k, v in given.items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
    settings = as_yaml_form(given["criterion_params"], given.get("non_label_index", -1))
    loss = create_loss_from_config(yaml.safe_load(yaml.safe_dump({"criterion": settings})))
    assert isinstance(loss, WeightedSumLoss)
    outputs = given["outputs"]
    if "fc_weight" in given:
        model = nn.Module()
        model.fc = with_weights(nn.Linear(6, 5), given["fc_weight"], given["fc_bias"])
        (energy,) = (term for term in loss.terms.values() if isinstance(term, EnergyLoss))
        energy.attach(model)
        outputs = torch.stack([model.fc(given["inputs"][:, t]) for t in range(given["inputs"].shape[1])], dim=1)
    out = loss(outputs, given["label_index"])
    assert out.loss.dtype == outputs.dtype  # the old total was float32 whatever the outputs were
    assert deviation(out.loss, expected["loss"]) < 2e-5
    limit = 2e-5 if outputs.dtype == torch.float32 else 1e-10
    logged = [value for entry in expected["logged"] for value in entry.values()]
    for new, old in zip(parts(out, "weighted"), logged, strict=True):
        assert deviation(new, old) < limit
    for raw, weighted, weight in zip(parts(out, "terms"), parts(out, "weighted"), expected["weights"], strict=True):
        torch.testing.assert_close(raw * weight, weighted)
    found = torch.autograd.grad(out.loss, list(leaves.values()))
    recorded = case.decode(call["grads"])
    for name, grad in zip(leaves, found, strict=True):
        # the old total went through a float32 table, its gradient too
        assert deviation(grad, recorded[f"kwargs.{name}"], gradient=True) < 2e-5, name


def test_the_form_of_the_requirement(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(DOCUMENT)
    loss = create_loss_from_config(path)
    assert isinstance(loss, WeightedSumLoss)
    assert list(loss.terms) == ["cross_entropy_loss", "energy_loss"]
    assert loss.weights == {"cross_entropy_loss": 1.0, "energy_loss": 0.05}
    cross_entropy, energy = loss.terms.values()
    assert isinstance(cross_entropy, TemporalCrossEntropyLoss)
    assert isinstance(energy, EnergyLoss)
    torch.manual_seed(0)
    model = nn.Linear(6, 5)
    energy.attach(model)
    out = loss(torch.stack([model(torch.randn(3, 6)) for _ in range(4)], dim=1).flatten(0, 1), torch.arange(12) % 5)
    keys = ["loss", *(f"{k}.{n}" for n in loss.terms for k in ("terms", "weighted", "weights"))]
    assert list(out) == keys
    torch.testing.assert_close(out.loss.detach(), out["terms.cross_entropy_loss"] + 0.05 * out["terms.energy_loss"])
    assert energy.diagnose(total=out.loss, weight=0.05) == []


def test_two_terms_of_one_class_have_their_own_keys() -> None:
    terms = [
        {"name": "CrossEntropyLoss", "weight": w, "kwargs": {"reduction": r}} for w, r in ((2.0, "mean"), (0.5, "sum"))
    ]
    loss = create_loss_from_config({"criterion": [*terms, {"name": "CrossEntropyLoss", "label": "third"}]})
    assert list(loss.weights) == ["CrossEntropyLoss", "CrossEntropyLoss_2", "third"]
    out = loss(torch.randn(4, 5), torch.arange(4))
    torch.testing.assert_close(out["terms.CrossEntropyLoss_2"], 4 * out["terms.CrossEntropyLoss"])


def test_nothing_is_shared_between_models() -> None:
    config = yaml.safe_load(DOCUMENT)
    before = copy.deepcopy(config)
    first, second = create_loss_from_config(config), create_loss_from_config(config)
    assert config == before
    first.weights["energy_loss"] = 7.0
    first.terms["cross_entropy_loss"].ignore_index = -9
    assert second.weights["energy_loss"] == 0.05
    assert second.terms["cross_entropy_loss"].ignore_index == -1
    # the old default list changes with every model
    lightning = twin("dynvision.criterion_list.LightningBase")
    default = lightning.__init__.__defaults__[0]
    saved = copy.deepcopy(default)
    try:
        lightning(energy_loss_weight=0.3)
        assert lightning().criterion_params == [("CrossEntropyLoss", {"weight": 1.0}), ("EnergyLoss", {"weight": 0.3})]
    finally:
        default[:] = saved


def test_weights() -> None:
    def built(*weights: float) -> Any:
        terms = [{"name": "cross_entropy_loss", "weight": w, "label": f"t{i}"} for i, w in enumerate(weights)]
        return create_loss_from_config({"criterion": terms})

    with pytest.raises(ValueError, match=r"weights\['t0'\] must be a number at least 0, found -1.0"):
        built(-1.0)
    with pytest.raises(ValueError, match="must not all be 0"):
        built(0.0)
    out = built(1.0, 0.0)(torch.full((2, 3), math.nan), torch.tensor([-1, -1]))
    assert out.loss == 0
    assert out["weighted.t1"] == 0


def test_all_labels_void_can_be_trained_on() -> None:
    loss = create_loss_from_config([{"name": "CrossEntropyLoss"}])
    logits = torch.randn(4, 5, requires_grad=True)
    loss(logits, torch.full((4,), -1)).loss.backward()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_unknown_names_say_where() -> None:
    with pytest.raises(ValueError, match=r"criterion\[0\].name"):
        create_loss_from_config({"criterion": [{"name": "FocalLoss"}]})
    with pytest.raises(ValueError, match=r"criterion\[1\].kwargs"):
        create_loss_from_config({"criterion": [{"name": "energy_loss"}, {"name": "energy_loss", "kwargs": {"q": 1}}]})


def test_the_codemod_rewrites_the_list_and_keeps_its_numbers(tmp_path: Path) -> None:
    from training_losses.migration.codemod.cli import main

    path = tmp_path / "config.yaml"
    path.write_text("# settings\n" + DOCUMENT.replace("energy_loss\n", "EnergyLoss  # small\n"))
    before = create_loss_from_config(path)
    assert main(["--write", str(tmp_path)]) == 0
    text = path.read_text()
    assert text.startswith("# settings\n")
    assert "name: energy  # small" in text
    after = create_loss_from_config(path)
    assert list(after.terms) == ["temporal_cross_entropy", "energy"]
    model, images, labels = nn.Linear(6, 5), torch.randn(3, 6), torch.tensor([1, -1, 0])
    totals = []
    for loss in (before, after):
        list(loss.terms.values())[1].attach(model)
        totals.append(loss(model(images), labels).loss)
    assert torch.equal(*totals)
    assert main(["--check", str(tmp_path)]) == 0
