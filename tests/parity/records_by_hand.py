"""Old symbols whose calls do not translate argument by argument: factories, nested losses, models, other layouts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from tests.parity.records_hjepa import Distance, at_least_two_columns, views, with_context
from tests.support.parity import ParityRecord, Sample, pairs
from tests.support.twins import twin, twin_module
from training_losses import create_loss
from training_losses.alignment import GTCCLoss, sinkhorn_plan
from training_losses.alignment.objective import objective_from_config
from training_losses.balancing.weighted_sum import WeightedSumLoss
from training_losses.base import BaseLoss, MomentumEncoder
from training_losses.config import create_loss_from_config
from training_losses.contrastive.decoupled_loss import IntraInterModalLoss
from training_losses.contrastive.moco import MoCoLoss
from training_losses.functional import supervised_contrastive
from training_losses.migration.catalog import Case, Symbol, builtin_catalog
from training_losses.migration.parity import Comparison, Pair, compare_calls, deviation, resolve
from training_losses.migration.state import convert_state
from training_losses.migration.translate import select, translate
from training_losses.predictive.hjepa_combined import HJEPACombinedLoss
from training_losses.predictive.sigreg import SIGRegLoss

ByHand = Callable[[Symbol, Sample], Iterator[Comparison]]
WIDTH = 6


def row_of(path: str) -> Symbol:
    (symbol,) = builtin_catalog().find(path)
    return symbol


def only(symbol: Symbol) -> Case:
    return symbol.cases[-1]


@contextlib.contextmanager
def default(dtype: torch.dtype) -> Iterator[None]:
    """The alignment twins make tensors of ``torch.float``, whatever their input is."""
    before, name = torch.get_default_dtype(), torch.float
    torch.set_default_dtype(dtype)
    torch.float = dtype
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        torch.float = name


# --- video alignment -------------------------------------------------------------------------------------------------


def frames(sample: Sample, shortest: int) -> list[Tensor]:
    lengths = [shortest + (sample.batch * (i + 1) + sample.seed // 3) % 11 for i in range(2 + sample.seed % 2)]
    return [sample.randn(n, WIDTH, salt=i) for i, n in enumerate(lengths)]


def gtcc(symbol: Symbol, sample: Sample) -> Iterator[Comparison]:
    given = frames(sample, 20)
    count = 1 + sample.seed % 3
    kwargs: dict[str, Any] = {"n_components": count, "delta": (1.0, 0.6)[sample.seed % 2], "softmax_temp": 2.0}
    kwargs |= {"alignment_variance": (0.0, 0.05)[sample.batch % 2]}
    inputs: dict[str, Any] = {"sequences": given}
    if sample.batch % 3:
        kwargs |= {"gamma": 0.9, "epoch": sample.seed % 4}
        inputs["dropouts"] = [sample.randn(WIDTH + 1, salt=40 + i) for i in range(len(given))]
    draws = torch.Generator().manual_seed(sample.seed)
    orders = [torch.randperm(len(x), generator=draws) for x in given]
    sides = [int(torch.randint(2, (), generator=draws)) for _ in given]
    fits = [
        (
            sample.randn(20, count, len(y), salt=80 + 10 * i + j).softmax(-1),
            sample.randn(20, count, salt=60 + 10 * i + j).softmax(-1),
        )
        for i in range(len(given))
        for j, y in enumerate(given)
        if i != j
    ]

    def old(**call: Any) -> Any:
        rows = iter([(bells, psi, None) for mixture in fits for bells, psi in zip(*mixture, strict=True)])
        with (
            mock.patch.object(torch, "randperm", side_effect=list(orders)),
            mock.patch.object(np.random, "choice", side_effect=list(sides)),
            mock.patch.object(module, "get_gmm_lfbgf", side_effect=lambda *_, **__: next(rows)),
        ):
            return module.GTCC_loss(**call, **kwargs)

    module = twin_module("alignment.loss_functions")
    case, arguments = translate(symbol, (), kwargs | inputs)
    options = {k: v for k, v in arguments.items() if k not in ("sequences", "drop_vectors", "epoch")}
    fixed = {"sampled_frames": [p[:20].sort().values for p in orders], "window_sides": sides, "mixtures": fits}
    fixed |= {"epoch": kwargs["epoch"]} if "epoch" in kwargs else {}
    new = GTCCLoss(**options)

    def converted(**call: Any) -> dict[str, Any]:
        named = {"sequences": call["sequences"], **fixed}
        return named | ({"drop_vectors": call["dropouts"]} if "dropouts" in call else {})

    with default(sample.dtype):
        yield compare_calls(case, old, new, inputs, convert=converted)


def plan(symbol: Symbol, sample: Sample) -> Iterator[Comparison]:
    case, _ = translate(symbol, (), {"M": None, "reg": 1.0})
    inputs = {"M": sample.randn(sample.batch, 1 + sample.seed % 13).abs()}
    weight = sample.randn(*inputs["M"].shape, salt=1)
    options = {"reg": (0.5, 1.0, 8.0)[sample.seed % 3], "numItermax": 1 + sample.seed % 30}

    def weighed(made: Tensor) -> dict[str, Tensor]:
        return {"loss": (made * weight).sum(), "plan": made}

    with default(sample.dtype):
        yield compare_calls(
            case,
            lambda M: weighed(twin("alignment.ot_pytorch.sink")(M, **options)[1]),
            lambda cost: weighed(sinkhorn_plan(cost, options["reg"], num_iters=options["numItermax"])),
            inputs,
            convert=lambda M: {"cost": M},
            results={"plan": "plan"},
        )


def objective(symbol: Symbol, sample: Sample) -> Iterator[Comparison]:
    names = ("tcc", "LAV", "VAVA")
    enabled = {name: sample.seed % 4 in (i, 3) for i, name in enumerate(names)}
    config = SimpleNamespace(
        LOSS_TYPE=enabled | {"GTCC": False},
        TCC_ORIGINAL_PARAMS={"softmax_temp": 2.0, "alignment_variance": 0.05},
        GTCC_PARAMS={},
        LAV_PARAMS={"min_temp": 1.0},
        VAVA_PARAMS={"maxIter": 5},
    )
    epoch = sample.seed % 7
    old, new = twin("alignment.loss_entry.get_loss_function")(config), objective_from_config(config)

    def called(sequences: list[Tensor]) -> Any:
        result = dict(old({"outputs": sequences}, epoch))
        return {"loss": result.pop("total_loss"), **result}

    yield compare_calls(
        only(symbol),
        called,
        lambda sequences: new({"outputs": sequences}, epoch=epoch),
        {"sequences": frames(sample, 3)},
        results={f"{name}_loss": name.lower() for name in names if enabled[name]},
    )


# --- dynvision -------------------------------------------------------------------------------------------------------


class Squares(BaseLoss):
    """The new way to write a loss of one's own."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        valid = targets != -1
        return self.apply_reduction((outputs - targets).square() * valid, valid.sum())


