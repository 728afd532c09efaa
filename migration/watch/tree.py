"""Copies of the user's tree, in which a command runs without touching it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..codemod.walk import SKIPPED

__all__ = ["LARGE", "copies", "copy_tree", "moved"]

LARGE = 64 << 20
"""Without git, larger files are linked."""
NEIGHBOURS = 1000
"""At most so many files and folders beside the tree are linked beside a copy."""


def _git(root: Path, *options: str) -> list[str] | None:
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(root), "ls-files", "-z", *options]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return [name for name in os.fsdecode(done.stdout).split("\0") if name]


def _put(source: Path, target: Path, *, link: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() or target.is_symlink():
        return
    if link:
        target.symlink_to(source.resolve(), target_is_directory=source.is_dir())
    elif source.is_symlink():
        goal = os.readlink(source)
        target.symlink_to(goal if not os.path.isabs(goal) else source.resolve())
    else:
        shutil.copy2(source, target)


def copy_tree(source: Path, target: Path) -> None:
    """Copy tracked and untracked files, link ignored ones; without git, copy all but what tools keep for themselves."""
    target.mkdir(parents=True)
    files = _git(source, "--cached", "--others", "--exclude-standard")
    if files is None:
        _copy_all(source, target)
        return
    for name in files:
        if (source / name).is_symlink() or (source / name).is_file():
            _put(source / name, target / name, link=False)
    for name in _git(source, "--others", "--ignored", "--exclude-standard", "--directory") or []:
        path = source / name
        if path.exists() and not SKIPPED.intersection(Path(name).parts):
            _put(path, target / name.rstrip("/"), link=True)
    if (source / ".git").exists():
        _put(source / ".git", target / ".git", link=True)


def _copy_all(source: Path, target: Path) -> None:
    for folder, folders, files in os.walk(source):
        here = target / os.path.relpath(folder, source)
        here.mkdir(exist_ok=True)
        linked = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        folders[:] = [name for name in folders if name not in SKIPPED and name not in linked]
        for name in [*files, *linked]:
            path = Path(folder, name)
            if path.is_symlink() or path.is_file():
                _put(path, here / name, link=not path.is_symlink() and path.stat().st_size > LARGE)


@contextlib.contextmanager
def copies(source: Path, names: Sequence[str], scratch: Path) -> Iterator[list[Path]]:
    """Copies of ``source`` in ``scratch``, which go away in the end. What lies beside ``source`` is linked beside each,
    so that paths like ``../data`` lead where they did."""
    made = [scratch / name / source.name for name in names]
    try:
        for path in made:
            copy_tree(source, path)
            if source.parent.parent != source.parent:
                _link_neighbours(source, path.parent)
        yield made
    finally:
        for path in made:
            shutil.rmtree(path.parent, ignore_errors=True)


def _link_neighbours(source: Path, place: Path) -> None:
    with contextlib.suppress(OSError):
        for neighbour in sorted(source.parent.iterdir())[:NEIGHBOURS]:
            if neighbour.name != source.name and neighbour.name not in SKIPPED:
                (place / neighbour.name).symlink_to(neighbour)


def moved(words: Sequence[str], source: Path, target: Path) -> list[str]:
    """The words of a command, with what lies in ``source`` looked for in ``target``."""
    old = str(source)
    return [
        str(target) + word[len(old) :] if word == old or word.startswith(f"{old}{os.sep}") else word for word in words
    ]
