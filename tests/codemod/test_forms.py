"""Every form of import and use, with what becomes of it; the data files are the list of the forms."""

from __future__ import annotations

import pytest

from tests.codemod.support import HERE, Example, codes, examples, rewritten

# notes about numbers follow from the catalog, not from the form
EVERYWHERE = {"TL020", "TL022", "TL023"}
CASES = [case for path in sorted((HERE / "data").glob("*.txt")) for case in examples(path)]


def test_names_are_unique() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_form(case: Example) -> None:
    new, outcome = rewritten(case.before)
    assert new == case.after
    assert codes(outcome) - EVERYWHERE == set(case.codes) - EVERYWHERE, outcome.findings


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_form_inside_crlf(case: Example) -> None:
    new, _ = rewritten(case.before.replace("\n", "\r\n"))
    assert new == case.after.replace("\n", "\r\n")
