"""Finds the files under the given paths, as git would see them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final

KINDS: Final = {
    ".py": "python", ".pyi": "python", ".ipynb": "notebook", ".md": "document", ".markdown": "document",
    ".rst": "document", ".yaml": "config", ".yml": "config", ".json": "config", ".toml": "config",
    ".sh": "shell", ".bash": "shell", ".zsh": "shell",
}  # fmt: skip
SKIPPED: Final = frozenset(
    {".git", ".hg", ".svn", ".venv", "venv", "node_modules", "site-packages", "__pycache__", ".tox", ".nox", ".eggs"}
    | {".mypy_cache", ".ruff_cache", ".pytest_cache", ".training-losses-codemod"}
)


class Ignore:
    """The rules of one ``.gitignore`` file in the directory ``base``; paths are absolute, with slashes."""

    def __init__(self, base: str, text: str) -> None:
        self.base = base.rstrip("/") + "/"
        self.rules = [rule for line in text.splitlines() if (rule := _rule(line))]
        quick = "|".join(f"(?:{pattern})" for pattern, _, _ in self.rules)
        self.quick = re.compile(quick) if quick else None
        self.compiled = [(re.compile(pattern), negated, directory) for pattern, negated, directory in self.rules]

    def verdict(self, path: str, directory: bool) -> bool | None:
        """``True`` ignored, ``False`` taken back by ``!``, ``None`` not mentioned."""
        if self.quick is None or not path.startswith(self.base):
            return None
        relative = path[len(self.base) :]
        if not self.quick.fullmatch(relative):
            return None
        for pattern, negated, only_directories in reversed(self.compiled):
            if (directory or not only_directories) and pattern.fullmatch(relative):
                return not negated
        return None


def _rule(line: str) -> tuple[str, bool, bool] | None:
    line = re.sub(r"(?<!\\)\s+$", "", line)
    if not line or line.startswith("#"):
        return None
    negated = line.startswith("!")
    line = line[1:] if negated else line
    directory = line.endswith("/")
    line = line.rstrip("/")
    anchored = "/" in line
    line = line.lstrip("/")
    if not line:
        return None
    return ("" if anchored else "(?:.*/)?") + _translate(line), negated, directory


def _translate(pattern: str) -> str:
    out = []
    position = 0
    while position < len(pattern):
        rest = pattern[position:]
        if rest.startswith("**/"):
            out.append("(?:.*/)?")
            position += 3
        elif rest.startswith("/**") and len(rest) == 3:
            out.append("/.*")
            position += 3
        elif rest[0] == "*":
            out.append("[^/]*")
            position += 1
        elif rest[0] == "?":
            out.append("[^/]")
            position += 1
        elif rest[0] == "[" and (end := rest.find("]", 2)) > 0:
            body = rest[1:end].replace("\\", "\\\\")
            out.append("[" + ("^" + body[1:] if body[0] in "!^" else body) + "]")
            position += end + 1
        elif rest[0] == "\\" and len(rest) > 1:
            out.append(re.escape(rest[1]))
            position += 2
        else:
            out.append(re.escape(rest[0]))
            position += 1
    return "".join(out)


def _read_ignore(directory: str, name: str = ".gitignore") -> list[Ignore]:
    try:
        with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as handle:
            return [Ignore(directory, handle.read())]
    except OSError:
        return []


def repository_root(path: Path) -> Path | None:
    """The directory above ``path`` that holds ``.git``."""
    absolute = Path(os.path.abspath(path))
    return next((d for d in (absolute, *absolute.parents) if (d / ".git").exists()), None)


def walk(
    top: Path, failed: Callable[[str, OSError], None], gitignore: bool = True, exclude: Sequence[str] = ()
) -> Iterator[tuple[str, str]]:
    """``(path, kind)`` of every file below ``top`` (or ``top`` itself), in a stable order.

    Links are not followed. ``failed`` is told of directories that cannot be read.
    """
    if not top.is_dir():
        yield str(top), KINDS.get(top.suffix, "python")
        return
    root = repository_root(top) if gitignore else None
    absolute = os.path.abspath(top)
    inherited: list[Ignore] = []
    if root is not None:
        inherited += _read_ignore(str(root / ".git" / "info"), "exclude")
        for rules in inherited:
            rules.base = f"{root}/"
        chain = [d for d in Path(absolute).parents if d == root or root in d.parents]
        for directory in reversed(chain):
            inherited += _read_ignore(str(directory))
    if exclude:
        inherited.append(Ignore(absolute, "\n".join(exclude)))
    yield from _walk(str(top), absolute, inherited, failed, gitignore, os.path.realpath(absolute))


def _walk(
    shown: str,
    absolute: str,
    ignores: list[Ignore],
    failed: Callable[[str, OSError], None],
    gitignore: bool,
    top: str,
) -> Iterator[tuple[str, str]]:
    try:
        with os.scandir(absolute) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        failed(shown, error)
        return
    names = {entry.name for entry in found}
    if "pyvenv.cfg" in names:
        return
    if gitignore and ".gitignore" in names:
        ignores = ignores + _read_ignore(absolute)
    for entry in found:
        name = entry.name
        directory = entry.is_dir(follow_symlinks=False)
        if directory:
            if name in SKIPPED:
                continue
        elif os.path.splitext(name)[1] not in KINDS:
            continue
        path = f"{absolute}/{name}"
        if ignores and _ignored(path, directory, ignores):
            continue
        if directory:
            yield from _walk(os.path.join(shown, name), path, ignores, failed, gitignore, top)
        elif entry.is_file(follow_symlinks=False) or not _inside(path, top):
            yield os.path.join(shown, name), KINDS[os.path.splitext(name)[1]]


def _inside(link: str, top: str) -> bool:
    """Whether a link leads to something below ``top`` (met there by itself), or to no file at all."""
    target = os.path.realpath(link)
    return target.startswith(f"{top}/") or not os.path.isfile(target)


def _ignored(path: str, directory: bool, ignores: list[Ignore]) -> bool:
    for rules in reversed(ignores):
        verdict = rules.verdict(path, directory)
        if verdict is not None:
            return verdict
    return False


@cache
def _has_init(directory: str) -> bool:
    return os.path.exists(f"{directory}/__init__.py") or os.path.exists(f"{directory}/__init__.pyi")


def package_names(path: Path) -> list[str]:
    """Dotted names that the directory of ``path`` may have as a package, the likeliest first.

    A package begins at the topmost directory of an unbroken chain of ``__init__`` files, or above it (namespace
    packages), but not inside the chain.
    """
    directory = os.path.dirname(os.path.abspath(path))
    root = repository_root(Path(directory))
    parts = directory.split("/")
    top = len(parts)
    while top > 1 and _has_init("/".join(parts[:top])):
        top -= 1
    start = len(root.parts) if root is not None else max(1, top - 4)
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