def frame(symbol: Symbol, sample: Sample) -> Iterator[Comparison]:
    class OldSquares(twin("dynvision.base_loss.BaseLoss")):  # type: ignore[misc]  # base found at run time
        ignore_index = -1

        def compute_loss(self, outputs: Tensor, targets: Tensor, responses: Any = None) -> Tensor:
            return (outputs - targets).square() * (targets != -1)

    reduction = ("mean", "sum", "none")[sample.seed % 3]
    outputs = sample.randn(sample.batch, sample.dim)
    targets = torch.arange(outputs.numel()).reshape(outputs.shape) % 4 - 1
    targets[0, 0] = 2  # the old mean over no target at all had no graph
    inputs = {"outputs": outputs, "targets": targets}
    yield compare_calls(only(symbol), OldSquares(reduction), Squares(reduction=reduction), inputs)


def presentation(symbol: Symbol, sample: Sample) -> Iterator[Comparison]:
    pattern = ("1011", "10", "0111", [0, 1, 1, 0, 1])[sample.seed % 4]
    kwargs = {"n_timesteps": 20 + sample.batch, "dt": 2.0, "data_presentation_pattern": pattern}
    kwargs |= {"loss_reaction_time": float(sample.seed % 5)}
    old = twin("dynvision.temporal_masking.TemporalBase")(**kwargs).train(sample.train)
    case, arguments = translate(symbol, (), kwargs)
    new = resolve(case.new or "")(**arguments).train(sample.train)
    inputs = {"inputs": sample.randn(sample.batch, 2, 3, 4), "targets": torch.arange(sample.batch)}

    def named(shown: tuple[Tensor, ...]) -> dict[str, Tensor]:
        return {"loss": shown[0].square().sum(), "inputs": shown[0], "labels": shown[1]}

    yield compare_calls(
        case,
        lambda inputs, targets: named(old._process_batch((inputs, targets))),
        lambda inputs, targets: named(new(inputs, targets)),
        inputs,
        results={"inputs": "inputs", "labels": "labels"},
    )


