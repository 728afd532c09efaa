"""Sections that an old factory read: the loss from the rewritten file is that of the old factory from the old file."""

from __future__ import annotations

import inspect
import json
import random
import re
import shutil
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from tests.support.twins import twin
from training_losses.config import ConfigError, create_loss_from_config, dump_config
from training_losses.migration.catalog import CatalogError, builtin_catalog, parse_catalog
from training_losses.migration.codemod import cli
from training_losses.migration.codemod.project import Outcome, Project
from training_losses.migration.codemod.rules import Rules
from training_losses.migration.codemod.sections import load

ROOT = Path(__file__).resolve().parents[2]
TRAIN = "from src.losses import create_loss_from_config\n\nloss = create_loss_from_config(config)\n"
SUFFIXES = (".yaml", ".json", ".toml")
REMOVED = ("huber_delta", "reduction", "use_vicreg", "vicreg", "apply_vicreg_per_level", "vicreg_on_targets")


def convert(text: str, name: str = "a.yaml", train: str = TRAIN, **options: Any) -> tuple[str, Outcome]:
    """The configuration after a run over a tree of it and ``train``."""
    project = Project(Rules(builtin_catalog(), **options))
    project.take("train.py", train.encode(), "python")
    project.take(name, text.encode(), "config")
    outcome = project.finish(project.decide())
    outcome.findings = [f for f in outcome.findings if f.path == name]
    return next((change.new_text for change in outcome.changes if change.path == name), text), outcome


def codes(outcome: Outcome, level: str) -> list[str]:
    return [f.code for f in outcome.findings if f.level == level]


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {toml(v)}" for k, v in value.items()) + "}"
    return f"[{', '.join(map(toml, value))}]" if isinstance(value, list) else json.dumps(value)


def written(config: dict[str, Any], suffix: str, style: int) -> str:
    """A file with ``config`` in one of the layouts that people write."""
    if suffix == ".json":
        return json.dumps(config, indent=(None, 2, 4)[style]) + "\n"
    if suffix == ".yaml":
        return yaml.safe_dump(
            config, sort_keys=False, default_flow_style=(False, None, True)[style], indent=2 + 2 * style
        )
    lines = [f"{key} = {toml(value)}" for key, value in config.items() if not isinstance(value, dict) or style == 2]
    for table, members in config.items():
        if isinstance(members, dict) and style != 2:
            lines += ["", f"[{table}]", *(f"{key} = {toml(value)}" for key, value in members.items())]
    return "\n".join(lines) + "\n"


# -- the same loss --------------------------------------------------------------------------------------------------


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fix_directions(loss: nn.Module) -> None:
    """Give all SIGReg losses inside, old or new, the same directions."""

    def drawn(slices: int, width: int) -> Tensor:
        return torch.nn.functional.normalize(randn(slices, width, seed=9), dim=1)

    for part in loss.modules():
        if type(part).__name__ == "SIGRegLoss" and hasattr(part, "tokens"):
            part._directions = lambda x, given, n=part.num_slices: (drawn(n, x.shape[1]),) * 2
        elif type(part).__name__ == "SIGRegLoss":
            part._generate_random_slices = lambda width, device, n=part.num_slices: drawn(n, width)


def outputs(loss: nn.Module, levels: int) -> list[Tensor]:
    """What the loss says, and its gradient, as the old trainer and the old examples called it."""
    loss = loss.double()
    fix_directions(loss)
    leaf = randn(6, 8, 6).requires_grad_()
    predictions = [leaf[:, :: 2**i] for i in range(levels)]
    targets = [randn(6, 8, 6, seed=2)[:, :: 2**i] for i in range(levels)]
    context, other = leaf * 0.5 + randn(6, 8, 6, seed=3), randn(6, 8, 6, seed=4)
    kind = type(loss).__name__
    if kind in ("VICRegLoss", "SIGRegLoss"):
        results = [loss(leaf, other), loss(leaf)]
    elif kind == "ContrastiveJEPALoss":
        names = ("context_features_i", "context_features_j", "target_features_i", "target_features_j")
        values = (context, context + 1, other, other + context)
        given = dict(zip(names, values, strict=True))
        if "context_features_i" not in inspect.signature(loss.forward).parameters:
            given = {name.replace("_i", "_a").replace("_j", "_b"): value for name, value in given.items()}
        results = [loss(predictions, targets, **given)]
    else:
        # the context is refused by the old class of hierarchical_combined, and needed by the new one of hjepa_sigreg
        results = []
        for more in ((), (None, context)):
            try:
                results.append(loss(predictions, targets, *more))
            except (TypeError, ValueError):
                results.append({"loss": leaf.sum()})
    values = [result["loss"] for result in results]
    return [*values, torch.autograd.grad(sum(values), leaf)[0]]


