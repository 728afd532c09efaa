"""Reading and writing: encodings, atomic replacement, the journal that takes a run back, uncommitted changes."""

from __future__ import annotations

import base64
import codecs
import contextlib
import hashlib
import json
import os
import stat
import subprocess
import tempfile
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from .errors import FileError
from .walk import repository_root

JOURNAL: Final = ".training-losses-codemod"


@dataclass(frozen=True)
class Encoded:
    """The text of a file and what is needed to write it back."""

    data: bytes
    text: str
    encoding: str
    mark: bytes

    def encode(self, text: str) -> bytes:
        """``text`` in the encoding of the file.

        Raises:
            FileError: it has characters that the encoding lacks.
        """
        try:
            return self.mark + text.encode(self.encoding)
        except UnicodeEncodeError as error:
            raise FileError("TL091", f"the result cannot be encoded: {error}") from error


def decode(data: bytes, python: bool = True) -> Encoded:
    """Decode as Python would (byte order mark, coding line, else UTF-8).

    Raises:
        FileError: it is not text in that encoding.
    """
    mark = codecs.BOM_UTF8 if data.startswith(codecs.BOM_UTF8) else b""
    try:
        encoding = tokenize.detect_encoding(BytesIO(data).readline)[0] if python else "utf-8"
        encoding = "utf-8" if encoding == "utf-8-sig" else encoding
        text = data[len(mark) :].decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        raise FileError("TL091", str(error).splitlines()[0]) from error
    if text.encode(encoding, "replace") != data[len(mark) :]:
        raise FileError("TL091", f"the text does not survive decoding as {encoding}")
    return Encoded(data, text, encoding, mark)


def read(path: str, limit: int | None = None) -> bytes:
    """The bytes of a file.

    Raises:
        FileError: it cannot be read, or is larger than ``limit``.
    """
    try:
        with open(path, "rb") as handle:
            data = handle.read() if limit is None else handle.read(limit + 1)
    except OSError as error:
        raise FileError("TL092", error.strerror or str(error)) from error
    if limit is not None and len(data) > limit:
        raise FileError("TL093", f"larger than {limit} bytes")
    return data


def check_writable(path: str) -> None:
    """Refuse links and read-only files.

    Raises:
        FileError: ``path`` is one.
    """
    try:
        status = os.lstat(path)
    except OSError as error:
        raise FileError("TL096", error.strerror or str(error)) from error
    if stat.S_ISLNK(status.st_mode):
        raise FileError("TL094", "a symbolic link is not replaced; run the codemod on its target")
    if not status.st_mode & 0o222 or not os.access(path, os.W_OK):
        raise FileError("TL094", "the file is read-only")


def replace(path: str, new: bytes, expected: bytes | None = None) -> None:
    """Write ``new`` so that at any moment the file holds either the old or the new bytes.

    Raises:
        FileError: the file no longer holds ``expected``, or the operating system refuses.
    """
    temporary = ""
    try:
        status = os.lstat(path)
        handle, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=os.path.dirname(path) or ".")
        with os.fdopen(handle, "wb") as stream:
            stream.write(new)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, stat.S_IMODE(status.st_mode))
        with contextlib.suppress(OSError, AttributeError):
            os.chown(temporary, status.st_uid, status.st_gid)
        if expected is not None and Path(path).read_bytes() != expected:
            raise FileError("TL096", "somebody else changed the file during the run; it was left")
        os.replace(temporary, path)
        temporary = ""
    except OSError as error:
        raise FileError("TL096", error.strerror or str(error)) from error
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


# -- uncommitted changes --------------------------------------------------------------------------------------------


def uncommitted(paths: Sequence[str]) -> list[str]:
    """Those of ``paths`` that git knows as changed or new; empty outside a repository or without git."""
    by_root: dict[Path, list[str]] = {}
    for path in paths:
        root = repository_root(Path(path).parent)
        if root is not None:
            by_root.setdefault(root, []).append(path)
    dirty: list[str] = []
    for root, members in by_root.items():
        command = ["git", "-c", "core.fsmonitor=false", "-C", str(root), "status", "--porcelain", "-z", "--no-renames"]
        try:
            done = subprocess.run(
                [*command, "--ignored=traditional", "--untracked-files=all"], capture_output=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        entries = {e[3:] for e in os.fsdecode(done.stdout).split("\0") if len(e) > 3}
        real = os.path.realpath(root)
        for member in members:
            relative = os.path.relpath(os.path.realpath(member), real)
            if relative in entries or any(e.endswith("/") and relative.startswith(e) for e in entries):
                dirty.append(member)
    return dirty


# -- journal --------------------------------------------------------------------------------------------------------


def journal_directory(path: Path) -> Path:
    """Where the journal of runs over ``path`` lies: beside ``.git``, else in ``path`` itself."""
    start = path if path.is_dir() else path.parent
    return (repository_root(start) or Path(os.path.abspath(start))) / JOURNAL


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold the lock of ``directory``; two writing runs exclude each other.

    Raises:
        FileError: another run holds it, or the directory cannot be made.
    """
    try:
        directory.mkdir(exist_ok=True)
        (directory / ".gitignore").write_text("*\n", encoding="utf-8")
        stream = open(directory / "lock", "a", encoding="utf-8")  # noqa: SIM115  # held over the yield
    except OSError as error:
        raise FileError("TL096", f"cannot keep a journal in {directory}: {error.strerror}") from error
    with stream:
        try:
            import fcntl
        except ImportError:  # Windows: the comparison before each replacement has to do
            yield
            return
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FileError("TL096", f"another run is writing (lock {directory / 'lock'})") from error
        yield


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_journal(directory: Path, changes: Sequence[tuple[str, bytes, bytes]]) -> None:
    """Note ``(path, old, new)`` before anything is written, so that also an interrupted run can be taken back."""
    entries = [
        {
            "path": os.path.abspath(p),
            "old": base64.b64encode(old).decode(),
            "before": _digest(old),
            "after": _digest(new),
        }
        for p, old, new in changes
    ]
    target = directory / "journal.json"
    temporary = directory / "journal.json.new"
    temporary.write_text(json.dumps({"version": 1, "files": entries}, indent=1), encoding="utf-8")
    os.replace(temporary, target)


def undo(directory: Path) -> tuple[list[str], list[str]]:
    """Take the last write back. Returns the restored files and those that somebody changed since.

    Raises:
        FileError: there is no journal.
    """
    target = directory / "journal.json"
    try:
        journal: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError("TL092", f"no journal of a last write in {directory}") from error
    restored, changed = [], []
    for entry in journal["files"]:
        path = entry["path"]
        try:
            current = Path(path).read_bytes()
        except OSError:
            changed.append(path)
            continue
        if _digest(current) == entry["before"]:
            continue
        if _digest(current) != entry["after"]:
            changed.append(path)
            continue
        replace(path, base64.b64decode(entry["old"]), current)
        restored.append(path)
    if not changed:
        target.unlink()
    return restored, changed