# --- joint-embedding prediction --------------------------------------------------------------------------------------


def with_sigreg(symbol: Symbol, sample: Sample) -> Iterator[Comparison]:
    options = {"num_slices": 5, "fixed_slices": True}
    old_statistic = {"test_method": "reference_points", "standardize": True, "scale_by_samples": False}
    new_inner = SIGRegLoss(**options, **old_statistic).to(sample.dtype)
    inner = twin("hjepa.sigreg.SIGRegLoss")(**options, invariance_weight=0.0, sigreg_weight=1.0)
    inputs = with_context(sample, 0)
    context = inputs["context_features"]
    inner._fixed_random_slices = new_inner._directions(context.reshape(-1, context.shape[-1]), None)[0]
    weight = (1.0, 0.5)[sample.seed % 2]
    old = symbol_of(symbol)(Distance(), inner, weight).to(sample.dtype)
    new = HJEPACombinedLoss(
        jepa_loss=Distance(),
        regularizer=new_inner,
        regularizer_weight=weight,
        regularize="context",
        views="halves",
    ).to(sample.dtype)
    yield compare_calls(only(symbol), old, new, inputs)


def symbol_of(symbol: Symbol) -> Any:
    return twin(symbol.twin.removeprefix("training_losses.legacy."))


CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("combined.CombinedLoss", {"type": "combined", "vicreg_weight": 0.25, "jepa_loss_type": "mse"}),
    ("hjepa_loss.HJEPALoss", {"type": "hjepa", "jepa_loss_type": "huber", "hierarchy_weights": [1.0, 0.5, 0.25]}),
    ("combined.HierarchicalCombinedLoss", {"type": "hierarchical_combined", "vicreg_weight": [0.5, 0.25, 0.125]}),
    ("vicreg.VICRegLoss", {"type": "vicreg", "vicreg_variance_weight": 3.0}),
]


def configured(symbol: Symbol, sample: Sample) -> Iterator[Comparison]:
    name, section = CONFIGS[sample.seed % len(CONFIGS)]
    config = {"loss": section, "model": {"num_hierarchies": 3}}
    row = next(s for s in builtin_catalog().symbols if s.system == "hjepa" and s.old == name)
    old = symbol_of(symbol)(config).to(sample.dtype)
    new = create_loss_from_config(config).to(sample.dtype)
    case = select(row, (), {})
    assert type(new) is resolve(case.new or "")
    inputs = views(sample, 0) if section["type"] == "vicreg" else at_least_two_columns(sample, 0)
    if section["type"] == "vicreg":
        inputs = {key: torch.cat([z, z.flip(-1) + z.roll(1, 0)], dim=-1) for key, z in inputs.items()}
    yield Pair(row, case, old, new, sample.dtype).compare(**inputs)


# --- multimodal ------------------------------------------------------------------------------------------------------


def stacked(symbol: Symbol, sample: Sample) -> Iterator[Comparison]:
    inputs = {
        name: nn.functional.normalize(value, dim=1) for name, value in pairs(sample).items() if name != "match_ids"
    }
    inputs["labels"] = torch.arange(sample.batch) % (1 + sample.seed % 4)
    options = {"temperature": (0.07, 0.5)[sample.seed % 2], "reduction": ("mean", "sum", "none")[sample.seed % 3]}

    def converted(vision_features: Tensor, text_features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"features": torch.cat([vision_features, text_features]), "labels": torch.cat([labels, labels])}

    yield compare_calls(
        only(symbol),
        lambda **call: symbol_of(symbol)(**call, **options),
        lambda features, labels: supervised_contrastive(features, labels, **options),
        inputs,
        convert=converted,
    )