def assert_same_loss(old: dict[str, Any], text: str, suffix: str, tolerance: float = 1e-10) -> None:
    create = twin("hjepa.combined.create_loss_from_config")
    new = create_loss_from_config(load(text, suffix)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # VICReg settings are not used by ...
        before = create(old)
    section = old.get("loss", old)
    weights = section.get("hierarchy_weights", 1.0)
    given = old.get("model", {}).get("num_hierarchies", section.get("num_hierarchies", 3))
    levels = len(weights) if isinstance(weights, list) else given
    kind = section["type"].lower()
    unequal = kind == "hierarchical_combined", kind in ("hjepa_sigreg", "sigreg_combined")
    want, got = outputs(before, levels), outputs(new, levels)
    if any(unequal):  # one of the two calls is possible with one of the classes only
        want, got = [want[unequal[1]]], [got[unequal[1]]]
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# -- configurations -------------------------------------------------------------------------------------------------


@cache
def golden() -> list[tuple[str, dict[str, Any]]]:
    cases = json.loads((ROOT / "tests/golden/hjepa/combined.json").read_text())["cases"]
    found = [
        (case["case"], case["init"]["config"])
        for case in cases
        if case["symbol"] == "create_loss_from_config" and "init" in case and "init_raises" not in case
    ]
    return [(name, config) for name, config in found if config]


def without_ignored(config: dict[str, Any]) -> dict[str, Any]:
    """The file after what the finding asks for: keys without effect are gone, the number of levels stands once."""
    while True:
        _, outcome = convert(written(config, ".json", 0), "a.json")
        found = [
            re.search(r"the old factory ignored '(\w+)'|(num_hierarchies) is", f.message) for f in outcome.findings
        ]
        keys = [match.group(1) or match.group(2) for match in found if match]
        if not keys:
            return config
        config = {**config, "loss": {k: v for k, v in config["loss"].items() if k not in keys}}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", [name for name, _ in golden()])
def test_golden_configurations(name: str, suffix: str) -> None:
    config = dict(golden())[name]
    config = config if "loss" in config else {"loss": config}
    text, outcome = convert(written(config, suffix, 1), f"a{suffix}")
    used = without_ignored(config)
    if used != config:
        assert codes(outcome, "left") == ["TL046"]
        assert text == written(config, suffix, 1)
        if used["loss"].keys() | {"num_hierarchies"} != config["loss"].keys() | {"num_hierarchies"}:
            with pytest.raises(ConfigError):  # the new factory does not read these keys in silence either
                create_loss_from_config(config)
    for style in range(3):
        text, outcome = convert(written(used, suffix, style), f"a{suffix}")
        assert codes(outcome, "left") == []
        assert "TL012" in codes(outcome, "change")
        # the new losses hold their weights in float32: 0.7 differs in the eighth digit from the old Python number
        assert_same_loss(config, text, suffix, 1e-7)
        assert_same_loss(used, text, suffix, 1e-7)


VALUES: dict[str, Any] = {
    "hierarchy_weights": lambda r, h: [1.0, [r.randint(1, 8) / 8 for _ in range(h)]][r.randint(0, 1)],
    "jepa_loss_type": lambda r, h: r.choice(["smoothl1", "mse", "huber"]),
    "sigreg_test_method": lambda r, h: r.choice(["reference_points", "char_function"]),
    "sigreg_num_slices": lambda r, h: r.randint(2, 6),
    "sigreg_num_test_points": lambda r, h: r.randint(3, 9),
    "sigreg_char_function_num_quadrature": lambda r, h: r.randint(4, 9),
    "sigreg_char_function_t_min": lambda r, h: r.choice([0.25, 0.5]),
    "sigreg_char_function_t_max": lambda r, h: r.choice([2.0, 3.5]),
    "eps": lambda r, h: r.choice([1e-6, 1e-3]),
    "vicreg_configs": lambda r, h: [r.choice([{}, {"variance_weight": 2.5}, {"eps": 1e-3}]) for _ in range(h)],
}


def random_config(seed: int) -> dict[str, Any]:
    """A configuration whose keys the old factory read."""
    r = random.Random(seed)
    rule = builtin_catalog().factories[0]
    form = r.choice(rule.forms)
    levels = r.randint(1, 3)
    section: dict[str, Any] = {"type": r.choice([str, str.upper, str.title])(r.choice(form.types))}
    keys = list(form.case.arguments.items())
    r.shuffle(keys)
    for key, argument in keys:
        if key in VALUES and r.random() < 0.6:
            section[key] = VALUES[key](r, levels)
        elif key not in VALUES and key != "num_hierarchies" and r.random() < 0.4:
            section[key] = r.random() < 0.5 if isinstance(argument.default, bool) else r.randint(1, 16) / 8
    section = {key: section[key] for key in r.sample(list(section), len(section))}
    if section.get("vicreg_configs") is None:
        section.pop("vicreg_configs", None)
    for key in ("vicreg_weight", "contrastive_weight"):
        if key in form.case.arguments:
            section.setdefault(key, 0.125)  # exact in float32
    if "sigreg_num_slices" in form.case.arguments:
        section.setdefault("sigreg_num_slices", 5)
    for key, value in form.case.when.items():
        if value[0] is True:
            section[key] = True
        elif key in section and value[0] is False:
            section[key] = False
    config = {"model": {"num_hierarchies": levels, "width": 3}, "loss": section}
    if r.random() < 0.3:
        return {**section, "num_hierarchies": levels}
    return config


@pytest.mark.parametrize("seed", range(60))
def test_random_configurations(seed: int) -> None:
    config, suffix, style = random_config(seed), SUFFIXES[seed % 3], seed // 3 % 3
    text, outcome = convert(written(config, suffix, style), f"a{suffix}")
    assert codes(outcome, "left") == []
    assert "TL012" in codes(outcome, "change")
    assert_same_loss(config, text, suffix)
    # a tree whose code was rewritten and whose files were not keeps its numbers, too
    assert_same_loss(config, written(config, suffix, style), suffix)
    old, new = (dump_config(create_loss_from_config(c)) for c in (config, load(text, suffix)[0]))
    assert without_none(old) == without_none(new)
    assert convert(text, f"a{suffix}")[1].findings == []


def without_none(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: without_none(value) for key, value in config.items() if value is not None}
    return [without_none(item) for item in config] if isinstance(config, list) else config


# -- layout ---------------------------------------------------------------------------------------------------------

BEFORE = """\
# training
defaults_of_mine: &steps 60
training: {steps: *steps}
loss: &loss   # see notes
  # how levels count
  hierarchy_weights: [1.0,
    0.5]   # fine, coarse
  "vicreg_weight": 5.0e-2

  type: 'combined'   # kind
  # robust
  jepa_loss_type: "huber"   # not mse
# end
other: x
"""
AFTER = """\
# training
defaults_of_mine: &steps 60
training: {steps: *steps}
loss: &loss   # see notes

  name: 'hjepa_combined'   # kind
  kwargs:
    # how levels count
    hierarchy_weights: [1.0,
      0.5]   # fine, coarse
    "regularizer_weight": 5.0e-2
    # robust
    loss_type: "huber"   # not mse
    eps: 1.0e-08
    mask_average: positions
    vicreg_covariance_norm: pairs
    vicreg_view_reduction: mean
    vicreg_eps: 1.0e-08
    views: halves
# end
other: x
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_yaml_keeps_comments_quotes_and_anchors(newline: str) -> None:
    text, _ = convert(BEFORE.replace("\n", newline))
    assert text == AFTER.replace("\n", newline)


def test_comments_of_an_entry_that_goes_stay() -> None:
    text, outcome = convert(
        "loss:\n  type: mse\n  # no\n  use_contrastive: false  # yet\n  # all\n  hierarchy_weights: 1.0\n"
    )
    assert text.splitlines()[:7] == [
        "loss:", "  name: hjepa", "  # no", "  # yet", "  kwargs:", "    # all", "    hierarchy_weights: 1.0"
    ]  # fmt: skip
    assert "dropped use_contrastive" in {f.message for f in outcome.findings}


def test_a_file_without_a_last_newline_stays_one() -> None:
    text, _ = convert("loss:\n  type: mse\n  hierarchy_weights: 1.0")
    assert text.startswith("loss:\n  name: hjepa\n  kwargs:\n    hierarchy_weights: 1.0\n")
    assert text.endswith("mask_average: positions")


def test_toml_lines_stay_where_they_are() -> None:
    before = '[loss]  # a\nvicreg_weight = 0.5  # b\ntype = "combined"  # c\n# d\n\n[x]\ny = 1\n'
    text, _ = convert(before, "a.toml")
    lines = text.splitlines()
    assert lines[:3] == ["[loss]  # a", "kwargs.regularizer_weight = 0.5  # b", 'name = "hjepa_combined"  # c']
    assert lines[-4:] == ["# d", "", "[x]", "y = 1"]


@pytest.mark.parametrize("number", ["1e-6", "1E-6", ".1e-5", "1.e-6", "+1.0e-6"])
def test_numbers_of_yaml_1_2_are_numbers(number: str) -> None:
    after, outcome = convert(f"loss:\n  type: sigreg\n  eps: {number}\n")
    assert "TL012" in codes(outcome, "change")
    assert f"    eps: {number}\n" in after, "the text moves as it stands"
    assert_same_loss({"loss": {"type": "sigreg", "eps": 1e-6}}, after, ".yaml")


@pytest.mark.parametrize(("old", "tokens"), [("yes", "flatten"), ("Off", "concat")])
def test_booleans_of_old_readers_are_booleans(old: str, tokens: str) -> None:
    after, _ = convert(f"loss:\n  type: sigreg\n  flatten_patches: {old}\n  sigreg_fixed_slices: {old}  # seed\n")
    assert f"    tokens: {tokens}\n    fixed_slices: {'true' if old == 'yes' else 'false'}  # seed\n" in after


# -- what stays -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loss: {type: combined, use_vicreg: false}", "the old factory ignored 'use_vicreg'"),
        ("loss: {type: hjepa_sigreg, sigreg_weight: 25.0}", "the old factory ignored 'sigreg_weight'"),
        ("loss: {type: combined, vicreg_weight: '1e-1'}", "vicreg_weight is '1e-1', not a number"),
        ("loss: {type: mse, normalize_embeddings: 1}", "normalize_embeddings is 1, not true or false"),
        ("loss: {type: hjepa, jepa_loss_type: cosine}", "'cosine' has no counterpart"),
        ("loss: {type: hierarchical_combined, vicreg_configs: [{flatten_patches: false}]}", "'flatten_patches' has no"),
        ("loss: {type: hierarchical_combined, vicreg_configs: 3}", "expected a list of tables"),
        ("loss: {type: mse, # kind\n  hierarchy_weights: 1.0}", "comments stand between the braces"),
        ("x: &w [1.0]\nloss:\n  type: mse\n  hierarchy_weights: &v 1.0\ny: *v\nz: {<<: {}}", ""),
        ("k: &k huber\nloss:\n  type: hjepa\n  jepa_loss_type: *k\n", "stands elsewhere (an alias)"),
        ("base: &b\n  type: mse\n  hierarchy_weights: 1.0\nloss: *b\n", ""),
        ("base: &b {vicreg_weight: 0.1}\nloss:\n  <<: *b\n  type: combined\n", "'<<': the file is completed by others"),
        ("defaults: [base]\nloss: {type: mse, hierarchy_weights: 1.0}", "'defaults': the file is completed by others"),
        ("model: {num_hierarchies: 2}\nloss: {type: mse, num_hierarchies: 3}", "num_hierarchies is 3 here, and model"),
    ],
)
def test_what_cannot_be_said_exactly_stays(text: str, message: str) -> None:
    new, outcome = convert(text)
    if message:
        assert codes(outcome, "left") == ["TL046"]
        assert message in outcome.findings[0].message
        assert new == text
    else:
        assert_same_loss(yaml.safe_load(text), new, ".yaml")


@pytest.mark.parametrize(
    ("text", "train"),
    [
        ("loss: {type: mse, hierarchy_weights: 1.0}", "import torch\n"),  # nobody uses the old factory
        ("loss: {type: huber, hierarchy_weights: 1.0}", TRAIN),
        ("loss: {kind: mse}", TRAIN),
        ("type: mse", TRAIN),  # a whole file that could be anything
        ("- {type: mse, hierarchy_weights: 1.0}", TRAIN),
        ("criterion: {type: mse, hierarchy_weights: 1.0}", TRAIN),
        ("loss: {name: hjepa, kwargs: {loss_type: mse}}", TRAIN),
        ("loss:\n  type: mse  # codemod: skip\n  hierarchy_weights: 1.0\n", TRAIN),
    ],
)
def test_look_alikes_stay_without_a_word(text: str, train: str) -> None:
    new, outcome = convert(text, train=train)
    assert new == text
    assert outcome.findings == []


def test_modes_and_selection() -> None:
    text = "loss: {type: mse, hierarchy_weights: 1.0}"
    assert convert(text, numbers="exact")[0] == text  # the code stays on the frozen factory, which knows old forms only
    fresh = yaml.safe_load(convert(text, numbers="new")[0])
    assert fresh == {"loss": {"name": "hjepa", "kwargs": {"hierarchy_weights": 1.0}}}
    assert convert(text, select=("VICRegLoss",))[0] == text
    assert convert(text, select=("create_loss_from_config",))[0] != text


# -- the command ----------------------------------------------------------------------------------------------------


def tree(path: Path, reader: str = "") -> dict[str, str]:
    files = {"train.py": TRAIN + reader, "a.yaml": BEFORE, "b.yaml": "loss: {type: mse, use_vicreg: false}\n"}
    for name, text in files.items():
        (path / name).write_text(text)
    return files


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = cli.main([*arguments])
    return status, capsys.readouterr().out


def test_check_diff_write_and_undo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = tree(tmp_path)
    status, out = run(capsys, str(tmp_path), "--check")
    assert status == 1
    assert "TL012" in out
    assert "TL046" in out
    status, out = run(capsys, str(tmp_path), "--diff")
    assert "+  name: 'hjepa_combined'   # kind" in out
    assert {name: (tmp_path / name).read_text() for name in files} == files
    run(capsys, str(tmp_path), "--write")
    assert (tmp_path / "a.yaml").read_text() == AFTER
    assert (tmp_path / "b.yaml").read_text() == files["b.yaml"]
    assert "training_losses" in (tmp_path / "train.py").read_text()
    before = {name: (tmp_path / name).read_bytes() for name in files}
    run(capsys, str(tmp_path), "--write")
    assert {name: (tmp_path / name).read_bytes() for name in files} == before
    run(capsys, str(tmp_path), "--undo")
    assert {name: (tmp_path / name).read_text() for name in files} == files


@pytest.mark.parametrize(
    "reader",
    [
        'n = len(config["loss"]["hierarchy_weights"])\n',
        'w = loss.get("vicreg_weight", 0)\n',
        "cfg.loss.vicreg_weight\n",
    ],
)
def test_keys_that_code_reads_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str], reader: str) -> None:
    files = tree(tmp_path, reader)
    _, out = run(capsys, str(tmp_path), "--write")
    assert "TL047" in out
    assert "train.py:4" in out
    assert (tmp_path / "a.yaml").read_text() == files["a.yaml"]
    assert "training_losses" in (tmp_path / "train.py").read_text()


def test_the_demonstration_rewrites_its_file(tmp_path: Path) -> None:
    """python -m training_losses demo runs this tree before and after, and compares the curves."""
    shutil.copytree(ROOT / "examples" / "downstream", tmp_path / "downstream")
    cli.main([str(tmp_path), "--write"])
    before, after = (
        (folder / "downstream" / "hjepa" / "hjepa.yaml").read_text() for folder in (ROOT / "examples", tmp_path)
    )
    assert yaml.safe_load(before)["loss"]["type"] == "combined"
    assert yaml.safe_load(after)["loss"]["name"] == "hjepa_combined"
    assert re.findall("#.*", after) == re.findall("#.*", before)
    assert_same_loss(yaml.safe_load(before), after, ".yaml", 1e-7)


# -- pages and catalog ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["TL012", "TL046", "TL047"])
def test_the_examples_of_the_pages(code: str) -> None:
    page = (ROOT / "docs" / "codemod" / f"{code}.md").read_text()
    found = re.findall(r"File:\n\n```yaml\n(.*?)```\n\nBecomes(?:: unchanged\.|:\n\n```yaml\n(.*?)```)", page, re.S)
    assert found
    for before, after in found:
        train = re.search(r"Code:\n\n```python\n(.*?)```", page, re.S)
        if train is not None:
            continue  # needs files: test_keys_that_code_reads_stay
        new, outcome = convert(before)
        assert new == (after or before)
        assert code in {f.code for f in outcome.findings}


HEAD = """\
schema = 1
system = "s"
deprecated_in = "1.0.0"
removed_in = "2.0.0"
roots = ["old"]
[[module]]
old = "m"
"""
ROW = """\
[[symbol]]
old = "m.create"
kind = "function"
new = "a.b"
[[config]]
factory = "m.create"
sections = ["loss"]
type = "type"
"""


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROW.replace("m.create", "m.other", 1), "no .*symbol.* row for 'm.create'"),
        (ROW + '[[config.form]]\ntypes = ["x"]\nnew = "y"\nwhen = { k = 1 }\n', "not a key of the form"),
        (
            ROW + '[[config.form]]\ntypes = ["x"]\nnew = "y"\n[config.form.pins]\n"p.k" = 1\n',
            "is an argument of no part",
        ),
        (ROW + '[[config.form]]\ntypes = ["x"]\nnew = "y"\nmore = 1\n', "more"),
        (ROW, "'form' is missing"),
    ],
)
def test_rows_are_checked(rows: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        parse_catalog(HEAD + rows)
