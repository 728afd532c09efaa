"""``codemod --write --verify COMMAND``: a write that is taken back if the program's numbers change."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .show import show
from .tree import copies
from .verify import DEVIATES, FAILED, Options, Session, VerifyError

__all__ = ["verified"]


def verified(
    path: str,
    command: Sequence[str],
    write: Callable[[], list[dict[str, Any]]],
    undo: Callable[[], None],
    catalogs: Sequence[str] = (),
) -> int:
    """Run ``command`` on a copy of ``path``, ``write``, run it on a copy of what was written, and compare.

    Returns:
        0: equal, the write stays. 1: a deviation, it was taken back. 2: before it the command could not be run, and
        nothing was written; or after it the command was killed, and the write was taken back.

    Raises:
        FileError: the write is refused.
    """
    options = Options(Path(path), command, catalogs=[Path(file) for file in catalogs])
    with tempfile.TemporaryDirectory(prefix="losses-verify-") as scratch:
        session = Session(options, Path(scratch))
        try:
            with copies(session.root, ["before"], session.scratch) as (before,):
                session.old(before)
                session.took({"findings": write()}, session.root)
                with copies(session.root, ["after"], session.scratch) as (after,):
                    data = session.new(after)
        except (VerifyError, TimeoutError) as error:
            if session.wrote:
                undo()
            data = {"verdict": "could not run", "exit_code": FAILED, "message": str(error), "places": [], "printed": []}
        except BaseException:
            if session.wrote:
                undo()
            raise
    code = int(data["exit_code"])
    show(data, "text", None, stderr=True)
    if code == DEVIATES:
        undo()
    return code