def decoupled(symbol: Symbol, sample: Sample) -> Iterator[Comparison]:
    ids = [f"id-{i // 2}" for i in range(sample.batch)]
    summed = sum(a == b for a in ids for b in ids)
    inputs = {name: value for name, value in pairs(sample).items() if name != "match_ids"}
    weights = {"vision": 0.2, "text": 0.7}

    def both(plain: Any, weighed: Any, across: str, within: str, factor: float) -> Any:
        def called(vision_features: Tensor, text_features: Tensor) -> dict[str, Any]:
            first = plain(vision_features, text_features, ids)
            second = weighed(vision_features, text_features, ids)
            inside = second["loss"] - first["loss"]
            total = factor * first["loss"] + inside
            return {"loss": total, across: factor * first["loss"], within: inside, "hits": second["accuracy"]}

        return called

    keys = ("across", "within")
    old, pins = symbol_of(symbol), {pin.name: pin.value for pin in only(symbol).pins.values()}
    yield compare_calls(
        only(symbol),
        both(
            old(lambda_v=0.0, lambda_t=0.0),
            old(lambda_v=weights["vision"], lambda_t=weights["text"]),
            *keys,
            (summed - sample.batch) / summed,
        ),
        both(
            IntraInterModalLoss(vision_weight=0.0, text_weight=0.0, **pins),
            IntraInterModalLoss(vision_weight=weights["vision"], text_weight=weights["text"], **pins),
            *keys,
            1.0,
        ),
        inputs,
        results={"across": "across", "within": "within", "hits": "hits"},
    )


def momentum(symbol: Symbol, sample: Sample) -> Iterator[Comparison]:
    torch.manual_seed(sample.seed)
    vision, text = (nn.Linear(n, 4).to(sample.dtype) for n in (5, 3))
    case, arguments = translate(symbol, (), {"vision_encoder": vision, "text_encoder": text, "dim": 4, "K": 7})
    old = symbol_of(symbol)(vision, text, dim=4, K=7, m=0.9).to(sample.dtype)
    old.vision_encoder, old.text_encoder = vision, text
    new = MoCoLoss(**arguments).to(sample.dtype)
    new.load_state_dict({**new.state_dict(), **convert_state(case, old.state_dict())})
    keys = [MomentumEncoder(encoder, momentum=0.9) for encoder in (vision, text)]
    shared = {f"{n}.{k}": p for n, e in (("vision", vision), ("text", text)) for k, p in e.named_parameters()}

    def called(x: Tensor, y: Tensor) -> Any:
        result = new(vision(x), text(y), keys[0](x), keys[1](y))
        for average, encoder in zip(keys, (vision, text), strict=True):
            average.update(encoder)
        return result

    for step in range(3):
        inputs = {"x": sample.randn(3, 5, salt=2 * step), "y": sample.randn(3, 3, salt=2 * step + 1)}
        results = {"v2t_loss": "loss_v2t", "t2v_loss": "loss_t2v"}
        comparison = compare_calls(case, lambda x, y: old(x, y), called, inputs, results=results, shared=shared)
        wanted = convert_state(case, old.state_dict())
        comparison.state = {key: deviation(new.state_dict()[key], value) for key, value in wanted.items()}
        yield comparison
        with torch.no_grad():
            for parameter in shared.values():
                parameter.add_(0.1)


