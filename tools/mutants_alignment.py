"""Put known bugs back into the alignment losses and see the parity tests fail.

    python tools/mutants_alignment.py [--only NAME ...] [--jobs N] [--list]

Each mutant replaces one piece of text, which must stand in the file exactly once, in a copy of the repository's code;
then ``tests/parity/test_alignment.py`` runs against the copy. Exit 0: the unchanged copy passes and every mutant is
killed. Exit 1: a mutant survived, a text was not found exactly once, or the unchanged copy fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "src/training/losses"
CHECKS = ["tests/parity/test_alignment.py"]
COPIED = ["src", "legacy", "migration", "tests/__init__.py", "tests/support", "tests/parity", "tests/golden/alignment"]


@dataclass(frozen=True)
class Mutant:
    """A bug: ``old`` becomes ``new`` in a file of the package."""

    name: str
    file: str
    old: str
    new: str
    documented: bool = False

    def apply(self, folder: Path) -> None:
        """Change the file below ``folder``.

        Raises:
            ValueError: the text does not stand there exactly once.
        """
        path = folder / PACKAGE / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: the text to replace occurs {text.count(self.old)} times in {self.file}")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


CONTRAST, LAV, VAVA, TCC = (f"alignment/{name}.py" for name in ("intra_contrast", "lav", "vava", "tcc"))
GTCC, SINKHORN, SOFT_DTW = "alignment/gtcc.py", "alignment/sinkhorn.py", "functional/soft_dtw.py"
SEQUENCES = "alignment/sequences.py"

MUTANTS = [
    # the six bugs that the restored version removed
    Mutant(
        "contrast-mean-for-sum",
        CONTRAST,
        'return total / cells.sum(dim=(1, 2)) if self.reduction == "mean" else total',
        "return total / cells.sum(dim=(1, 2))",
        True,
    ),
    Mutant(
        "lav-contrast-without-graph",
        LAV,
        "contrast = self.contrast.per_sequence(given)\n",
        "contrast = self.contrast.per_sequence(given).detach()\n",
        True,
    ),
    Mutant("vava-reg-l2", VAVA, "return float(n)", "return self.prior_weight * n * m / 4", True),
    Mutant(
        "vava-no-cxy",
        VAVA,
        "cross_contrast=(sign * cost).sum() if self.cross_contrast else plan.new_zeros(()),",
        "cross_contrast=plan.new_zeros(()),",
        True,
    ),
    Mutant("vava-half-cx-cy", VAVA, "contrast = 2 * (len(given) - 1)", "contrast = (len(given) - 1)", True),
    Mutant(
        "vava-divided-by-nm",
        VAVA,
        "core=transport - structure_weight * structure + prior_weight * divergence,",
        "core=(transport - structure_weight * structure + prior_weight * divergence) / ((rows - 1) * (columns - 1)),",
        True,
    ),
    # slips of the same kind
    Mutant("contrast-exclusive-reach", CONTRAST, "self.reach = window +", "self.reach = window - 1 +"),
    Mutant("lav-window-14", LAV, '{"window": 15,', '{"window": 14,'),
    Mutant("vava-window-14", VAVA, '{"window": 15,', '{"window": 14,'),
    Mutant(
        "contrast-weight-not-squared",
        CONTRAST,
        "(index[:, None] - index).square() + 1",
        "(index[:, None] - index).abs() + 1",
    ),
    Mutant(
        "contrast-timestamps-ignored",
        CONTRAST,
        "if timestamps is None:\n            weight",
        "if True:\n            weight",
    ),
    Mutant("contrast-no-hinge", CONTRAST, "(self.margin - gaps).clamp_min(0)", "(self.margin - gaps)"),
    Mutant("lav-pairs-once", LAV, "total = 2 * self._alignment(given).sum()", "total = self._alignment(given).sum()"),
    Mutant(
        "lav-euclidean-cost",
        LAV,
        "soft_dtw(squared_distances(x, y), self",
        "soft_dtw(squared_distances(x, y).sqrt(), self",
    ),
    Mutant("lav-lengths-ignored", LAV, "self.smoothing, lengths_x=rows, lengths_y=columns)", "self.smoothing)"),
    Mutant("tcc-per-frame-variance", TCC, 'if self.variance == "per_column":', 'if self.variance != "per_column":'),
    Mutant(
        "tcc-no-self-pairs",
        TCC,
        "if not self.include_self_pairs:\n            errors",
        "if True:\n            errors",
    ),
    Mutant("tcc-log-var", TCC, 'spread.log() if self.log_term == "var"', 'spread.log() if self.log_term == "std"'),
    Mutant(
        "tcc-missed-not-squared",
        TCC,
        "missed = (time - mean).square()",
        "missed = (time - mean).abs()",
    ),
    Mutant("tcc-temperature-once", TCC, "logits = gaps / -(self.temperature *", "logits = gaps / -(1.0 *"),
    Mutant("tcc-padding-seen", TCC, "logits = logits.masked_fill(~real, -torch.inf)", "pass"),
    Mutant(
        "vava-rows-and-columns-swapped",
        VAVA,
        "plan.argmax(dim=1)[:, None].to(plan), plan.argmax(dim=0).to(plan)",
        "plan.argmin(dim=1)[:, None].to(plan), plan.argmin(dim=0).to(plan)",
    ),
    Mutant("vava-own-axis", VAVA, 'if self.optimality_scale == "rows":', 'if self.optimality_scale != "rows":'),
    Mutant(
        "vava-eps-dropped",
        VAVA,
        'shift = 1e-8 if self.kl_form == "plain" else 1e-5',
        'shift = 1e-30 if self.kl_form == "plain" else 1e-5',
    ),
    Mutant("vava-linear-schedule", VAVA, "power = math.isqrt(step + 1) if", "power = step + 1 if"),
    Mutant("vava-no-virtual-frame-cost", VAVA, "value=self.virtual_frame_cost)", "value=0.0)"),
    Mutant("vava-structure-sign", VAVA, "core=transport - structure_weight", "core=transport + structure_weight"),
    Mutant("vava-best-cells-only", VAVA, "- _mutual(plan, largest=False).to(plan)", ""),
    Mutant(
        "vava-prior-without-root",
        VAVA,
        "scale = self.prior_bandwidth * math.sqrt(2 * math.pi)",
        "scale = self.prior_bandwidth",
    ),
    Mutant("vava-plan-detached", VAVA, "else [plan], strict", "else [plan.detach()], strict"),
    Mutant(
        "sinkhorn-rows-first",
        SINKHORN,
        'rows, columns, cost, epsilon, method="sinkhorn", numItermax=iterations',
        'rows, columns, cost, epsilon, method="sinkhorn", numItermax=iterations + 1',
    ),
    Mutant(
        "sinkhorn-gradient-of-last-step",
        SINKHORN,
        "at_u, at_v = kernel @ inner, torch.zeros_like(at_v)",
        "at_u, at_v = torch.zeros_like(at_u), torch.zeros_like(at_v)",
    ),
    Mutant(
        "soft-dtw-no-diagonal-step",
        SOFT_DTW,
        "        torch.logaddexp(paths, diagonals[k][first:last], out=paths)\n",
        "        paths = paths if k else torch.zeros_like(paths)\n",
    ),
    Mutant(
        "soft-dtw-wrong-end",
        SOFT_DTW,
        "total = table[row + column + 2, row + 1, pairs]",
        "total = table[row + column + 1, row + 1, pairs]",
    ),
    Mutant("gtcc-eps-dropped", GTCC, "(beta.sum(dim=-1, keepdim=True) + 1e-6)", "beta.sum(dim=-1, keepdim=True)"),
    Mutant(
        "gtcc-drop-by-own-vector",
        GTCC,
        "torch.stack([drop_vectors[j] for j in others])",
        "torch.stack([drop_vectors[i] for j in others])",
    ),
    Mutant("gtcc-biased-deviation", GTCC, "/ max(len(x) - 1, 1)", "/ len(x)"),
    Mutant("gtcc-floor-one-epoch-early", GTCC, "self.keep_floor_decay ** (epoch + 1)", "self.keep_floor_decay**epoch"),
    Mutant("gtcc-window-without-corners", GTCC, "        band[-width:, -width:] = True\n", ""),
    Mutant(
        "distances-squared",
        SEQUENCES,
        "return torch.cdist(a, b, p=2.0, compute_mode=mode)",
        "return torch.cdist(a, b, p=2.0, compute_mode=mode).square()",
    ),
]


def prepare(folder: Path) -> None:
    """The code and tests that the checks need, below ``folder``."""
    for name in COPIED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    shutil.copy2(ROOT / "pyproject.toml", folder)


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    """The parity tests against the code below ``folder``."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    # the copy goes before an installed package of the same name
    environment |= {"PYTHONPATH": os.pathsep.join([str(folder), str(folder / "src")]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *CHECKS]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def try_mutant(mutant: Mutant | None) -> tuple[str, str]:
    """``killed``, ``survived`` or ``broken``, and what the tests said. ``None`` is the unchanged code."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        if mutant is not None:
            try:
                mutant.apply(folder)
            except ValueError as error:
                return "broken", str(error)
        run = check(folder)
    # 1: tests failed; anything else but 0 (collection error, usage) says nothing about the mutant
    outcome = {0: "survived", 1: "killed"}.get(run.returncode, "broken")
    return outcome, run.stdout[-1500:] + run.stderr[-500:]


def main(argv: list[str] | None = None) -> int:
    """Run the mutants; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[m.name for m in MUTANTS])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="print the names and end")
    args = parser.parse_args(argv)
    chosen = [m for m in MUTANTS if args.only is None or m.name in args.only]
    if args.list:
        print("\n".join(m.name for m in chosen))
        return 0
    outcome, text = try_mutant(None)
    if outcome != "survived":
        print(f"the unchanged code does not pass:\n{text}", file=sys.stderr)
        return 1
    killed = 0
    with ThreadPoolExecutor(args.jobs) as pool:
        for mutant, (outcome, text) in zip(chosen, pool.map(try_mutant, chosen), strict=True):
            killed += outcome == "killed"
            print(f"{outcome:<9} {mutant.name}{' (documented)' if mutant.documented else ''}", flush=True)
            if outcome != "killed":
                print(text, file=sys.stderr)
    print(f"{killed} of {len(chosen)} mutants killed")
    return 0 if killed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
