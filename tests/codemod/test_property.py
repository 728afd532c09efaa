"""Random programs from the forms: before (twins) and after (new classes, twins gone) they do the same.

A program is a list of units. Each imports an old loss in one of the forms, builds it with random arguments and records
what it answers. The arguments that arrive in the new class are compared with an independent translation.
"""

# ruff: noqa: E501  (lines of programs)

from __future__ import annotations

import importlib
import importlib.abc
import inspect
import re
import sys
import types
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from tests.codemod.support import codes
from tests.support.twins import twin
from training_losses.migration import shims
from training_losses.migration.catalog import Symbol, builtin_catalog
from training_losses.migration.codemod.project import rewrite_text
from training_losses.migration.codemod.rules import Rules
from training_losses.migration.translate import translate

Log = list[tuple[str, Any]]


@dataclass(frozen=True)
class Loss:
    """An old loss: which arguments may be drawn, how it is called, what is read from its answer."""

    module: str
    name: str
    arguments: dict[str, Sequence[Any]]
    calls: Sequence[str]
    reads: Sequence[str]
    package: bool = True
    always: tuple[tuple[str, Any], ...] = ()
    function: bool = False

    @property
    def symbol(self) -> Symbol:
        return builtin_catalog().by_path[f"src.training.losses.{self.module}.{self.name}"]


LOSSES = [
    Loss(
        "clip_style_loss",
        "CLIPStyleLoss",
        {
            "temperature": [0.07, 0.5, 1.0],
            "use_hard_negatives": [True, False],
            "hard_negative_weight": [0.5],
            "reduction": ["mean", "sum"],
            "label_smoothing": [0.0, 0.1],
            "cache_labels": [True, False],
        },
        ["(v, t)", "(vision_features=v, text_features=t)", "(v, text_features=t)"],
        ["['loss']", "['v2t_loss']", "['accuracy']", ".get('t2v_accuracy')", "['recalls']['avg_recall@5']"],
        package=False,
    ),
    Loss(
        "vicreg_loss",
        "VICRegLoss",
        {
            "sim_coeff": [1.0, 25.0],
            "var_coeff": [1.0, 25.0],
            "cov_coeff": [1.0, 2.0],
            "epsilon": [1e-4, 1e-2],
            "warmup_epochs": [2, 5],
            "curriculum": [True, False],
            "num_epochs": [10, 30],
        },
        ["(v, t)", "(z_a=v, z_b=t)"],
        ["['loss']", "['invariance_loss']", "['sim_weight']", "['cov_weight']"],
    ),
    Loss(
        "contrastive_loss",
        "ContrastiveLoss",
        {"temperature": [0.07, 0.5], "loss_type": ["nt_xent", "infonce"], "reduction": ["mean", "sum"]},
        ["(v, t)"],
        ["['loss']"],
        always=(("add_projection", False),),
    ),
    Loss(
        "losses",
        "CrossEntropyLoss",
        {"smoothing": [0.0, 0.1, 0.3], "reduction": ["mean", "sum", "none"]},
        ["(logits, target)", "(input=logits, target=target)", "(logits, target, weights)"],
        [""],
    ),
    Loss(
        "losses",
        "MeanSquaredError",
        {"reduction": ["mean", "sum", "none"], "clip_grad": [None, 0.5]},
        ["(v, t)", "(input=v, target=t)", "(v, t, sample_weight=weights)"],
        [""],
    ),
    Loss(
        "decorrelation_loss",
        "DecorrelationLoss",
        {"coef": [1.0, 2.0], "epsilon": [1e-3], "normalize_embeddings": [True, False]},
        ["(v, t)", "(vision_features=v, text_features=t)"],
        ["['loss']"],
        package=False,
    ),
    Loss(
        "contrastive_loss",
        "nt_xent_loss",
        {"temperature": [0.07, 0.5], "reduction": ["mean", "sum"]},
        [],
        [""],
        package=False,
        always=(("vision_features", "@v"), ("text_features", "@t")),
        function=True,
    ),
]

