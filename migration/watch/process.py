"""Starts the recorder in this process, if the environment asks for it. Cheap until a watched module is imported."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from .attach import attach_module
from .imports import AfterImport
from .tape import Tape, open_tape, unseen

__all__ = ["ENVIRONMENT", "PLAN", "environment", "install", "prepare"]

ENVIRONMENT = "TRAINING_LOSSES_WATCH"
"""Names the folder that ``prepare`` has made; every interpreter that sees it records."""
PLAN = "watch.json"

_state: dict[str, Any] = {}


def prepare(folder: Path, root: Path, targets: Mapping[str, Any], *, nudge: float = 0.0) -> None:
    """Make ``folder`` ready for the logs of all processes that run on the tree ``root``.

    With ``nudge`` the gradients that losses hand on are changed by so much (relative): a run that shows how far the
    program itself carries differences of that size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plan = {"root": str(root.resolve()), "targets": targets, "nudge": nudge}
    (folder / PLAN).write_text(json.dumps(plan), encoding="utf-8")


def install(folder: str | None = None) -> None:
    """Record this process into ``folder`` (default: what the environment says). Calling it again does nothing."""
    folder = folder or os.environ.get(ENVIRONMENT)
    if not folder or _state:
        return
    try:
        plan = json.loads((Path(folder) / PLAN).read_text(encoding="utf-8"))
        tape = open_tape(Path(folder))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"training-losses: the run is not recorded: {error}\n")
        return
    targets = plan["targets"]

    def imported(module: ModuleType) -> None:
        if "torch" not in sys.modules:
            return
        try:
            if "watcher" not in _state:
                from .watcher import RecordingWatcher

                _state["watcher"] = RecordingWatcher(_state["tape"], Path(plan["root"]), plan.get("nudge", 0.0))
            attach_module(module, targets.get(module.__name__) or _by_alias(targets, module), _state["watcher"])
        except Exception as error:
            unseen(_state["tape"], error)

    _state.update(tape=tape, folder=Path(folder))
    sys.meta_path.insert(0, AfterImport(targets, imported))
    for name in targets:
        if name in sys.modules:
            imported(sys.modules[name])
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forked)
    atexit.register(_end)


def _by_alias(targets: Mapping[str, Any], module: ModuleType) -> Mapping[str, Any]:
    """The names of a module that goes by another name than the one it was asked for by."""
    return next((names for name, names in targets.items() if sys.modules.get(name) is module), {})


def _forked() -> None:
    with contextlib.suppress(Exception):
        tape: Tape = _state["tape"]
        tape.close()
        _state["tape"] = open_tape(_state["folder"], tape.path.name)
        if "watcher" in _state:
            _state["watcher"].recorder.after_fork(_state["tape"])


def _end() -> None:
    with contextlib.suppress(Exception):
        if "watcher" in _state:
            _state["watcher"].recorder.end()
        _state["tape"].write(json.dumps({"k": "e"}))


def environment(folder: Path | None, *, shims: bool = True) -> dict[str, str]:
    """The environment of a command whose Python processes record into ``folder`` and know the old paths.

    Where the hook of the wheel is missing (a checkout that is not installed), a ``sitecustomize`` stands in.
    """
    from ..shims import ENVIRONMENT as SHIMS

    made = {**os.environ}
    made.pop(ENVIRONMENT, None)
    made.pop(SHIMS, None)
    if shims:
        made[SHIMS] = "1"
    if folder is not None:
        made[ENVIRONMENT] = str(folder)
    here = Path(__file__).resolve()
    places = [str(here.parent / "_hook")]
    checkout = here.parents[2] / "tools" / "checkout"  # one that is not installed is found through PYTHONPATH
    if checkout.exists():
        places.append(str(checkout))
    given = [place for place in made.get("PYTHONPATH", "").split(os.pathsep) if place and place not in places]
    made["PYTHONPATH"] = os.pathsep.join([*given, *places])
    return made
