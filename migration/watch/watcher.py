"""Between the wrapped losses and the recorder: nothing that goes wrong with watching reaches the program."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .recorder import Call, Recorder
from .tape import Tape, unseen

__all__ = ["RecordingWatcher"]


def _traced() -> bool:
    """Whether a mode of torch, a transform or a capture is active: a watcher would become part of what it makes."""
    if torch._C._len_torch_dispatch_stack():
        return True
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    return torch.cuda._initialized and torch.cuda.is_current_stream_capturing()


class RecordingWatcher:
    """The watcher that records."""

    def __init__(self, tape: Tape, root: Path, nudge: float = 0.0) -> None:
        self.recorder = Recorder(tape, root, nudge=nudge)

    def build(self, entry: Sequence[str], init: Callable[..., Any], args: Any, kwargs: Any) -> None:
        """Run a constructor and note where."""
        building = None
        try:
            building = self.recorder.building(entry, init, args, kwargs, sys._getframe(3))
        except Exception as error:
            unseen(self.recorder.tape, error)
        made = False
        try:
            init(*args, **kwargs)
            made = True
        finally:
            if building is not None:
                try:
                    building.done(made)
                except Exception as error:
                    unseen(self.recorder.tape, error)

    def call(self, entry: Sequence[str], original: Callable[..., Any], method: bool, args: Any, kwargs: Any) -> Any:
        """Run a call and write what went in and came out."""
        call = None
        try:
            if not _traced():
                subject, rest = (args[0], args[1:]) if method else (None, args)
                with np.errstate(all="ignore"):
                    call = self.recorder.calling(entry, subject, original, rest, kwargs)
        except Exception as error:
            unseen(self.recorder.tape, error)
        if call is None:
            return original(*args, **kwargs)
        try:
            result = original(*args, **kwargs)
        except BaseException as error:
            self._failed(call, error)
            raise
        try:
            with np.errstate(all="ignore"):
                call.done(result)
        except Exception as error:
            unseen(self.recorder.tape, error)
        return result

    def _failed(self, call: Call, error: BaseException) -> None:
        try:
            call.failed(error)
        except Exception as own:
            unseen(self.recorder.tape, own)