ROOTS = ["src.training.losses", "training.losses", "src.training.loss"]
# {m} module, {k} its package, {leaf} its last part, {n} name, {i} number of the unit, {a} arguments
FORMS = {
    "from": "from {m} import {n}\nf{i} = lambda: {n}({a})",
    "from, at once": "from {m} import {n}\nx{i} = {n}({a})\nf{i} = lambda: x{i}",
    "alias": "from {m} import {n} as A{i}\nx{i} = A{i}({a})\nf{i} = lambda: x{i}",
    "module alias": "import {m} as m{i}\nx{i} = m{i}.{n}({a})\nf{i} = lambda: x{i}",
    "dotted": "import {m}\nx{i} = {m}.{n}({a})\nf{i} = lambda: x{i}",
    "from package": "from {k} import {leaf} as p{i}\nx{i} = p{i}.{n}({a})\nf{i} = lambda: x{i}",
    "lazy": "def f{i}():\n    from {m} import {n}\n\n    return {n}({a})",
    "nested lazy": "def g{i}():\n    if True:\n        with open(__import__('os').devnull):\n            from {m} import ({n} as B,)\n"
    "            return B({a})\nf{i} = g{i}",
    "guarded": "try:\n    from {m} import {n}\nexcept ImportError:\n    {n} = None\nx{i} = {n}({a})\nf{i} = lambda: x{i}",
    "import_module": "import importlib\nx{i} = importlib.import_module('{m}').{n}({a})\nf{i} = lambda: x{i}",
    "getattr": "from importlib import import_module\nx{i} = getattr(import_module('{m}'), '{n}')({a})\nf{i} = lambda: x{i}",
    "bound module": "import importlib\nm{i} = importlib.import_module('{m}')\nx{i} = m{i}.{n}({a})\nf{i} = lambda: x{i}",
    "assigned": "from {m} import {n}\nL{i} = {n}\nx{i} = L{i}({a})\nf{i} = lambda: x{i}",
    "conditional": "from {m} import {n}\nL{i} = {n} if {i} >= 0 else {n}\nx{i} = L{i}({a})\nf{i} = lambda: x{i}",
    "partial": "from functools import partial\nfrom {m} import {n}\nmake{i} = partial({n}, {a})\nf{i} = lambda: make{i}()",
    "star": "from {m} import *\nx{i} = {n}({a})\nf{i} = lambda: x{i}",
    "annotated": "from {m} import {n}\ndef f{i}(x: '{n} | None' = None) -> \"{n}\":\n    return x or {n}({a})",
    "class": "from {m} import {n}\nclass H{i}:\n    def __init__(self):\n        self.loss = {n}({a}).to('cpu')\n"
    "    def get(self):\n        return self.loss\nf{i} = H{i}().get",
    "walrus": "from {m} import {n}\nif (x{i} := {n}({a})) is not None:\n    f{i} = lambda: x{i}",
}
ONLY_CLASSES = {"class", "walrus", "from, at once", "annotated"}


@st.composite
def unit(draw: st.DrawFn, number: int = 0) -> str:
    loss = draw(st.sampled_from(LOSSES))
    forms = sorted(FORMS) if not loss.function else sorted(set(FORMS) - ONLY_CLASSES - {"partial"})
    form = draw(st.sampled_from(forms))
    root = draw(st.sampled_from(ROOTS))
    module = root if loss.package and draw(st.booleans()) and form != "star" else f"{root}.{loss.module}"
    chosen = {k: draw(st.sampled_from(list(v))) for k, v in loss.arguments.items() if draw(st.booleans())}
    chosen.update(loss.always)
    signature = [name for name, a in loss.symbol.signature.items() if not a.variadic]
    count = 0
    while count < len(signature) and signature[count] in chosen and draw(st.booleans()):
        count += 1
    texts = [_literal(chosen[name]) for name in signature[:count]]
    rest = draw(st.permutations([name for name in chosen if name not in signature[:count]]))
    texts += [f"{name}={_literal(chosen[name])}" for name in rest]
    layout = draw(st.sampled_from([", ", ",\n        "]))
    arguments = layout.join(texts) + (draw(st.sampled_from(["", ","])) if texts and form != "partial" else "")
    package, _, leaf = module.rpartition(".")
    text = FORMS[form].format(m=module, k=package, leaf=leaf, n=loss.name, i=number, a=arguments)
    text = text.replace(", )", ")")
    if loss.function:
        return f"{text}\nrecord({number}, f{number}())\n"
    # a bound method, or a parameter of unknown origin, hides the loss: its calls keep old names, noted as TL022
    in_sight = form not in ("class", "annotated")
    call = draw(st.sampled_from([c for c in loss.calls if in_sight or "=" not in c]))
    read = draw(st.sampled_from([r for r in loss.reads if in_sight or "recalls" not in r]))
    style = draw(st.sampled_from(["local", "direct"]))
    known = "x{i}" if f"x{number} = " in text and style == "local" else "f{i}()"
    known = known.format(i=number)
    if style == "local":
        return f"{text}\nout{number} = {known}{call}\nrecord({number}, out{number}{read})\n"
    return f"{text}\nrecord({number}, {known}{call}{read})\n"


def _literal(value: Any) -> str:
    return value[1:] if isinstance(value, str) and value.startswith("@") else repr(value)


