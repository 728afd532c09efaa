"""Finds the files under the given paths, as git would see them."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # see scout
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Final

    from .gitignore import Ignore

KINDS: Final = {
    ".py": "python", ".pyi": "python", ".ipynb": "notebook", ".md": "document", ".markdown": "document",
    ".rst": "document", ".yaml": "config", ".yml": "config", ".json": "config", ".toml": "config",
    ".sh": "shell", ".bash": "shell", ".zsh": "shell",
}  # fmt: skip
"""Kinds of files by their suffix; all others that are text are searched for old paths, and never edited."""
DATA: Final = frozenset(
    {
        ".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ico", ".svg", ".eps", ".pdf", ".ps",
        ".mp3", ".mp4", ".avi", ".mov", ".mkv", ".webm", ".wav", ".flac", ".ogg", ".ttf", ".otf", ".woff",
        ".woff2", ".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".lz4", ".7z", ".tar", ".rar", ".whl", ".egg",
        ".jar", ".so", ".o", ".a", ".obj", ".dll", ".dylib", ".exe", ".pyc", ".pyo", ".pyd", ".npy", ".npz", ".pt",
        ".pth", ".ckpt", ".bin", ".safetensors", ".onnx", ".pb", ".tflite", ".h5", ".hdf5", ".mat", ".pkl",
        ".pickle", ".joblib", ".db", ".sqlite", ".parquet", ".feather", ".arrow", ".tfrecord", ".lmdb", ".mdb",
        ".docx", ".xlsx", ".pptx", ".log", ".out", ".err", ".lock", ".lockb",
    }
)  # fmt: skip
"""Suffixes of data, of logs and of what a package manager locked, which nobody edits."""
LOCKED: Final = frozenset(
    ["package-lock.json", "npm-shrinkwrap.json", "pnpm-lock.yaml", "conda-lock.yml", "conda-lock.yaml", "go.sum"]
)
SKIPPED: Final = frozenset(
    {".git", ".hg", ".svn", ".venv", "venv", "node_modules", "site-packages", "__pycache__", ".tox", ".nox", ".eggs"}
    | {".mypy_cache", ".ruff_cache", ".pytest_cache", ".training-losses-codemod"}
)


def kind_of(name: str) -> str:
    """The kind of the file ``name``: one of those above, ``text``, or ``data``, which is not looked at."""
    suffix = name[max(name.rfind("."), 1) :]
    kind = KINDS.get(suffix, "text")
    nobodys = suffix.lower() in DATA or name in LOCKED or (kind == "text" and name.startswith(".git"))
    return "data" if nobodys else kind


def _kind_of_argument(path: str) -> str:
    """The kind of a file that was named, whatever it is called: Python where its first line says so."""
    suffix = os.path.splitext(path)[1]
    if suffix in KINDS or kind_of(os.path.basename(path)) == "data":
        return KINDS.get(suffix, "python")
    try:
        with open(path, "rb") as handle:
            first = handle.readline(200)
    except OSError:
        return "python"
    return "python" if first.startswith(b"#!") and b"python" in first else "text"


def _read_ignore(directory: str, name: str = ".gitignore") -> list[Ignore]:
    from .gitignore import Ignore

    try:
        with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as handle:
            return [Ignore(directory, handle.read())]
    except OSError:
        return []


def repository_root(path: Path) -> Path | None:
    """The directory above ``path`` that holds ``.git``."""
    from pathlib import Path

    root = root_of(os.path.abspath(path))
    return Path(root) if root is not None else None


def parents(path: str) -> list[str]:
    """The absolute ``path`` and the directories above it."""
    found = [path]
    while os.path.dirname(found[-1]) != found[-1]:
        found.append(os.path.dirname(found[-1]))
    return found


def root_of(path: str) -> str | None:
    """The repository that holds ``path``: the nearest directory with a ``.git``."""
    return next((d for d in parents(path) if os.path.exists(os.path.join(d, ".git"))), None)


def walk(
    top: str | os.PathLike[str],
    failed: Callable[[str, OSError], None],
    gitignore: bool = True,
    exclude: Sequence[str] = (),
) -> list[tuple[str, str]]:
    """``(path, kind)`` of every file below ``top`` (or ``top`` itself), in a stable order.

    Links are not followed. ``failed`` is told of directories that cannot be read.
    """
    shown = os.fspath(top)
    if not os.path.isdir(shown):
        return [(shown, _kind_of_argument(shown))]
    absolute = os.path.abspath(shown)
    root = root_of(absolute) if gitignore else None
    inherited: list[Ignore] = []
    if root is not None:
        inherited += _read_ignore(os.path.join(root, ".git", "info"), "exclude")
        for rules in inherited:
            rules.base = f"{root}/"
        for directory in reversed(parents(absolute)[1:]):
            if f"{directory}/".startswith(f"{root.rstrip('/')}/"):
                inherited += _read_ignore(directory)
    if exclude:
        from .gitignore import Ignore

        inherited.append(Ignore(absolute, "\n".join(exclude)))
    walker = _Walker(failed, gitignore, os.path.realpath(absolute))
    walker.visit(shown, absolute, inherited)
    return walker.found


class _Walker:
    def __init__(self, failed: Callable[[str, OSError], None], gitignore: bool, top: str) -> None:
        self.failed, self.gitignore, self.top = failed, gitignore, top
        self.found: list[tuple[str, str]] = []

    def visit(self, shown: str, absolute: str, ignores: list[Ignore]) -> None:
        try:
            with os.scandir(absolute) as entries:
                inside = sorted(((entry.name, entry) for entry in entries), key=_first)
        except OSError as error:
            self.failed(shown, error)
            return
        names = [name for name, _ in inside]
        if "pyvenv.cfg" in names:
            return
        if self.gitignore and ".gitignore" in names:
            ignores = ignores + _read_ignore(absolute)
        lead = "" if shown == "." else os.path.join(shown, "")
        for name, entry in inside:
            directory = entry.is_dir(follow_symlinks=False)
            if directory:
                if name in SKIPPED:
                    continue
            elif (kind := kind_of(name)) == "data":
                continue
            if ignores and _ignored(f"{absolute}/{name}", directory, ignores):
                continue
            if directory:
                self.visit(lead + name, f"{absolute}/{name}", ignores)
            elif entry.is_file(follow_symlinks=False) or not _inside(f"{absolute}/{name}", self.top):
                self.found.append((lead + name, kind))


def _first(pair: tuple[str, os.DirEntry[str]]) -> str:
    return pair[0]


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
