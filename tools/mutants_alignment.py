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
COPIED = [
    "src",
    "legacy",
    "migration",
    "tools/checkout",
    "tests/__init__.py",
    "tests/support",
    "tests/parity",
    "tests/golden/alignment",
]


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
        'return total / x.new_tensor(sequences.lengths).square() if self.reduction == "mean" else total',
        "return total / x.new_tensor(sequences.lengths).square()",
        True,
    ),
    Mutant(
        "lav-contrast-without-graph",
        LAV,
        "contrast = self.contrast.per_sequence(given)\n",
        "contrast = self.contrast.per_sequence(given).detach()\n",
        True,
    ),
    Mutant(
        "vava-reg-l2",
        VAVA,
        'value = n if value == "num_rows" else self.prior_weight * n * m / 4',
        "value = self.prior_weight * n * m / 4",
        True,
    ),
    Mutant(
        "vava-no-cxy",
        VAVA,
        '"cross_contrast": (sign * cost).sum(dim=(1, 2)) if self.cross_contrast else torch.zeros_like(size)',
        '"cross_contrast": torch.zeros_like(size)',
        True,
    ),
    Mutant("vava-half-cx-cy", VAVA, "contrast = 2 * (len(given) - 1)", "contrast = (len(given) - 1)", True),
    Mutant(
        "vava-divided-by-nm",
        VAVA,
        '"core": transport - structure_weight * structure + prior_weight * divergence,',
        '"core": (transport - structure_weight * structure + prior_weight * divergence)\n'
        "            / cost.new_tensor([(n - 1) * (m - 1) for n, m in zip(rows, columns, strict=True)]),",
        True,
    ),
    # slips of the same kind
    Mutant("contrast-exclusive-reach", CONTRAST, "self.reach = window +", "self.reach = window - 1 +"),
    Mutant("lav-window-14", LAV, '{"window": 15,', '{"window": 14,'),
    Mutant("vava-window-14", VAVA, '{"window": 15,', '{"window": 14,'),
    Mutant(
        "contrast-weight-not-squared",
        CONTRAST,
        "(t[:, None] - t).square() + 1",
        "(t[:, None] - t).abs() + 1",
    ),
    Mutant(
        "contrast-timestamps-ignored",
        CONTRAST,
        "if timestamps is None:\n            far",
        "if True:\n            far",
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
    Mutant(
        "tcc-per-frame-variance",
        TCC,
        '        if self.variance == "per_column":\n            missed = (time - mean).square()\n',
        '        if self.variance != "per_column":\n            missed = (time - mean).square()\n',
    ),
    Mutant("tcc-no-self-pairs", TCC, "if i in others and not self.include_self_pairs:", "if i in others:"),
    Mutant("tcc-log-var", TCC, 'spread.log() if self.log_term == "var"', 'spread.log() if self.log_term == "std"'),
    Mutant(
        "tcc-missed-not-squared",
        TCC,
        "missed = (time - mean).square()",
        "missed = (time - mean).abs()",
    ),
    Mutant("tcc-temperature-once", TCC, "scale = 1.0 / (self.temperature *", "scale = 1.0 / (1.0 *"),
    Mutant("tcc-padding-seen", TCC, ".masked_fill(~real, torch.inf)", ".masked_fill(~real, 0.0)"),
    Mutant(
        "vava-rows-and-columns-swapped",
        VAVA,
        "far = self._match_distance(below_row, below_column, rows, columns)",
        "far = self._match_distance(*(plan.amin(dim=d, keepdim=True) - plan for d in (2, 1)), rows, columns)",
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
    Mutant("vava-structure-sign", VAVA, '"core": transport - structure_weight', '"core": transport + structure_weight'),
    Mutant("vava-best-cells-only", VAVA, ".add_(above_row.add_(above_column).sign_())", ""),
    Mutant(
        "vava-prior-without-root",
        VAVA,
        "scale = self.prior_bandwidth * math.sqrt(2 * math.pi)",
        "scale = self.prior_bandwidth",
    ),
    Mutant(
        "vava-plan-detached",
        VAVA,
        "plan = sinkhorn_plan(\n            cost,",
        "plan = sinkhorn_plan(\n            cost.detach(),",
    ),
    Mutant("sinkhorn-one-more-iteration", SINKHORN, "max_iter=iterations, tol=tol", "max_iter=iterations + 1, tol=tol"),
    Mutant(
        "sinkhorn-gradient-of-last-step",
        SINKHORN,
        "at_u, at_v = _across(kernel, inner), torch.zeros_like(at_v)",
        "at_u, at_v = torch.zeros_like(at_u), torch.zeros_like(at_v)",
    ),
    # the written-out gradients, the padded groups
    Mutant("tcc-no-gradient-of-means", TCC, "at_mean = at_mean - 2 *", "at_mean = at_mean - 0 *"),
    Mutant("tcc-softmax-not-centred", TCC, ".sub_((at_z * z).sum(dim=2, keepdim=True))", ""),
    Mutant("tcc-gradient-of-way-there", TCC, "own * pull.sum(dim=(0, 2))[:, None] - (pull @ y).sum(dim=0)", "0.0"),
    Mutant("tcc-gradient-of-way-back", TCC, "own * pull.sum(dim=(0, 1))[:, None] - pull.flatten(0, 1).T @ flat", "0.0"),
    Mutant("tcc-gradient-of-neighbours", TCC, "at_y += alpha.mT @ at_z", "pass"),
    Mutant("vava-padding-is-smallest", VAVA, "plan = plan + 2 * (1 - real)", "pass"),
    Mutant("vava-epsilon-of-columns", VAVA, "self._epsilon(n - 1, m - 1)", "self._epsilon(m - 1, n - 1)"),
    Mutant("vava-loose-stop", VAVA, "tol=torch.finfo(cost.dtype).eps,", "tol=1e-3,"),
    Mutant(
        "vava-last-best-match",
        VAVA,
        "torch.add(c, below_row.sign(), alpha=-size)",
        "torch.add(c, below_row.sign(), alpha=size)",
    ),
    Mutant("sinkhorn-padding-takes-mass", SINKHORN, "torch.stack([r & c, r == c])", "torch.stack([r & c, r | ~r])"),
    Mutant("sinkhorn-stands-still-early", SINKHORN, "still = 4 * torch.finfo(kernel.dtype).eps", "still = 1e-2"),
    Mutant(
        "sinkhorn-rows-not-scaled-back",
        SINKHORN,
        "outer = at_u * -u[step + 1].square() / rows",
        "outer = at_u * -u[step + 1] / rows",
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
    Mutant("soft-dtw-band-too-wide", SOFT_DTW, "(k - self.band + 1) // 2", "(k - self.band) // 2"),
    Mutant("soft-dtw-band-too-narrow", SOFT_DTW, "(k + self.band) // 2 + 1", "(k + self.band + 1) // 2"),
    Mutant("soft-dtw-gradient-without-band", SOFT_DTW, "band=ctx.band", "band=None"),
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
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(folder), str(folder / "tools" / "checkout")]),
        "OMP_NUM_THREADS": "1",
    }
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