@st.composite
def program(draw: st.DrawFn) -> str:
    count = draw(st.integers(1, 4))
    units = [draw(unit(number)) for number in range(count)]
    for text in units:
        # reported, so no programs for this test: a star beside an import of one of its names, and a second name of a
        # class that has several successors in the file
        names = {loss.name for loss in LOSSES if f"{loss.module} import *" in text}
        others = [other for other in units if other is not text]
        assume(not any(f"import {name}" in other for other in others for name in names))
        assume(not re.search(r"L\d = ContrastiveLoss", text) or not any("ContrastiveLoss" in other for other in others))
    return "from codemod_harness import logits, record, t, target, v, weights\n" + "\n".join(units)


def _is_old(name: str) -> bool:
    return name.startswith("training_losses.legacy") or name.partition(".")[0] in ("legacy", "src", "training")


class _Gone(importlib.abc.MetaPathFinder):
    """The twins were removed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if _is_old(name):
            raise ModuleNotFoundError(f"{name} was removed", name=name)


@contextmanager
def without_twins() -> Iterator[None]:
    hidden = {n: sys.modules.pop(n) for n in list(sys.modules) if _is_old(n)}
    finder = _Gone()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        sys.modules.update(hidden)


@contextmanager
def recorded(classes: Sequence[type], log: Log) -> Iterator[None]:
    """Note the arguments of every construction of ``classes``."""
    originals = {cls: cls.__init__ for cls in classes}  # type: ignore[misc]  # the unbound constructor is meant

    def wrap(cls: type, original: Any) -> Any:
        signature = inspect.signature(original)

        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            if type(self) is cls:
                bound = signature.bind(self, *args, **kwargs).arguments
                bound.pop("self")
                for parameter in signature.parameters.values():
                    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                        bound.update(bound.pop(parameter.name, {}))
                log.append((cls.__module__ + "." + cls.__qualname__, dict(bound)))
            original(self, *args, **kwargs)

        return init

    for cls, original in originals.items():
        cls.__init__ = wrap(cls, original)  # type: ignore[misc]  # restored below
    try:
        yield
    finally:
        for cls, original in originals.items():
            cls.__init__ = original  # type: ignore[misc]  # as it was


def execute(text: str) -> Log:
    """Run a program; what it recorded."""
    generator = torch.Generator().manual_seed(0)
    harness = types.ModuleType("codemod_harness")
    answers: Log = []

    def tensor(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    contents = {
        "v": tensor(20, 6), "t": tensor(20, 6), "logits": tensor(20, 5), "weights": tensor(20).abs(),
        "target": torch.arange(20) % 5, "record": lambda number, value: answers.append((str(number), value)),
    }  # fmt: skip
    harness.__dict__.update(contents)
    sys.modules["codemod_harness"] = harness
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(text, "program.py", "exec"), {"__name__": "program"})
    finally:
        del sys.modules["codemod_harness"]
    return answers


def as_tensor(value: Any) -> torch.Tensor:
    return torch.as_tensor(value).detach().to(torch.float64)


TWINS = [twin(f"{loss.module}.{loss.name}") for loss in LOSSES if not loss.function]
NEW = sorted(
    {
        case.new
        for loss in LOSSES
        if not loss.function
        for case in loss.symbol.cases
        if case.new and case.parity != "fixed"
    }
)
OLD_PATHS = {f"training_losses.legacy.{loss.module}.{loss.name}": loss.symbol for loss in LOSSES}


@settings(
    max_examples=60, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
@given(program())
def test_programs_do_the_same_before_and_after(text: str) -> None:
    shims.install()
    rewritten, outcome = rewrite_text(text, Rules(builtin_catalog()), "program.py")
    assert not codes(outcome, "left", "error"), (text, outcome.findings)
    assert "src.training" not in rewritten
    again, second = rewrite_text(rewritten, Rules(builtin_catalog()), "program.py")
    assert again == rewritten
    assert not codes(second, "left", "error")
    built: Log = []
    with recorded(TWINS, built):
        before = execute(text)
    new_classes = [getattr(importlib.import_module(p.rpartition(".")[0]), p.rpartition(".")[2]) for p in NEW]
    rebuilt: Log = []
    with without_twins(), recorded(new_classes, rebuilt):
        after = execute(rewritten)
    assert len(built) == len(rebuilt), rewritten
    for (old, arguments), (new, found) in zip(built, rebuilt, strict=True):
        case, expected = translate(OLD_PATHS[old], (), arguments)
        assert new == case.new
        assert found == expected, rewritten
    assert [number for number, _ in before] == [number for number, _ in after]
    for (number, old_value), (_, new_value) in zip(before, after, strict=True):
        torch.testing.assert_close(
            as_tensor(new_value),
            as_tensor(old_value),
            rtol=2e-5,
            atol=1e-6,
            msg=lambda m, n=number: f"{n}: {m}\n{rewritten}",
        )
