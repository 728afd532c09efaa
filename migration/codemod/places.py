"""Under which dotted names a file can be imported, by its place."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from .walk import root_of


@cache
def _has_init(directory: str) -> bool:
    return os.path.exists(f"{directory}/__init__.py") or os.path.exists(f"{directory}/__init__.pyi")


def package_names(path: Path) -> list[str]:
    """Dotted names that the directory of ``path`` may have as a package, the likeliest first.

    A package begins at the topmost directory of an unbroken chain of ``__init__`` files, or above it (namespace
    packages), but not inside the chain.
    """
    directory = os.path.dirname(os.path.abspath(path))
    root = root_of(directory)
    parts = directory.split("/")
    top = len(parts)
    while top > 1 and _has_init("/".join(parts[:top])):
        top -= 1
    start = len(root.rstrip("/").split("/")) if root is not None else max(1, top - 4)
    names = []
    for index in range(min(top, len(parts) - 1), min(start, top) - 1, -1):
        name = parts[index:]
        if name and all(part.isidentifier() for part in name):
            names.append(".".join(name))
    return names


def module_names(path: Path) -> list[str]:
    """Dotted names under which the file may be imported."""
    packages = package_names(path)
    if path.stem == "__init__":
        return packages
    names = [f"{package}.{path.stem}" for package in packages]
    if not _has_init(os.path.dirname(os.path.abspath(path))):
        names.append(path.stem)
    return names
