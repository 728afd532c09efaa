"""Writes down what every watched loss of this process does, without changing it.

One file per process, one JSON object per line, each written with a single ``write`` at once: a process that is killed
loses nothing but what an accelerator has not answered yet. ``log`` reads the files.

* ``p`` the process; ``s`` a place: where a loss is built (or a function called); ``h`` the names of what calls hold;
* ``c`` a call: ``s`` place, ``n`` its number there, ``q`` its number in the process, ``u`` the call that it happened
  inside of, ``h`` names, ``z`` shapes, ``d`` the numbers (float64, base64), ``t`` microseconds;
* ``g`` a gradient that arrived at an input or at an entry of the result: its norm;
* ``m`` peak memory of a repeated call; ``x`` an exception, or what could not be seen; ``e`` the end, with all counts.

The first ``EACH`` calls of a place and then every 16th are written in full, the others in brief: norms of the inputs
and the numbers of the result. Beyond ``FULL`` calls every second one is written, after twice as many every fourth, and
so on; the file ends with a note at ``BYTES``.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import sys
import threading
import time
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from . import prints
from .places import Places
from .tape import Tape

__all__ = ["FULL", "Call", "Recorder", "sampled"]

EACH = 32
FULL = 4096
_LEAVES = 64
_TEXT = 80


def sampled(number: int) -> bool:
    """Whether call ``number`` of a place is written; both runs of a comparison choose the same ones."""
    return number < FULL or number % (1 << (number // FULL).bit_length()) == 0


def in_full(number: int) -> bool:
    """Whether the line of call ``number`` has projections, state and gradients."""
    return number < EACH or number % 16 == 0


class _Nested(threading.local):
    """What of this thread is going on: the objects under construction, the calls."""

    def __init__(self) -> None:
        self.building: list[tuple[int, int]] = []
        self.calling: list[tuple[int, int]] = []


class _Subject:
    """What is known of one loss object; it dies with it."""

    __slots__ = ("attributes", "dicts", "prints", "ref", "site")

    def __init__(self, site: int, ref: Any) -> None:
        self.site = site
        self.ref = ref
        self.prints: dict[str, tuple[tuple[int, int, int], bytes]] = {}
        self.dicts: list[tuple[str, Any, Any]] | None = None
        self.attributes: dict[str, Any] = {}


class _Parts:
    """Names and numbers of one call, on the way to a line."""

    __slots__ = ("brief", "device", "names", "numbers", "shapes")

    def __init__(self, *, brief: bool = False) -> None:
        self.brief = brief
        self.names: list[tuple[str, str, str, str]] = []
        self.numbers: list[Any] = []
        self.shapes: list[str] = []
        self.device: Any = None


class Recorder:
    """One per process."""

    def __init__(self, tape: Tape, root: Path, *, nudge: float = 0.0) -> None:
        self.tape = tape
        self.nudge = nudge
        self.root = f"{root.resolve()}{os.sep}"
        self.places = Places(root)
        self.nested = _Nested()
        self.sites: dict[tuple[str, int, int, str], int] = {}
        self.lines: list[dict[str, Any]] = []
        self.at_place: dict[tuple[str, int, str], int] = {}
        self.calls: list[Any] = []
        self.numbers = itertools.count()
        self.subjects: dict[int, _Subject] = {}
        self.schemas: dict[Any, int] = {}
        self.parameters: dict[Any, tuple[str, ...]] = {}
        self.waiting: list[tuple[Any, Any, str]] = []
        self.gradients: list[str] = []
        self.written: set[tuple[str, int]] = set()

    def after_fork(self, tape: Tape) -> None:
        """The child of a fork writes a file of its own; what its lines refer to is written again when it is needed."""
        self.waiting, self.gradients = [], []
        self.written = set()
        self.tape = tape

    # --- places -------------------------------------------------------------------------------------------------------

    def _site(self, kind: str, entry: Sequence[str], place: tuple[str, int], **more: Any) -> int:
        file, line = place
        counted = (file, line, entry[1])
        nth = self.at_place.get(counted, 0) if kind == "built" else 0
        key = (file, line, nth, f"{kind} {entry[1]} {more.get('inside', '')}")
        site = self.sites.get(key)
        if site is None:
            site = self.sites[key] = len(self.lines)
            self.calls.append(itertools.count())
            self.lines.append({"kind": kind, "side": entry[0], "what": entry[1], "file": file, "line": line,
                               "nth": nth, "code": self._code(file, line), **more})  # fmt: skip
        if kind == "built":
            self.at_place[counted] = nth + 1
        return site

    def _code(self, file: str, line: int) -> str:
        import linecache

        path = file if os.path.isabs(file) or file.startswith("<") else self.root + file
        return linecache.getline(path, line).strip()[:200]

    def _need(self, site: int) -> None:
        if ("s", site) not in self.written:
            self.written.add(("s", site))
            self.tape.write(json.dumps({"k": "s", "i": site, **self.lines[site]}))

    # --- construction -------------------------------------------------------------------------------------------------

    def building(
        self, entry: Sequence[str], init: Any, args: Sequence[Any], kwargs: Mapping[str, Any], frame: FrameType | None
    ) -> _Building | None:
        """Note that ``args[0]`` is being built; ``None`` if a class below it has said so already."""
        subject, inside = args[0], self.nested.building
        if inside and inside[-1][0] == id(subject):
            return None
        made = _Building(self, entry, subject, frame)
        given = {**dict(zip(self._names(init)[1:], args[1:], strict=False)), **kwargs}
        made.line["given"] = {name: _json(value) for name, value in given.items()}
        return made

    def _forget(self, key: int) -> None:
        self.subjects.pop(key, None)

    def _know(self, subject: Any, site: int) -> _Subject:
        key = id(subject)
        try:
            ref = weakref.ref(subject, lambda _, key=key: self._forget(key))  # type: ignore[misc]  # a default binds
        except TypeError:
            ref = None
        known = self.subjects[key] = _Subject(site, ref)
        return known

    # --- calls --------------------------------------------------------------------------------------------------------

    def subject_of(self, entry: Sequence[str], subject: Any, frame: FrameType | None) -> _Subject:
        """What is known of a loss; one that was copied, loaded or replicated gets the place of its first call."""
        known = self.subjects.get(id(subject))
        if known is not None and (known.ref is None or known.ref() is subject):
            return known
        return self._know(subject, self._site("copied", entry, self.places.of(frame)))

    def calling(
        self, entry: Sequence[str], subject: Any, signature: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Call | None:
        """Begin to record a call; ``None`` if it is not to be written."""
        stack = self.nested.calling
        if subject is not None and stack and stack[-1][0] == id(subject):
            return None  # a class calls the one that it is derived from
        frame = sys._getframe(2)
        if subject is None:
            known = None
            # by another loss, or by this project itself, in a backward pass for instance
            inside = bool(stack) or self.places.ours(sys._getframe(4))
            place = ("<inside>", 0) if inside else self.places.of(frame)
            site = self._site("called", entry, place, **({"inside": 1} if inside else {}))
        else:
            known = self.subject_of(entry, subject, frame)
            site = known.site
        number = next(self.calls[site])
        if not sampled(number) or self.tape.full:
            return None
        return Call(self, site, number, known, subject, (self._names(signature), args, kwargs))

    def _names(self, signature: Any) -> tuple[str, ...]:
        names = self.parameters.get(signature)
        if names is None:
            import inspect

            names = tuple(inspect.signature(signature).parameters)
            self.parameters[signature] = names
        return names

    # --- numbers ------------------------------------------------------------------------------------------------------

    def add(self, parts: _Parts, role: str, name: str, value: Any, depth: int = 0) -> None:
        """Take up one value: numbers as they are, tensors by their print, texts in the names."""

        if isinstance(value, torch.Tensor):
            if len(parts.names) < _LEAVES:
                kind = "v" if not value.dim() else "n" if parts.brief else "p"
                parts.names.append((role, name, kind, str(value.dtype)[6:]))
                if value.dim():
                    parts.shapes.append("x".join(map(str, value.shape)))
                self._numbers(parts, value)
        elif isinstance(value, (bool, int, float)):
            if len(parts.names) < _LEAVES:
                parts.names.append((role, name, "v", type(value).__name__))
                parts.numbers.append(np.array((float(value),)))
        elif isinstance(value, Mapping) and depth < 3:
            for key in dict.keys(value) if isinstance(value, dict) else value:
                item = dict.__getitem__(value, key) if isinstance(value, dict) else value[key]
                self.add(parts, role, f"{name}.{key}" if name else str(key), item, depth + 1)
        elif isinstance(value, (list, tuple)) and len(value) > 8 and not isinstance(value[0], torch.Tensor):
            # names of samples and their like: one number that changes with any of them and with their order
            parts.names.append((role, name, "k", f"{type(value[0]).__name__}s"))
            parts.shapes.append(str(len(value)))
            parts.numbers.append(np.array((float(zlib.crc32(repr(value).encode(errors="replace"))),)))
        elif isinstance(value, (list, tuple)) and depth < 3:
            for key, item in enumerate(value):
                self.add(parts, role, f"{name}.{key}" if name else str(key), item, depth + 1)
        elif len(parts.names) < _LEAVES:
            text = value[:_TEXT] if isinstance(value, str) else "None" if value is None else type(value).__name__
            parts.names.append((role, name, "x", text))

    @staticmethod
    def _numbers(parts: _Parts, value: Any) -> None:
        if value.device.type != "cpu":
            parts.device = value.device
            made = value.detach().reshape(1) if not value.dim() else prints.on_device(value, brief=parts.brief)
            parts.numbers.append(made.double())
        elif not value.dim():
            parts.numbers.append(prints.values_of(value))
        elif parts.brief:
            parts.numbers.append(np.array((prints.norm(prints.values_of(value)),)))
        else:
            parts.numbers.append(prints.print_tensor(value))

    def packed(self, parts: _Parts, rest: str) -> None:
        """Write ``rest`` with the numbers; those of an accelerator when they have arrived."""

        if parts.device is None:
            self.finish(np.concatenate(parts.numbers, dtype=np.float64) if parts.numbers else np.zeros(0), rest)
            return
        with torch.no_grad():
            made = torch.cat([
                n if isinstance(n, torch.Tensor) else torch.from_numpy(n.astype(np.float64)).to(parts.device)
                for n in parts.numbers
            ])  # fmt: skip
        if parts.device.type != "cuda":
            self.finish(made.cpu().numpy(), rest)
            return
        host = torch.empty(made.shape, dtype=made.dtype, pin_memory=True)
        host.copy_(made, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch has no types there
        event.record(torch.cuda.current_stream(parts.device))
        self.waiting.append((event, host, rest))
        self.arrived()

    def arrived(self, *, wait: bool = False) -> None:
        """Write what an accelerator has answered meanwhile; with more than 16 waiting, wait for the oldest."""
        while self.waiting:
            event, host, rest = self.waiting[0]
            if not event.query():
                if not wait and len(self.waiting) <= 16:
                    return
                event.synchronize()
            self.waiting.pop(0)
            self.finish(host.numpy(), rest)

    def write_gradients(self) -> None:
        """Write the gradients that have arrived since the last line."""
        lines, self.gradients = self.gradients, []
        if lines:
            self.tape.write("\n".join(lines))

    def finish(self, data: Any, rest: str) -> None:
        """Write one line with its numbers."""
        self.write_gradients()
        self.tape.write(f'{rest},"d":"{base64.b64encode(data.tobytes()).decode()}"}}')

    def schema(self, parts: _Parts) -> int:
        """The number under which the names of ``parts`` stand in the file."""
        key = tuple(parts.names)
        number = self.schemas.get(key)
        if number is None:
            number = self.schemas[key] = len(self.schemas)
        if ("h", number) not in self.written:
            self.written.add(("h", number))
            self.tape.write(json.dumps({"k": "h", "i": number, "e": parts.names}))
        return number

    # --- state --------------------------------------------------------------------------------------------------------

    def state(self, parts: _Parts, role: str, known: _Subject, subject: Any, *, again: bool) -> None:
        """Take up what of the state has changed since it was written last.

        ``again``: small buffers are looked at in any case, since writing through ``.data`` leaves no trace.
        """
        if known.dicts is None:
            known.dicts = [
                (f"{prefix}." if prefix else "", module._parameters, module._buffers)
                for prefix, module in subject.named_modules()
            ]
        buffers = sum(len(held) for _, _, held in known.dicts)
        for prefix, parameters, held in known.dicts:
            for group in (parameters, held):
                for name, tensor in group.items():
                    if tensor is None:
                        continue
                    key = prefix + name
                    mark = (id(tensor), -1 if tensor.is_inference() else tensor._version, tensor.data_ptr())
                    before = known.prints.get(key)
                    look = again and group is held and buffers <= 16
                    if before is not None and before[0] == mark and mark[1] >= 0 and not look:
                        continue
                    self._changed(parts, role, known, key, tensor, mark)

    def _changed(
        self, parts: _Parts, role: str, known: _Subject, key: str, tensor: Any, mark: tuple[int, int, int]
    ) -> None:
        if tensor.device.type != "cpu":
            known.prints[key] = (mark, b"")
            self.add(parts, role, key, tensor)
            return
        value = prints.print_tensor(tensor.reshape(1) if not tensor.dim() else tensor)
        data = value.tobytes()
        before = known.prints.get(key)
        known.prints[key] = (mark, data)
        if before is None or before[1] != data:
            parts.names.append((role, key, "p", str(tensor.dtype)[6:]))
            parts.shapes.append("x".join(map(str, tensor.shape)))
            parts.numbers.append(value)

    @staticmethod
    def plain(subject: Any) -> dict[str, Any]:
        """Attributes that are numbers or short texts."""
        return {
            key: value
            for key, value in vars(subject).items()
            if type(value) in (int, float, bool) or (type(value) is str and len(value) <= _TEXT)
        }

    def end(self) -> None:
        """Write what waits and the counts of all places."""
        self.arrived(wait=True)
        self.write_gradients()
        counts = {site: count.__reduce__()[1][0] for site, count in enumerate(self.calls)}
        self.tape.write(json.dumps({"k": "e", "calls": counts}))


class _Building:
    """A construction that is going on."""

    def __init__(self, recorder: Recorder, entry: Sequence[str], subject: Any, frame: FrameType | None) -> None:
        self.recorder = recorder
        self.subject = subject
        stack = recorder.nested.building
        inside = {"inside": 1} if stack or recorder.nested.calling else {}
        own = type(subject)
        named = {} if own.__name__ == entry[1].rpartition(".")[2] else {"cls": own.__name__}
        self.site = recorder._site("built", entry, recorder.places.of(frame), **inside, **named)
        self.line = recorder.lines[self.site]
        self.line["rng"] = [_generator(), 0]
        self.line["q"] = next(recorder.numbers)
        stack.append((id(subject), self.site))

    def done(self, made: bool) -> None:
        """The constructor has returned, or raised."""
        self.recorder.nested.building.pop()
        self.line["rng"][1] = _generator()
        if made:
            known = self.recorder._know(self.subject, self.site)
            known.attributes = self.recorder.plain(self.subject)
            self.line["attributes"] = known.attributes
        else:
            self.line["raised"] = True
        self.recorder._need(self.site)


def _generator() -> int:
    """A check sum of torch's generator."""
    return zlib.adler32(torch.get_rng_state().numpy().data)


