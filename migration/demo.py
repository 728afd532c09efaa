"""The main job on a real example: run old scripts, migrate them, run them again, compare every step."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .console import say, show_table
from .shims import ENVIRONMENT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["LIMIT", "DemoError", "Outcome", "Run", "load_manifest", "run_demo"]

LIMIT = 1e-5
"""Largest difference of losses, step by step, that counts as the same numbers (relative for losses above 1, because
float32 cannot tell more)."""


class DemoError(RuntimeError):
    """A script or the codemod failed; the message has the end of its output."""


@dataclass(frozen=True)
class Run:
    """One run of a script."""

    losses: list[float]
    warnings: int
    seconds: float
    peak_mib: float
    frozen: int = 0
    """Imports of frozen twins by their own name: where the codemod keeps the old numbers on purpose."""


@dataclass(frozen=True)
class Outcome:
    """A script before and after."""

    name: str
    old: Run
    new: Run

    @property
    def difference(self) -> float:
        """The largest ``|new - old| / max(1, |old|)`` over all steps; infinite if their number differs or one is
        not finite."""
        if len(self.old.losses) != len(self.new.losses) or not self.old.losses:
            return math.inf
        gaps = [abs(b - a) / max(1.0, abs(a)) for a, b in zip(self.old.losses, self.new.losses, strict=True)]
        return max(gaps) if all(map(math.isfinite, gaps)) else math.inf

    @property
    def good(self) -> bool:
        """Same numbers, and no warning left."""
        return self.difference <= LIMIT and self.new.warnings == 0


def example_folder() -> Path:
    """The example repository: of this checkout, or the copy inside the wheel."""
    here = Path(__file__).resolve().parent
    for folder in (here.parent / "examples" / "downstream", here / "_downstream"):
        if (folder / "demo.toml").exists():
            return folder
    raise DemoError("the example repository is neither beside this package nor inside it")


def load_manifest(folder: Path) -> list[dict[str, Any]]:
    """The scripts of ``demo.toml``: name, command, optional folder in which it runs."""
    data = tomllib.loads((folder / "demo.toml").read_text(encoding="utf-8"))
    scripts: list[dict[str, Any]] = data["script"]
    return scripts


def _execute(command: Sequence[str], folder: Path, environment: dict[str, str]) -> tuple[str, float, float]:
    """Run a command; its error output, seconds, and peak resident memory in MiB."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=errors)
        if hasattr(os, "wait4"):
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            peak = usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
        else:
            process.wait()
            peak = math.nan
        seconds = time.perf_counter() - start
        output.seek(0)
        errors.seek(0)
        text = errors.read().decode(errors="replace")
        if process.returncode:
            tail = (output.read().decode(errors="replace") + text)[-3000:]
            raise DemoError(f"{' '.join(command)} ended with exit code {process.returncode}:\n{tail}")
    return text, seconds, peak


def _environment(shims: bool) -> dict[str, str]:
    checkout = Path(__file__).resolve().parents[1] / "tools" / "checkout"
    # a checkout that is not installed is found through PYTHONPATH
    places = [str(checkout)] if checkout.exists() else []
    environment = {name: value for name, value in os.environ.items() if name != ENVIRONMENT}
    environment["PYTHONPATH"] = os.pathsep.join([*places, *filter(None, [environment.get("PYTHONPATH")])])
    environment["PYTHONWARNINGS"] = "default::DeprecationWarning"
    environment["MPLBACKEND"] = "Agg"
    environment.setdefault("OMP_NUM_THREADS", "1")
    if shims:
        environment[ENVIRONMENT] = "1"
    return environment


def _run(script: dict[str, Any], folder: Path, shims: bool) -> Run:
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log.jsonl"
        words = [word.replace("{log}", str(log)) for word in script["command"]]
        through = ["-m", "training_losses", "run"] if shims else []
        command = [sys.executable, *through, *words]
        text, seconds, peak = _execute(command, folder / script.get("folder", "."), _environment(shims))
        if not log.exists():
            raise DemoError(f"{' '.join(words)} wrote no losses to {log.name}")
        losses = [float(json.loads(line)["loss"]) for line in log.read_text(encoding="utf-8").splitlines()]
    warned = re.findall(r"\bDeprecatedWarning: (\S+)", text)
    frozen = sum(path.startswith("training_losses.legacy.") for path in warned)
    return Run(losses, len(warned) - frozen, seconds, peak, frozen)


