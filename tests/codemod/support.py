"""Helpers of the codemod's tests: before/after cases, and what must hold for every one of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from training_losses.migration.catalog import Catalog, load_catalog
from training_losses.migration.codemod.project import Outcome, parse, rewrite_text
from training_losses.migration.codemod.rules import Rules

HERE = Path(__file__).parent
CATALOG = HERE / "catalog.toml"


@cache
def demo_catalog() -> Catalog:
    return load_catalog([CATALOG])


@dataclass(frozen=True)
class Example:
    """A snippet, what becomes of it, and the codes of the findings that are no changes."""

    name: str
    before: str
    after: str
    codes: tuple[str, ...]


def examples(path: Path) -> list[Example]:
    """Cases of a data file: ``##### name [codes]``, before, ``=====``, after (empty: unchanged)."""
    found = []
    for block in re.split(r"^##### ", path.read_text(encoding="utf-8"), flags=re.M)[1:]:
        title, _, body = block.partition("\n")
        before, _, after = body.partition("=====\n")
        codes = re.search(r" \[([A-Z0-9, ]+)\]$", title)
        names = tuple(codes.group(1).split(", ")) if codes else ()
        found.append(Example(title.removesuffix(codes.group() if codes else ""), before, after or before, names))
    return found


def rewritten(text: str, path: str = "example.py", **options: Any) -> tuple[str, Outcome]:
    """Rewrite with the demo catalog; the result parses and a second run leaves it as it is."""
    new, outcome = rewrite_text(text, Rules(demo_catalog(), **options), path)
    parse(new)
    again, second = rewrite_text(new, Rules(demo_catalog(), **options), path)
    assert again == new
    assert not second.changes
    return new, outcome


def codes(outcome: Outcome, *levels: str) -> set[str]:
    return {f.code for f in outcome.findings if f.level in (levels or ("left", "note", "error"))}
