"""Files: load, plan, write all of it or nothing."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..catalog import Catalog
from ..console import brief
from .model import CheckpointError, Plan
from .names import parse_assignments, plan


def _safetensors() -> Any:
    try:
        import safetensors
        import safetensors.torch
    except ImportError as error:
        raise CheckpointError("safetensors files need the package safetensors: pip install safetensors") from error
    return safetensors


def _load(path: Path, trust: bool) -> tuple[Any, dict[str, str] | None]:
    """The content of the file, and the metadata of a safetensors file."""
    hint = ""
    try:
        if path.suffix == ".safetensors":
            with _safetensors().safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118  # no mapping
        from ..shims import install

        install()  # pickles name the old paths
        hint = "" if trust else "; --trust loads pickled objects, which can run code, so use it for your own files only"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.load(path, map_location="cpu", weights_only=not trust), None
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{path}: cannot be loaded: {brief(error)}{hint}") from error


def _save(content: Any, path: Path, metadata: dict[str, str] | None) -> None:
    if metadata is None:
        torch.save(content, path)
    else:
        _safetensors().torch.save_file({k: v.contiguous() for k, v in content.items()}, path, metadata or None)
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def default_output(path: Path, reverse: bool = False) -> Path:
    """``model.pt`` -> ``model.migrated.pt`` (``model.old.pt`` in reverse)."""
    return path.with_suffix(f".{'old' if reverse else 'migrated'}{path.suffix}")


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
) -> tuple[Plan, Path | None]:
    """Plan the conversion of a file and, with ``write``, write the result to a new file, all of it or nothing.

    Returns:
        The plan, and the file that was written (``None``: nothing to do, problems, or a dry run).

    Raises:
        CheckpointError: the file cannot be read or written, ``losses`` are wrong, or ``output`` exists.
    """
    if not path.is_file():
        raise CheckpointError(f"FILE {str(path)!r} does not exist or is no file")
    assignments = parse_assignments(catalog, losses)
    data, metadata = _load(path, trust)
    try:
        made, converted = plan(
            data, catalog, assignments=assignments, skip=skip, reverse=reverse, drop_optimizer=drop_optimizer
        )
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if not write or made.problems or not made.changes:
        return made, None
    target = output or default_output(path, reverse)
    if target.exists() and target.samefile(path):
        raise CheckpointError(f"--output {target}: that is FILE itself, which stays as it is")
    if target.exists() and not force:
        raise CheckpointError(f"{target} exists; choose another --output, or --force")
    if not target.parent.is_dir():
        raise CheckpointError(f"--output {target}: the folder {target.parent} does not exist")
    name = ""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        _save(converted, Path(name), metadata)
        os.chmod(name, path.stat().st_mode & 0o777)
        os.replace(name, target)
    except BaseException as error:
        if name:
            Path(name).unlink(missing_ok=True)
        if isinstance(error, (OSError, RuntimeError)):
            raise CheckpointError(f"{target}: cannot be written: {error}") from error
        raise
    return made, target
