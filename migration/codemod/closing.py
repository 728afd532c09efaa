"""The end of the report."""

from __future__ import annotations

TYPE_CHECKING = False  # see scout
if TYPE_CHECKING:
    from collections.abc import Sequence


def closing(
    scanned: int,
    matched: int,
    changed: int,
    wrote: bool,
    left: int = 0,
    errors: int = 0,
    unsought: Sequence[str] = (),
) -> str:
    """How many files were read and changed, what is left, and which quoted paths were not looked for."""
    verb = "rewritten" if wrote else "would be rewritten"
    line = f"{scanned} files read, {matched} mention old names, {changed} {verb}"
    line += f", {left} places left for you" if left else ""
    line += f", {errors} errors" if errors else ""
    if not unsought:
        return f"{line}.\n"
    names = ", ".join(unsought)
    return f"{line}.\nNothing here is called {names}: strings with such paths were not looked for (--thorough does).\n"