class Call:
    """A call that is going on."""

    def __init__(
        self,
        recorder: Recorder,
        site: int,
        number: int,
        known: _Subject | None,
        subject: Any,
        given: tuple[tuple[str, ...], Sequence[Any], Mapping[str, Any]],
    ) -> None:
        self.recorder, self.site, self.number, self.known, self.subject = recorder, site, number, known, subject
        stack = recorder.nested.calling
        self.outer = stack[-1][1] if stack else None
        self.sequence = next(recorder.numbers)
        recorder._need(site)
        full = in_full(number) or bool(recorder.nudge)
        self.parts = parts = _Parts(brief=not full)
        self.edges: list[tuple[str, Any, int]] = []
        self.watched = full and torch.is_grad_enabled()
        for name, value in self._named(*given):
            before = len(parts.names)
            recorder.add(parts, "in", name, value)
            if self.watched:
                self._edges("in", value, range(before, len(parts.names)))
        self.attributes: dict[str, Any] = {}
        self.module = full and known is not None and isinstance(subject, torch.nn.Module)
        if self.module and known is not None:
            recorder.state(parts, "before", known, subject, again=False)
            now = recorder.plain(subject)
            self.attributes = {k: v for k, v in now.items() if known.attributes.get(k, _Parts) != v}
            known.attributes = now
        self.random = _generator() if full else 0
        stack.append((id(subject), self.sequence))
        self.begun = time.perf_counter()

    def _named(
        self, names: tuple[str, ...], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Iterator[tuple[str, Any]]:
        offset = 0 if self.subject is None else 1
        for place, value in enumerate(args):
            yield names[place + offset] if place + offset < len(names) else str(place), value
        yield from kwargs.items()

    def _edges(self, role: str, value: Any, places: range) -> None:
        """Where gradients will arrive, for tensors that stand alone or in flat lists."""
        values = [value] if isinstance(value, torch.Tensor) else list(value) if isinstance(value, (list, tuple)) else []
        for place, item in zip(places, values, strict=False):
            if isinstance(item, torch.Tensor) and item.requires_grad and len(self.edges) < 16:
                node = item.grad_fn or torch.autograd.graph.get_gradient_edge(item).node
                self.edges.append((f"{role}{place}", node, item.output_nr))

    def failed(self, error: BaseException) -> None:
        """The loss has raised."""
        self.recorder.nested.calling.pop()
        line = {"k": "x", "s": self.site, "n": self.number, "q": self.sequence}
        self.recorder.tape.write(json.dumps({**line, "raised": type(error).__name__, "what": str(error)[:200]}))

    def done(self, result: Any) -> None:
        """The loss has returned ``result``."""
        spent = time.perf_counter() - self.begun
        recorder, parts = self.recorder, self.parts
        recorder.nested.calling.pop()
        before = len(parts.names)
        recorder.add(parts, "out", "", result)
        if self.watched:
            flat = [result] if isinstance(result, torch.Tensor) else list(_values(result))
            if len(flat) == len(parts.names) - before:
                for place, item in enumerate(flat):
                    self._edges("out", item, range(before + place, before + place + 1))
        if self.module and self.known is not None:
            recorder.state(parts, "after", self.known, self.subject, again=True)
        schema = recorder.schema(parts)
        line = f'{{"k":"c","s":{self.site},"n":{self.number},"q":{self.sequence},"h":{schema},"t":{spent * 1e6:.1f}'
        if not parts.brief:
            line += f',"r":[{self.random},{_generator()}]'
        if self.outer is not None:
            line += f',"u":{self.outer}'
        if parts.shapes:
            line += f',"z":"{",".join(parts.shapes)}"'
        if self.attributes:
            line += f',"a":{json.dumps(self.attributes)}'
        flags = "" if parts.brief else _flags(self.subject)
        if flags:
            line += f',"f":"{flags}"'
        recorder.packed(parts, line)
        for role, node, number in self.edges:
            node.register_prehook(_Arrival(recorder, self.sequence, role, number))
        self.edges = []


def _json(value: Any, depth: int = 0) -> Any:
    """A plain value as it is, the type of any other."""
    if isinstance(value, (bool, int, float, str, type(None))):
        return value if not isinstance(value, str) else value[:_TEXT]
    if isinstance(value, (list, tuple)) and len(value) <= 16 and depth < 2:
        return [_json(item, depth + 1) for item in value]
    return {"type": type(value).__name__}


def _values(result: Any) -> Iterator[Any]:
    if isinstance(result, dict):
        yield from dict.values(result)
    elif isinstance(result, (list, tuple)):
        yield from result


def _flags(subject: Any) -> str:
    found = [] if getattr(subject, "training", True) else ["eval"]
    if torch.is_inference_mode_enabled():
        found.append("inference")
    elif not torch.is_grad_enabled():
        found.append("no_grad")
    found += [
        f"autocast:{str(torch.get_autocast_dtype(device))[6:]}"
        for device in ("cpu", "cuda")
        if torch.is_autocast_enabled(device)
    ]
    return " ".join(found)


class _Arrival:
    """Notes the norm of a gradient when it arrives, the value of one without dimensions."""

    __slots__ = ("number", "recorder", "role", "sequence")

    def __init__(self, recorder: Recorder, sequence: int, role: str, number: int) -> None:
        self.recorder, self.sequence, self.role, self.number = recorder, sequence, role, number

    def __call__(self, gradients: Sequence[Any]) -> tuple[Any, ...] | None:
        """Look at the gradient; unless the run is to be nudged, nothing is returned, so it goes on as it came."""
        gradient = gradients[self.number]
        if gradient is None:
            return None
        self._note(gradient)
        if not self.recorder.nudge or not self.role.startswith("in"):
            return None
        pattern = torch.arange(gradient.numel(), device=gradient.device, dtype=gradient.dtype).view_as(gradient)
        nudged = gradient * (1 + self.recorder.nudge * torch.cos(pattern))
        return tuple(nudged if place == self.number else other for place, other in enumerate(gradients))

    def _note(self, gradient: Any) -> None:
        recorder = self.recorder
        try:
            rest = f'{{"k":"g","q":{self.sequence},"w":"{self.role}","o":{next(recorder.numbers)}'
            if gradient.device.type != "cpu":
                parts = _Parts()
                recorder._numbers(parts, gradient)
                recorder.packed(parts, rest)
                return
            values = prints.values_of(gradient)
            found = prints.norm(values) if gradient.dim() else float(values[0])
            recorder.gradients.append(f'{rest},"v":{json.dumps(found)}}}')
            if len(recorder.gradients) > 32:
                recorder.write_gradients()
        except Exception as error:
            recorder.tape.write(json.dumps({"k": "x", "q": self.sequence, "what": f"gradient: {error}"[:200]}))
