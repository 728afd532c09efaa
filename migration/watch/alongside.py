"""``training-losses run --shadow RATE SCRIPT``: the script as ever, the other losses beside it."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from .imports import AfterImport
from .inforce import catalogs_in_force, targets

__all__ = ["run_shadowed"]


class _Late:
    """The watcher, made when torch is there."""

    def __init__(self, rate: float, side: str, log: Path, root: Path) -> None:
        self.make: Callable[[], Any] = lambda: self._made(rate, side, log, root)
        self.watcher: Any = None
        self.names = targets(catalogs_in_force())

    @staticmethod
    def _made(rate: float, side: str, log: Path, root: Path) -> Any:
        from .beside import ShadowWatcher

        return ShadowWatcher(rate, log, side=side, root=root)

    def imported(self, module: ModuleType) -> None:
        """Watch the losses of ``module``."""
        from .attach import attach_module

        if "torch" not in sys.modules:
            return
        self.watcher = self.watcher or self.make()
        attach_module(module, self.names.get(module.__name__, {}), self.watcher)


@contextmanager
def _watching(late: _Late) -> Iterator[None]:
    finder = AfterImport(late.names, late.imported)
    sys.meta_path.insert(0, finder)
    for name in late.names:
        if name in sys.modules:
            late.imported(sys.modules[name])
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def _place(place: dict[str, Any], side: str) -> dict[str, Any]:
    calls, compared = place["calls"]
    seconds = place["seconds"]
    old, new = (place["what"], place["other"]) if side == "old" else (place["other"], place["what"])
    first = None
    if place["first"] is not None:
        first = {"kind": "value", "call": place["first"]["call"] + 1, "what": "", "size": None, "cause": True,
                 "text": place["first"]["text"]}  # fmt: skip
    name = place["what"].rpartition(".")[2]
    return {
        **{key: place[key] for key in ("file", "line", "tolerance", "first")},
        **{key: place[key] if place[key] < float("inf") else None for key in ("value", "gradient", "state")},
        "label": f"{name} at {place['file']}:{place['line']}",
        "nth": 0,
        "code": "",
        "old": old or None,
        "new": new or None,
        "new_line": None,
        "rank": "",
        "verdict": "deviates" if first else "equal" if compared else "not compared",
        "first": first,
        "calls": [calls, calls],
        "compared": compared,
        "not_finite": 0,
        "time_ratio": seconds[1] / seconds[0] if seconds[0] else None,
        "memory_ratio": None,
        "seconds": seconds,
        "curve": [[n, *(v if v == v and abs(v) < float("inf") else None for v in rest)]
                  for n, *rest in place["curve"]],
    }  # fmt: skip


def _data(late: _Late, script: str, side: str, log: Path, seconds: float) -> dict[str, Any]:
    watcher = late.watcher
    places = [_place(place, side) for place in (watcher.places.values() if watcher else ())]
    compared = sum(place["compared"] for place in places)
    bad = [place for place in places if place["first"]]
    skipped = [f"{p['file']}:{p['line']}: {text} ({n} times)" for p in (watcher.places.values() if watcher else ())
               for text, n in p["skipped"].items()]  # fmt: skip
    if bad:
        verdict, code = "deviates", 1
        text = f"{bad[0]['label']}, call {bad[0]['first']['call']}: {bad[0]['first']['text']}"
    elif compared:
        verdict, code, text = "equal", 0, f"all {compared} compared calls agree"
    else:
        verdict, code, text = "not compared", 2, "no call of a loss that the catalogs name could be compared"
    share = f"{watcher.spent:.1f} of {seconds:.1f} s were spent on comparing" if watcher else ""
    return {
        "command": [script], "path": ".", "verdict": verdict, "exit_code": code, "message": text, "places": places,
        "printed": [], "repeat": {"runs": 1, "deterministic": None, "first": ""},
        "notes": [*skipped, *filter(None, [share]), f"log: {log}"], "codemod": {"files": 0, "left": []}, "runs": {},
        "made": time.strftime("%Y-%m-%d %H:%M"),
    }  # fmt: skip


def run_shadowed(
    run: Callable[[], int],
    script: str,
    rate: float,
    *,
    new: bool = False,
    log: Path | None = None,
    form: str = "text",
    html: Path | None = None,
) -> int:
    """Run a script through ``run`` with the other losses beside its own.

    Returns:
        0: all compared calls agree, 1: one deviates, 2: none could be compared. What the script itself raises, or exits
        with, goes on after the report.
    """
    from .page import as_html
    from .show import show

    side = "new" if new else "old"
    folder = log or Path(tempfile.mkdtemp(prefix="losses-shadow-"))
    folder.mkdir(parents=True, exist_ok=True)
    late, begun = _Late(rate, side, folder, Path(script).resolve().parent), time.perf_counter()
    code = 2
    try:
        with _watching(late):
            run()
    except SystemExit as ended:
        if ended.code not in (None, 0):
            raise
    finally:
        data = _data(late, script, side, folder, time.perf_counter() - begun)
        if html is not None and data["places"]:
            html.write_text(as_html(data), encoding="utf-8")
        show(data, form, html if data["places"] else None, stderr=True)
        code = int(data["exit_code"])
    return code
