"""New losses against their twins: one record per row of the catalog, hypothesis-made and recorded inputs.

``tests/parity/records_*.py`` list :class:`ParityRecord`; ``tests/parity/test_successors.py`` runs them. A record says
how to call the *old* symbol inside the domain that the row promises; everything else (new arguments, state, result
keys) comes from the catalog. ``python -m tests.support.parity`` prints what was compared and the largest deviations.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

from tests.support.golden import Case, Run, load_cases
from training_losses.migration.catalog import Symbol, builtin_catalog
from training_losses.migration.parity import Comparison, build_pair, compare_function

IDS = ("none", "unique", "repeated", "same")


@dataclass(frozen=True)
class Sample:
    """What hypothesis varies; tensors follow from the seed."""

    batch: int
    dim: int
    ids: str
    dtype: torch.dtype
    train: bool
    seed: int

    def randn(self, *shape: int, salt: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1000 * self.seed + salt)
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(self.dtype)

    def match_ids(self) -> list[str] | list[int] | None:
        """Strings for even seeds, integers for odd ones."""
        if self.ids == "none":
            return None
        numbers = list(range(self.batch))
        if self.ids == "same":
            numbers = [7] * self.batch
        elif self.ids == "repeated":
            draws = torch.randint(
                max(2, self.batch // 2), (self.batch,), generator=torch.Generator().manual_seed(self.seed)
            )
            numbers = [int(n) for n in draws]
        return numbers if self.seed % 2 else [f"id-{n}" for n in numbers]


def samples(
    *, ids: tuple[str, ...], batch: tuple[int, int], train: tuple[bool, ...], dtypes: tuple[torch.dtype, ...]
) -> st.SearchStrategy[Sample]:
    return st.builds(
        Sample,
        batch=st.integers(*batch),
        dim=st.integers(1, 33),
        ids=st.sampled_from(ids),
        dtype=st.sampled_from(dtypes),
        train=st.sampled_from(train),
        seed=st.integers(0, 2**16),
    )


def pairs(sample: Sample, step: int = 0) -> dict[str, Any]:
    """Features and ids of one batch, under the old names."""
    made: dict[str, Any] = {
        "vision_features": sample.randn(sample.batch, sample.dim, salt=2 * step),
        "text_features": sample.randn(sample.batch, sample.dim, salt=2 * step + 1),
    }
    ids = sample.match_ids()
    return made if ids is None else made | {"match_ids": ids}


@dataclass(frozen=True)
class GoldenCall:
    """One recorded call, decoded."""

    case: Case
    init: Mapping[str, Any]
    index: int
    args: list[Any]
    kwargs: dict[str, Any]

    @property
    def train(self) -> bool:
        return bool(self.case.data.get("train"))

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.case.data["dtype"] or "float32")

    def argument(self, name: str, position: int) -> Any:
        return self.kwargs.get(name, self.args[position] if len(self.args) > position else None)


@dataclass(frozen=True)
class ParityRecord:
    """How to call an old symbol inside the domain of its row.

    Args:
        symbol: ``module.Name`` in the catalog.
        inputs: old forward (function: call) arguments of step ``step``.
        kwargs: old constructor arguments.
        prepare: brings the fresh twin into the state from which both continue.
        by_hand: for old calls whose arguments do not translate one by one: compares with the parts of
            ``training_losses.migration.parity``, given the row and the sample; in place of ``inputs``, ``kwargs`` and
            ``prepare``.
        note: how ``by_hand`` compares, in words, for the report.
        within: opened around the calls of a function, old and new.
        reason: why nothing can be compared; such a record only stands in the report.
        golden: whether a recorded call lies inside the domain; the calls of a case are compared up to the first that
            does not. ``None``: the record takes no recorded calls.
    """

    symbol: str
    inputs: Callable[[Sample, int], dict[str, Any]] = pairs
    system: str = "multimodal_insight"
    variant: str = ""
    kwargs: Callable[[Sample], dict[str, Any]] = field(default=lambda sample: {})
    prepare: Callable[[Any, Sample], None] | None = None
    golden: Callable[[GoldenCall], bool] | None = None
    golden_module: str = ""
    """Module of the recorded cases, where it is not that of the symbol."""
    ids: tuple[str, ...] = IDS
    batch: tuple[int, int] = (1, 17)
    train: tuple[bool, ...] = (True, False)
    dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.float32)
    steps: int = 1
    backward: bool = True
    examples: int = 12
    factor: float = 1.0
    by_hand: Callable[[Symbol, Sample], Iterator[Comparison]] | None = None
    note: str = ""
    within: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    reason: str = ""

    @property
    def id(self) -> str:
        return f"{self.system}-{self.symbol}{'-' if self.variant else ''}{self.variant}"

    @property
    def row(self) -> Symbol:
        (symbol,) = (s for s in builtin_catalog().symbols if s.system == self.system and s.old == self.symbol)
        return symbol

    @property
    def strategy(self) -> st.SearchStrategy[Sample]:
        return samples(ids=self.ids, batch=self.batch, train=self.train, dtypes=self.dtypes)

    def run(self, sample: Sample) -> Iterator[Comparison]:
        """Compare old and new on ``steps`` batches made from ``sample``."""
        if self.by_hand is not None:
            yield from self.by_hand(self.row, sample)
            return
        if self.row.kind == "function":
            with self.within():
                comparison = compare_function(self.row, seed=sample.seed, **self.inputs(sample, 0))
            yield comparison
            return
        prepare = self.prepare
        pair = build_pair(
            self.row,
            dtype=sample.dtype,
            seed=sample.seed,
            train=sample.train,
            prepare=None if prepare is None else lambda twin: prepare(twin, sample),
            **self.kwargs(sample),
        )
        for step in range(self.steps):
            inputs = self.inputs(sample, step)
            yield pair.compare(seed=sample.seed + step, backward=self.backward, **inputs)

    def run_golden(self) -> Iterator[tuple[str, torch.dtype, Comparison]]:
        """Compare old and new on the recorded inputs that lie inside the domain."""
        module, _, name = self.symbol.rpartition(".")
        for case in load_cases(self.system, self.golden_module or module):
            if not (
                self.golden is None or case.symbol != name or case.data.get("harness") or "init_raises" in case.data
            ):
                yield from self.run_case(case)

    def run_case(self, case: Case) -> Iterator[tuple[str, torch.dtype, Comparison]]:
        """The calls of one recorded case, up to the first outside the domain."""
        assert self.golden is not None
        init = Run(case).decode(case.data.get("init", {}))
        pair = None
        for index, data in enumerate(case.calls):
            call = GoldenCall(case, init, index, case.decode(data.get("args", [])), case.decode(data.get("kwargs", {})))
            if "raises" in data or "method" in data or not self.golden(call):
                break
            seed = case.data["seed"] + 1 + index
            if case.data["kind"] == "function":
                with self.within():
                    comparison = compare_function(self.row, *call.args, seed=seed, **call.kwargs)
            else:
                if pair is None:
                    seeds = {"dtype": call.dtype, "train": call.train, "seed": case.data["seed"]}
                    pair = build_pair(self.row, **seeds, **init)
                comparison = pair.compare(*call.args, seed=seed, backward="grads" in data, **call.kwargs)
            yield f"{case.id}[{index}]", call.dtype, comparison


def all_records() -> list[ParityRecord]:
    """The records of every ``tests/parity/records_*.py``."""
    found = sorted((Path(__file__).parents[1] / "parity").glob("records_*.py"))
    return [r for path in found for r in importlib.import_module(f"tests.parity.{path.stem}").RECORDS]


def main() -> None:
    """Print a table of what the records compare: random inputs by a fixed sweep, and the recorded ones."""
    print("| old symbol | parity | random | recorded | numbers compared | largest deviation float64 | float32 |")
    print("|---|---|---|---|---|---|---|")
    for record in all_records():
        if record.reason:
            continue
        worst = {torch.float64: 0.0, torch.float32: 0.0}
        count, random = 0, 0
        done = [(s.dtype, c) for s in sweep(record) for c in record.run(s)]
        random = len(done)
        golden = [(dtype, c) for _, dtype, c in record.run_golden()] if record.golden else []
        for dtype, comparison in done + golden:
            worst[dtype] = max(worst[dtype], comparison.worst)
            count += len(comparison.values) + len(comparison.gradients) + len(comparison.state)
        parity = "/".join(sorted({case.parity for case in record.row.cases if case.new}))
        numbers = f"{worst[torch.float64]:.1e} | {worst[torch.float32]:.1e}"
        print(f"| {record.symbol} {record.variant} | {parity} | {random} | {len(golden)} | {count} | {numbers} |")


def sweep(record: ParityRecord) -> Iterator[Sample]:
    """Fixed samples: every batch size and dtype of the record."""
    for seed, batch in enumerate(range(record.batch[0], record.batch[1] + 1)):
        for dtype in record.dtypes:
            ids, train = record.ids[seed % len(record.ids)], record.train[seed % len(record.train)]
            yield Sample(batch, 1 + (7 * seed) % 33, ids, dtype, train, seed)


if __name__ == "__main__":
    main()