def _plot(outcomes: Sequence[Outcome], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    columns = min(3, len(outcomes))
    rows = math.ceil(len(outcomes) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.6 * columns, 3.1 * rows), squeeze=False)
    for axis, outcome in zip(axes.flat, outcomes, strict=False):
        axis.plot(outcome.old.losses, color="#d08a2e", linewidth=4, alpha=0.6, label="old code, through the shims")
        axis.plot(outcome.new.losses, color="#20527a", linewidth=1.2, label="after the codemod")
        axis.set_title(f"{outcome.name}   (largest difference {outcome.difference:.1e})", fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.set_ylabel("loss", fontsize=8)
        axis.tick_params(labelsize=7)
    for axis in axes.flat[len(outcomes) :]:
        axis.set_visible(False)
    axes.flat[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


_HEAD = ("script", "steps", "final loss old", "new", "largest difference", "warnings", "seconds", "peak MiB", "note")


def _rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    rows = []
    for o in outcomes:
        final = [f"{run.losses[-1]:.6f}" if run.losses else "-" for run in (o.old, o.new)]
        rows.append(
            (
                o.name,
                str(len(o.old.losses)),
                *final,
                f"{o.difference:.2e}",
                f"{o.old.warnings} -> {o.new.warnings}",
                f"{o.old.seconds:.1f} -> {o.new.seconds:.1f}",
                f"{o.old.peak_mib:.0f} -> {o.new.peak_mib:.0f}",
                "partly on the frozen twin" if o.new.frozen else "",
            )
        )
    return rows


def run_demo(output: Path, *, only: Sequence[str] | None = None, as_json: bool = False) -> int:
    """Copy the example, run it, migrate it, run it again, report.

    Args:
        output: folder for ``demo.png``, ``demo.json`` and the codemod's diff.
        only: names of the scripts to run; default: all.
        as_json: print the JSON and not the table.

    Returns:
        0 if all numbers agree to ``LIMIT`` and no warning is left, 1 if not, 2 if a run failed.
    """
    try:
        source = example_folder()
        scripts = load_manifest(source)
        known = [script["name"] for script in scripts]
        unknown = [name for name in only or () if name not in known]
        if unknown:
            raise DemoError(f"--only {unknown[0]!r}: no such script (there are {', '.join(known)})")
        scripts = [script for script in scripts if not only or script["name"] in only]
        with tempfile.TemporaryDirectory(prefix="losses-demo-") as scratch:
            copy = Path(scratch) / "downstream"
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
            old = []
            for script in scripts:
                _say(f"old code through the shims: {script['name']}")
                old.append(_run(script, copy, shims=True))
            _say("codemod --write")
            diff = _codemod(copy)
            new = []
            for script in scripts:
                _say(f"migrated code: {script['name']}")
                new.append(_run(script, copy, shims=False))
        output.mkdir(parents=True, exist_ok=True)
    except (DemoError, OSError) as error:
        say(f"error: {error}", "red", stderr=True)
        return 2
    outcomes = [Outcome(script["name"], a, b) for script, a, b in zip(scripts, old, new, strict=True)]
    data = [{**asdict(o), "difference": o.difference, "good": o.good} for o in outcomes]
    (output / "demo.json").write_text(json.dumps(data, indent=2), encoding="utf-8")
    (output / "codemod.diff").write_text(diff, encoding="utf-8")
    _plot(outcomes, output / "demo.png")
    if as_json:
        sys.stdout.write(json.dumps(data, indent=2) + "\n")
    else:
        show_table("", _HEAD, _rows(outcomes))
    bad = [o.name for o in outcomes if not o.good]
    _say(f"curves: {output / 'demo.png'}, the codemod's diff: {output / 'codemod.diff'}")
    if bad:
        _say(f"NOT the same: {', '.join(bad)}", "bold red")
    else:
        _say("all numbers agree, no warning left", "green")
    return 1 if bad else 0


def _say(text: str, style: str = "") -> None:
    say(f"demo: {text}", style, stderr=True)


def _codemod(folder: Path) -> str:
    """Migrate ``folder``; the diff."""
    base = [sys.executable, "-m", "training_losses", "codemod"]
    environment = _environment(shims=False)
    dry = subprocess.run([*base, str(folder)], env=environment, capture_output=True, text=True, check=False)
    written = subprocess.run(
        [*base, "--write", str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    if dry.returncode == 2 or written.returncode == 2:
        raise DemoError(f"the codemod failed:\n{written.stdout[-3000:]}{written.stderr[-3000:]}")
    return dry.stdout
