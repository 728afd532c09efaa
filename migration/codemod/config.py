"""Defaults from ``[tool.training-losses.codemod]`` of a pyproject.toml, and what the settings may be."""

from __future__ import annotations

import os
import sys

from .errors import FileError
from .walk import parents

TYPE_CHECKING = False  # see scout
if TYPE_CHECKING:
    from typing import Any, Final

MAX_BYTES: Final = 2_000_000
NUMBERS: Final = ("exact", "documented", "new")
FORMATS: Final = ("text", "json", "sarif", "github")
KEYS: Final[dict[str, type]] = {
    "select": list,
    "ignore": list,
    "exclude": list,
    "catalog": list,
    "numbers": str,
    "max-bytes": int,
    "jobs": int,
}


def load(start: str) -> dict[str, Any]:
    """The table of the nearest pyproject.toml at or above ``start``; catalog paths are relative to its directory.

    Raises:
        FileError: the table has an unknown key or a value of another type.
    """
    file = _nearest(start)
    return _table(file) if file else {}


def style(start: str) -> tuple[int, tuple[int, int]]:
    """What the nearest pyproject.toml says of the code: its line length, and the oldest Python that it is for.

    The line length is the one for ruff or black, or 88, as theirs; Python is the one that runs, if none is named.
    """
    import re  # an empty run needs none

    file = _nearest(start)
    data = _parsed(file, _read(file)) if file else {}
    found = [data.get("tool", {}).get(tool, {}).get("line-length") for tool in ("ruff", "black")]
    wanted = str(data.get("project", {}).get("requires-python", ""))
    oldest = re.search(r"(?:>=|~=|==|>)\s*(\d+)(?:\.(\d+))?", wanted)
    python = (int(oldest[1]), int(oldest[2] or 0)) if oldest else sys.version_info[:2]
    return next((length for length in found if isinstance(length, int)), 88), python


def _nearest(start: str) -> str:
    absolute = os.path.abspath(start)
    folders = parents(absolute if os.path.isdir(absolute) else os.path.dirname(absolute))
    files = (os.path.join(folder, "pyproject.toml") for folder in folders)
    return next((file for file in files if os.path.isfile(file)), "")


def _read(file: str) -> str:
    with open(file, encoding="utf-8", errors="replace") as handle:
        return handle.read()


def _parsed(file: str, text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        data: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FileError("TL090", f"{file}: {error}") from error
    return data


def _table(file: str) -> dict[str, Any]:
    text = _read(file)
    if "training-losses" not in text:
        return {}
    table = _parsed(file, text).get("tool", {}).get("training-losses", {}).get("codemod", {})
    for key, value in table.items():
        if key not in KEYS:
            raise FileError("TL090", f"{file}: [tool.training-losses.codemod] has no key {key!r} ({', '.join(KEYS)})")
        if not isinstance(value, KEYS[key]) or isinstance(value, bool):
            raise FileError("TL090", f"{file}: codemod.{key} must be of type {KEYS[key].__name__}, found {value!r}")
    if table.get("numbers", NUMBERS[0]) not in NUMBERS:
        raise FileError("TL090", f"{file}: codemod.numbers must be one of {', '.join(NUMBERS)}")
    settings = {str(key).replace("-", "_"): value for key, value in table.items()}
    if "catalog" in settings:
        settings["catalog"] = [os.path.join(os.path.dirname(file), name) for name in settings["catalog"]]
    return settings