class Weighed(nn.Module):
    """A term with a parameter, which answers with a number or with a dict."""

    def __init__(self, scale: float, named: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.named = named

    def forward(self, a: Tensor, b: Tensor) -> Any:
        loss = self.scale * (a - b).abs().mean()
        return {"loss": loss, "size": a.detach().norm()} if self.named else loss


def combined(symbol: Symbol, sample: Sample) -> Iterator[Comparison]:
    places = ("primary", "secondary", "tertiary")[: 1 + sample.seed % 3]
    terms = {place: Weighed(0.5 + i, bool((sample.seed + i) % 2)) for i, place in enumerate(places)}
    weights = {"secondary": 0.4, "tertiary": 0.9}
    weights = {place: weight for place, weight in weights.items() if place in places}
    old = symbol_of(symbol)(
        **{f"{place}_loss": term for place, term in terms.items()},
        **{f"{place}_loss_weight": weight for place, weight in weights.items()},
    )
    new = WeightedSumLoss(terms=terms, weights=weights)
    shape = (sample.batch, sample.dim)
    yield compare_calls(
        only(symbol),
        old.to(sample.dtype),
        new.to(sample.dtype),
        {"a": sample.randn(*shape), "b": sample.randn(*shape, salt=1)},
        convert=lambda a, b: {"a": a, "b": b},
        results={f"{place}_loss": f"terms.{place}" for place in places},
        shared={f"{place}.scale": term.scale for place, term in terms.items()},
    )


def factory(symbol: Symbol, sample: Sample) -> Iterator[Comparison]:
    kind = ("vicreg", "decoupled", "dynamic_temp", "simple")[sample.seed % 4]
    given = SimpleNamespace(loss_type=kind, use_mixed_loss=False, use_simple_model=kind == "simple", temperature=0.2)
    given.dynamic_temp_min, given.dynamic_temp_max = 0.1, 0.4
    old = symbol_of(symbol)(given).to(sample.dtype).train(sample.train)
    name, arguments = {
        "vicreg": ("vicreg_loss.VICRegLoss", {"sim_coeff": 5.0, "epsilon": 1e-4}),
        "decoupled": ("decoupled_contrastive_loss.DecoupledContrastiveLoss", {"temperature": 0.2}),
        "dynamic_temp": (
            "dynamic_temperature_contrastive_loss.DynamicTemperatureContrastiveLoss",
            {"base_temperature": 0.2, "min_temp": 0.1, "max_temp": 0.4, "dim": 768},
        ),
        "simple": ("loss_factory.SimpleContrastiveLoss", {"temperature": 0.2}),
    }[kind]
    row = row_of(f"training_losses.legacy.{name}")
    case, options = translate(row, (), arguments)
    new = create_loss(case.registry, **options).to(sample.dtype).train(sample.train)
    wide = Sample(sample.batch, sample.dim + 1, "unique", sample.dtype, sample.train, sample.seed)
    inputs = pairs(wide)
    if kind == "vicreg":
        inputs = {"z_a": inputs["vision_features"], "z_b": inputs["text_features"]}
    yield Pair(row, case, old, new, sample.dtype).compare(seed=sample.seed, **inputs)


def record(system: str, symbol: str, compare: ByHand, note: str, **more: Any) -> ParityRecord:
    options = {"ids": ("none",), "examples": 8} | more
    return ParityRecord(symbol, system=system, by_hand=compare, note=note, **options)


RECORDS = [
    record(
        "alignment",
        "loss_functions.GTCC_loss",
        gtcc,
        "with the same frames, window sides and mixtures, which the old loss drew and fitted itself",
        batch=(1, 4),
        examples=4,
        factor=5.0,
    ),
    record("alignment", "ot_pytorch.sink", plan, "the plans, and their products with a random matrix", batch=(2, 9)),
    record(
        "alignment",
        "loss_entry.get_loss_function",
        objective,
        "the functions that both build from one configuration, without GTCC",
        dtypes=(torch.float32,),
        factor=5.0,
        batch=(1, 9),
    ),
    record("dynvision", "base_loss.BaseLoss", frame, "the same loss, written as a sub-class of each"),
    record(
        "dynvision",
        "temporal_masking.TemporalBase",
        presentation,
        "inputs and labels over time; patterns of several elements, null value 0, no residual steps",
        batch=(1, 9),
    ),
    record(
        "hjepa",
        "combined.HJEPASIGRegLoss",
        with_sigreg,
        "with equal directions, and with weights of SIGReg (0 and 1) that the old class did not ignore",
        batch=(4, 12),
    ),
    record(
        "hjepa",
        "combined.create_loss_from_config",
        configured,
        "the losses that both build from one configuration",
        batch=(2, 12),
    ),
    *(
        record(
            "multimodal_insight",
            f"{module}.supervised_contrastive_loss",
            stacked,
            "the rows of both modalities stacked for the new function",
        )
        for module in ("contrastive_loss", "contrastive_learning")
    ),
    ParityRecord(
        "contrastive_learning.MultiModalMixedContrastiveLoss",
        reason="the old class cannot be built: its constructor raises NameError, so there are no old numbers",
    ),
    record(
        "multimodal_insight",
        "contrastive_learning.DecoupledContrastiveLoss",
        decoupled,
        "repeated ids; the old terms across modalities times pairs of different samples over all pairs, by which they "
        "were too large",
        batch=(2, 12),
    ),
    record(
        "multimodal_insight",
        "ema_moco_loss.EMAMoCoLoss",
        momentum,
        "the old class with the encoders assigned that it forgot to store, and with its first queue; three steps",
        batch=(1, 5),
    ),
    record("multimodal_insight", "combined_loss.CombinedLoss", combined, "its positions as names of terms"),
    record(
        "multimodal_insight",
        "loss_factory.create_loss_function",
        factory,
        "the losses that the old function built without rewriting their arguments, against create_loss",
        batch=(2, 12),
    ),
]
