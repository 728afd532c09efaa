"""Defaults from ``[tool.training-losses.codemod]`` of a pyproject.toml."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from .files import FileError
from .rules import NUMBERS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KEYS: Final[dict[str, type]] = {
    "select": list,
    "ignore": list,
    "exclude": list,
    "catalog": list,
    "numbers": str,
    "max-bytes": int,
    "jobs": int,
}


def load(start: Path) -> dict[str, Any]:
    """The table of the nearest pyproject.toml at or above ``start``; catalog paths are relative to its directory.

    Raises:
        FileError: the table has an unknown key or a value of another type.
    """
    directory = start.absolute() if start.is_dir() else start.absolute().parent
    for folder in (directory, *directory.parents):
        file = folder / "pyproject.toml"
        if file.is_file():
            return _table(file)
    return {}


def _table(file: Path) -> dict[str, Any]:
    text = file.read_text(encoding="utf-8", errors="replace")
    if "training-losses" not in text:
        return {}
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FileError("TL090", f"{file}: {error}") from error
    table = data.get("tool", {}).get("training-losses", {}).get("codemod", {})
    for key, value in table.items():
        if key not in KEYS:
            raise FileError("TL090", f"{file}: [tool.training-losses.codemod] has no key {key!r} ({', '.join(KEYS)})")
        if not isinstance(value, KEYS[key]) or isinstance(value, bool):
            raise FileError("TL090", f"{file}: codemod.{key} must be of type {KEYS[key].__name__}, found {value!r}")
    if table.get("numbers", NUMBERS[0]) not in NUMBERS:
        raise FileError("TL090", f"{file}: codemod.numbers must be one of {', '.join(NUMBERS)}")
    settings = {str(key).replace("-", "_"): value for key, value in table.items()}
    if "catalog" in settings:
        settings["catalog"] = [file.parent / name for name in settings["catalog"]]
    return settings
