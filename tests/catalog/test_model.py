"""The catalog's schema: what it accepts, and where it says that something is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from training_losses.migration.catalog import (
    MISSING,
    Argument,
    Catalog,
    CatalogError,
    Unconvertible,
    builtin_catalog,
    load_catalog,
    parse_catalog,
)

TEXT = """\
schema = 1
system = "demo"
deprecated_in = "1.0.0"
removed_in = "2.0.0"
twins = "legacy"
roots = ["old.losses", "losses"]

[[module]]
old = "first"

[[symbol]]
old = "first.Loss"
kind = "class"
exported = ["Loss"]
new = "training.losses.x.NewLoss"
parity = "exact"

[symbol.arguments]
weight = { default = 1.0, rename = "scale", scale = 0.5 }
mode = { default = "a", map = { a = "mean", b = "sum" } }
limit = { default = "@None" }

[[symbol]]
old = "first.Other"
kind = "class"
new = "none"
reason = "nobody used it"
[symbol.arguments]
kind = { default = "x", drop = "it chooses the class" }
[[symbol.case]]
when = { kind = ["y", "z"] }
new = "training.losses.x.Y"
parity = "exact"
[symbol.case.arguments]
extra = { default = 1 }
[[symbol.case]]
new = "none"

[[config]]
path = "losses[]"
name = "name"
arguments = "params"
[config.names]
loss = "first.Loss"
"""


def test_reads() -> None:
    catalog = parse_catalog(TEXT)
    loss, other = catalog.symbols
    assert loss.paths == ("old.losses.first.Loss", "losses.first.Loss")
    assert loss.package_paths == ("old.losses.Loss", "losses.Loss")
    assert loss.twin == "legacy.first.Loss"
    assert catalog.modules == {"old.losses.first": "legacy.first", "losses.first": "legacy.first"}
    assert catalog.packages == {"old.losses": "legacy", "losses": "legacy"}
    assert loss.cases[0].arguments["limit"].default is None
    assert catalog.find("losses.Loss") == catalog.find("first.Loss") == catalog.find("Loss") == [loss]
    assert catalog.configs[0].names == {"loss": "first.Loss"}
    assert other.selectors == ("kind",)


def test_cases_are_chosen_by_literal_values_and_defaults() -> None:
    other = parse_catalog(TEXT).symbols[1]
    assert other.case_for({}) is other.cases[1]
    assert other.case_for({"kind": "z"}) is other.cases[0]
    assert other.cases[0].describe() == "kind in {'y', 'z'}"
    assert list(other.cases[0].arguments) == ["kind", "extra"]
    assert list(other.cases[1].arguments) == ["kind"]


def test_a_bool_is_no_integer() -> None:
    text = TEXT.replace('when = { kind = ["y", "z"] }', "when = { kind = 1 }")
    other = parse_catalog(text).symbols[1]
    assert other.case_for({"kind": True}) is other.cases[1]
    assert other.case_for({"kind": 1}) is other.cases[0]


@pytest.mark.parametrize(
    ("argument", "old", "new"),
    [
        (Argument("a"), [1], [1]),
        (Argument("a", scale=0.5), 3, 1.5),
        (Argument("a", invert=True), True, False),
        (Argument("a", map=((True, "x"), (1, "y"))), 1, "y"),
    ],
)
def test_converts(argument: Argument, old: object, new: object) -> None:
    assert argument.convert(old) == new


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        (Argument("a", scale=0.5), "3", "a='3' is not a number"),
        (Argument("a", scale=0.5), True, "is not a number"),
        (Argument("a", invert=True), 1, "a=1 is not a bool"),
        (Argument("a", map=(("x", "y"),)), "z", r"a='z' has no counterpart \(known: 'x'\)"),
    ],
)
def test_says_what_cannot_be_converted(argument: Argument, value: object, message: str) -> None:
    with pytest.raises(Unconvertible, match=message):
        argument.convert(value)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("schema = 1", "schema = 2", 1, "top level: key 'schema': this version reads schema 1"),
        ('system = "demo"', 'sistem = "demo"', 2, "top level: key 'sistem': unknown"),
        ('kind = "class"\nexp', 'kind = "klass"\nexp', 13, "symbol first.Loss: key 'kind': expected class or function"),
        ('parity = "exact"\n\n', 'parity = "exakt"\n\n', 16, "symbol first.Loss: key 'parity': expected one of exact"),
        ('parity = "exact"\n\n', 'parity = "documented"\n\n', 16, "documented rows state their domain"),
        ('parity = "exact"\n\n', 'parity = "fixed"\n\n', 16, "fixed rows state their deviations"),
        ("scale = 0.5", "scale = 0", 19, "key 'arguments.weight.scale': expected a number other than 0"),
        ("scale = 0.5", "scael = 0.5", 19, "key 'arguments.weight.scael': unknown"),
        ('limit = { default = "@None" }', "limit = 3", 21, "key 'arguments.limit': expected a table"),
        ("default = 1.0, rename", 'default = 1.0, drop = "x", rename', 19, "cannot be combined"),
        ('old = "first.Other"', 'old = "second.Other"', 24, "symbol second.Other: key 'old': no [[module]] row"),
        ('reason = "nobody used it"\n', "", 26, "a row without a successor needs a reason"),
        ("when = { kind =", "when = { knid =", 31, "case 1: key 'when.knid': not an argument of the old signature"),
        (
            'loss = "first.Loss"',
            'loss = "first.Los"',
            44,
            "config 1: key 'names.loss': no [[symbol]] row for 'first.Los'",
        ),
        (
            'new = "training.losses.x.NewLoss"',
            'new = "NewLoss"',
            15,
            "expected a dotted path or 'none', found 'NewLoss'",
        ),
        (
            "[symbol.arguments]",
            "[symbol.kept]\nwidth = 'head.width'\n[symbol.arguments]",
            19,
            "'kept.width': not an argument",
        ),
        ('exported = ["Loss"]', "exported = [1]", 14, "expected a list of strings"),
        ("[[config]]", "[[config]", 39, "not valid TOML"),
    ],
)
def test_errors_name_file_line_row_and_key(old: str, new: str, line: int, message: str) -> None:
    assert TEXT.count(old) >= 1
    with pytest.raises(CatalogError) as caught:
        parse_catalog(TEXT.replace(old, new, 1), "demo.toml")
    text = str(caught.value)
    assert message in text
    assert text.startswith(f"demo.toml:{line}: "), text


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ('old = "a.*"\nnew = "b"', "both or neither need '*'"),
        ('old = "a"', "needs either new or drop"),
        ('old = "a"\nnew = "b"\nfresh = "x"', "stands beside new alone"),
        ('new = "b"\nfresh = "x"\nkept = ["a", "b"]', "stands beside fresh, with one attribute per new key"),
        ('old = "a"\nnew = "b"\nkept = ["a"]', "stands beside fresh"),
        ('new = "b"', "expected a string, found None"),
        ('old = "a"\nnew = "b"\nsqeeze = true', "unknown"),
    ],
)
def test_state_rules_are_checked(rule: str, message: str) -> None:
    text = TEXT.replace('[[symbol]]\nold = "first.Other"', f'[[symbol.state]]\n{rule}\n[[symbol]]\nold = "first.Other"')
    with pytest.raises(CatalogError, match=message.replace("*", r"\*")):
        parse_catalog(text)


def test_two_rows_for_one_path() -> None:
    second = TEXT.replace('system = "demo"', 'system = "again"')
    with pytest.raises(CatalogError, match=r"'old.losses.first.Loss' is claimed by two rows"):
        Catalog.merge([parse_catalog(TEXT), parse_catalog(second)])
    with pytest.raises(CatalogError, match=r"t\.toml: old path .* is claimed by two rows"):
        parse_catalog(TEXT.replace("first.Other", "first.Loss"), "t.toml")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="cannot read the catalog"):
        load_catalog([tmp_path / "none.toml"])
    (tmp_path / "latin.toml").write_bytes("a = 'ä'".encode("latin-1"))
    with pytest.raises(CatalogError, match="cannot read the catalog"):
        load_catalog([tmp_path / "latin.toml"])


def test_missing_is_one_false_value() -> None:
    import copy

    assert not MISSING
    assert copy.deepcopy(MISSING) is MISSING
    assert copy.copy(MISSING) is MISSING
    assert repr(MISSING) == "MISSING"


def test_the_catalog_and_the_codemod_do_not_need_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; import training_losses.migration.shims;"
        "import training_losses.migration.translate;"
        "import training_losses.migration.codemod.cli; from training_losses.migration.catalog import builtin_catalog;"
        "print(len(builtin_catalog().symbols))"
    )
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) == len(builtin_catalog().symbols)
