"""Files: load, plan, write all of it or nothing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import torch
from torch import Tensor

from ..catalog import Catalog
from ..console import brief
from .memory import CHUNK, Mapped, Stream, tensors_of
from .model import CheckpointError, Plan, rebuilt
from .names import parse_assignments, plan

_INDEX: Final = ".index.json"
_TEMPORARY: Final = ".training-losses-"
_DTYPES: Final = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass
class _Loaded:
    """The content of one file; of a sharded one, of all its files together."""

    content: Any
    metadata: dict[str, str]
    shards: dict[str, str]
    """Key -> file name, of a sharded checkpoint."""


def _safetensors() -> Any:
    try:
        import safetensors
    except ImportError as error:
        raise CheckpointError("safetensors files need the package safetensors: pip install safetensors") from error
    return safetensors


# --- reading


def _load(path: Path, trust: bool, mapped: Mapped) -> _Loaded:
    if path.is_dir():
        raise CheckpointError(_of_folder(path))
    if not path.is_file():
        raise CheckpointError(f"FILE {str(path)!r} does not exist or is no file")
    if not path.name.endswith(_INDEX):
        return _Loaded(*_load_one(path, trust, mapped), {})
    try:
        shards = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(shards.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: no index of a sharded checkpoint: {error!r}") from error
    content: dict[str, Any] = {}
    for name in names:
        if not (path.parent / name).is_file():
            raise CheckpointError(f"{path}: names the file {name}, which does not exist")
        part, _ = _load_one(path.parent / name, trust, mapped)
        content |= part
    return _Loaded(content, {}, dict(shards))


def _of_folder(path: Path) -> str:
    if (path / ".metadata").is_file():
        tool = "python -m torch.distributed.checkpoint.format_utils"
        return (
            f"{path}: a folder of torch.distributed.checkpoint; make one file of it with '{tool} dcp_to_torch {path} "
            f"FILE.pt', convert that, and go back with '{tool} torch_to_dcp FILE.migrated.pt FOLDER'"
        )
    index = next(iter(sorted(path.glob(f"*{_INDEX}"))), None)
    return f"{path}: a folder, and no file{f'; its checkpoint is {index}' if index else ''}"


def _load_one(path: Path, trust: bool, mapped: Mapped) -> tuple[Any, dict[str, str]]:
    """The content of a file, mapped where its format allows, and the metadata of a safetensors file."""
    try:
        if path.suffix == ".safetensors":
            with _safetensors().safe_open(path, framework="pt") as file:
                content: Any = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # no mapping
                mapped.add(content)
                return content, file.metadata() or {}
        from ..shims import install

        install()  # pickles name the old paths
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                content = torch.load(path, map_location="cpu", weights_only=not trust, mmap=True)
            except RuntimeError as error:
                if "mmap" not in str(error):
                    raise
                return torch.load(path, map_location="cpu", weights_only=not trust), {}
        mapped.add(content)
        return content, {}
    except CheckpointError:
        raise
    except Exception as error:
        blocked = re.search(r"GLOBAL (\S+) was not an allowed", str(error))
        hint = f"it holds an object of {blocked[1]}" if blocked else brief(error)
        if blocked and not trust:
            hint += "; --trust loads pickled objects, which can run code, so use it for your own files only"
        raise CheckpointError(f"{path}: cannot be loaded: {hint}") from error


# --- writing


def _as_bytes(tensor: Tensor) -> Any:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _parts(tensor: Tensor) -> Iterator[Any]:
    """The bytes of ``tensor`` in row-major order, in parts."""
    if tensor.dim() < 2:
        flat = tensor.reshape(-1)
        step = max(1, CHUNK // tensor.element_size())
    else:
        flat, step = tensor, max(1, CHUNK // max(1, tensor[:1].numel() * tensor.element_size()))
    for start in range(0, len(flat), step):
        yield _as_bytes(flat[start : start + step])


def _save_safetensors(content: Any, metadata: Mapping[str, str], file: IO[bytes], mapped: Mapped, path: Path) -> None:
    """In the order of the largest type first, as the format asks for, without a second copy in memory."""
    odd = [k for k, v in content.items() if not isinstance(k, str) or not isinstance(v, Tensor) or v.is_sparse]
    odd += [k for k, v in content.items() if isinstance(v, Tensor) and v.dtype not in _DTYPES]
    if odd:
        raise CheckpointError(
            f"--output {path}: safetensors holds named tensors and nothing else, found "
            f"{', '.join(f'{k!r} ({type(content[k]).__name__})' for k in odd[:5])}; choose an --output that ends in .pt"
        )
    places: dict[int, str] = {}
    for key, tensor in content.items():
        other = places.setdefault(tensor.data_ptr(), key) if tensor.numel() else key
        if other != key:
            raise CheckpointError(f"--output {path}: {other!r} and {key!r} share memory, which safetensors cannot hold")
    order = sorted(content, key=lambda key: (-content[key].element_size(), key))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for key in order:
        size = content[key].numel() * content[key].element_size()
        header[key] = {
            "dtype": _DTYPES[content[key].dtype],
            "shape": list(content[key].shape),
            "data_offsets": [end, end + size],
        }
        end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    stream = Stream(file, mapped)
    stream.write(len(text).to_bytes(8, "little") + text)
    for key in order:
        for part in _parts(content[key]):
            stream.write(part)


def _materialised(value: Any, kept: set[int], mapped: Mapped, folder: Path) -> Any:
    """``value`` with the tensors that the conversion turned round laid out anew."""
    if isinstance(value, Tensor):
        turned = id(value) not in kept and not value.is_contiguous()
        return mapped.contiguous(value, folder) if turned and value.numel() else value
    if isinstance(value, dict):
        items = {key: _materialised(item, kept, mapped, folder) for key, item in value.items()}
        return value if all(items[key] is value[key] for key in items) else rebuilt(value, items)
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        parts = [_materialised(item, kept, mapped, folder) for item in value]
        return value if all(a is b for a, b in zip(parts, value, strict=True)) else type(value)(parts)
    return value


def _running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _clean(folder: Path) -> None:
    """Remove what runs that were killed left in ``folder``."""
    for path in folder.glob(f"{_TEMPORARY}*.tmp"):
        number = path.name.split(".")[-2]
        if os.name == "posix" and number.isdigit() and not _running(int(number)):
            with contextlib.suppress(OSError):
                path.unlink()


def _check_target(target: Path, source: Path, force: bool) -> None:
    """Only a regular file is ever replaced, and only with ``force``.

    Raises:
        CheckpointError: says what stands at ``target``.
    """
    try:
        status = os.lstat(target)
    except OSError:
        if not target.parent.is_dir():
            raise CheckpointError(f"--output {target}: the folder {target.parent} does not exist") from None
        return
    if target.exists() and target.samefile(source):
        raise CheckpointError(f"--output {target}: that is FILE itself, which stays as it is")
    if not stat.S_ISREG(status.st_mode):
        kind = "a link" if stat.S_ISLNK(status.st_mode) else "a folder" if target.is_dir() else "no regular file"
        raise CheckpointError(f"--output {target}: that is {kind}, which is not replaced")
    if not force:
        raise CheckpointError(f"{target} exists; choose another --output, or --force")


def _write(content: Any, metadata: Mapping[str, str], target: Path, mode: int, mapped: Mapped) -> str:
    """Write to a temporary file beside ``target``; returns its name."""
    handle, name = tempfile.mkstemp(prefix=_TEMPORARY, suffix=f".{os.getpid()}.tmp", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            if target.suffix == ".safetensors":
                _save_safetensors(content, metadata, file, mapped, target)
            else:
                torch.save(content, Stream(file, mapped))  # type: ignore[arg-type]  # all that it uses is there
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, mode)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return name


def default_output(path: Path, reverse: bool = False) -> Path:
    """``model.pt`` -> ``model.migrated.pt`` (``model.old.pt`` in reverse)."""
    word = "old" if reverse else "migrated"
    if path.name.endswith(_INDEX):
        stem, dot, suffix = path.name.removesuffix(_INDEX).rpartition(".")
        return path.with_name(f"{stem}.{word}{dot}{suffix}{_INDEX}")
    return path.with_suffix(f".{word}{path.suffix}")


def _files(
    converted: Any, loaded: _Loaded, made: Plan, target: Path, reverse: bool
) -> list[tuple[Path, Any, Mapping[str, str]]]:
    """What is written: one file, or the shards of a sharded checkpoint."""
    if not loaded.shards:
        return [(target, converted, loaded.metadata)]
    shard_of = dict(loaded.shards)
    for change in made.changes:
        for new in change.new.split(" + "):
            shard_of.setdefault(new, loaded.shards.get(change.old, ""))
    parts: dict[str, dict[str, Any]] = {name: {} for name in sorted(set(loaded.shards.values()))}
    first = next(iter(parts))
    for key, value in converted.items():
        parts[shard_of.get(key) or first][key] = value
    return [
        (target.parent / default_output(Path(name), reverse).name, part, {"format": "pt"})
        for name, part in parts.items()
    ]


def _index(files: Sequence[tuple[Path, Any, Mapping[str, str]]]) -> bytes:
    size = sum(v.numel() * v.element_size() for _, part, _ in files for v in tensors_of(part))
    weights = {key: path.name for path, part, _ in files for key in part}
    return json.dumps({"metadata": {"total_size": size}, "weight_map": weights}, indent=2).encode()


def _write_all(files: Sequence[tuple[Path, Any, Mapping[str, str]]], target: Path, mode: int, mapped: Mapped) -> None:
    """All temporary files, then all names, an index last."""
    names: list[tuple[str, Path]] = []
    try:
        for path, content, metadata in files:
            names.append((_write(content, metadata, path, mode, mapped), path))
        if target not in [path for path, _, _ in files]:
            handle, name = tempfile.mkstemp(prefix=_TEMPORARY, suffix=f".{os.getpid()}.tmp", dir=target.parent)
            names.append((name, target))
            with os.fdopen(handle, "wb") as file:
                file.write(_index(files))
            os.chmod(name, mode)
        for name, path in list(names):
            os.replace(name, path)
    except BaseException as error:
        for name, _ in names:
            Path(name).unlink(missing_ok=True)
        if isinstance(error, (OSError, RuntimeError)):
            raise CheckpointError(f"{target}: cannot be written: {error}") from error
        raise


def convert_file(
    path: Path,
    catalog: Catalog,
    *,
    output: Path | None = None,
    write: bool = False,
    losses: Sequence[str] = (),
    skip: Sequence[str] = (),
    trust: bool = False,
    reverse: bool = False,
    force: bool = False,
    drop_optimizer: bool = False,
    order: str | None = None,
) -> tuple[Plan, Path | None]:
    """Plan the conversion of a file and, with ``write``, write the result to a new file, all of it or nothing.

    Tensors stay in the mapped file, so that it may be larger than memory.

    Args:
        path: a file of ``torch.save``, a ``.safetensors`` file, or the ``.index.json`` of a sharded checkpoint.
        catalog: the rows.
        output: the file to write; its suffix says the format.
        write: write, and not only plan.
        losses: ``PREFIX=OLD.NAME``, see ``parse_assignments``.
        skip: prefixes that are left alone.
        trust: load pickled objects.
        reverse: back to the old keys.
        force: replace an existing file.
        drop_optimizer, order: see ``plan``.

    Returns:
        The plan, and the file that was written (``None``: nothing to do, problems, or a dry run).

    Raises:
        CheckpointError: the file cannot be read or written, ``losses`` are wrong, or ``output`` exists.
    """
    assignments = parse_assignments(catalog, losses)
    with Mapped() as mapped:
        loaded = _load(path, trust, mapped)
        try:
            made, converted = plan(
                loaded.content,
                catalog,
                assignments=assignments,
                skip=skip,
                reverse=reverse,
                drop_optimizer=drop_optimizer,
                order=order,
                views=True,
            )
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
        if not write or made.problems or not made.changes:
            return made, None
        target = output or default_output(path, reverse)
        if loaded.shards and not target.name.endswith(_INDEX):
            raise CheckpointError(f"--output {target}: of a sharded checkpoint the index is named, NAME{_INDEX}")
        files = _files(converted, loaded, made, target, reverse)
        for place in dict.fromkeys([target, *(file for file, _, _ in files)]):
            _check_target(place, path, force)
        _clean(target.parent)
        kept = {id(tensor) for tensor in tensors_of(loaded.content)}
        files = [(p, _materialised(part, kept, mapped, target.parent), m) for p, part, m in files]
        _write_all(files, target, path.stat().st_mode & 0o777, mapped)
        return made, target
