"""Harnesses of the multimodal_insight cases: factory results, package exports, the shadowed name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from torch import nn

from tests.support.golden import Run, harness

ROOT = Path(__file__).resolve().parents[2]
# former names of the package that the factory tries to import; absent unless a case says otherwise
FORMER_NAMES = ("src.training.loss", "src.training.loss.hybrid_pretrain_vicreg_loss")
PLAIN = (bool, int, float, str, type(None))


def describe(run: Run, obj: nn.Module) -> dict[str, Any]:
    def is_plain(value: Any) -> bool:
        return isinstance(value, PLAIN) or (
            isinstance(value, dict) and all(isinstance(item, PLAIN) for item in value.values())
        )

    text: dict[str, Any] = {
        "class": type(obj).__name__,
        "module": run.golden_name(type(obj).__module__),
        "attributes": {
            name: value
            for name, value in sorted(vars(obj).items())
            if not name.startswith("_") and name != "training" and is_plain(value)
        },
        "state": {
            key: {
                "shape": list(value.shape),
                "dtype": str(value.dtype).removeprefix("torch."),
                "sum": value.double().sum().item(),
                "abs_sum": value.double().abs().sum().item(),
            }
            for key, value in obj.state_dict().items()
        },
    }
    if type(obj).__name__ == "CombinedLoss":
        text["children"] = {name: describe(run, child) for name, child in obj.named_children()}
    return text


@harness("multimodal_insight", "describe")
def describe_result(run: Run, *args: Any, **kwargs: Any) -> dict[str, Any]:
    # a None entry in sys.modules makes the import raise ModuleNotFoundError, whatever finder is installed
    names: dict[str, Any] = dict.fromkeys(FORMER_NAMES)
    names.update((alias, run.sibling(module)) for alias, module in run.options.get("aliases", {}).items())
    with mock.patch.dict(sys.modules, names):
        return describe(run, run.symbol(*args, **kwargs))


def _fresh_interpreter(program: str, *, package: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"PACKAGE = {package!r}\n{program}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tools" / "checkout")},
    )
    return json.loads(done.stdout)


@harness("multimodal_insight", "package_exports")
def package_exports(run: Run) -> dict[str, Any]:
    """``module`` of the exports is translated to golden names here, the rest is read in the fresh interpreter."""
    found: dict[str, Any] = _fresh_interpreter(
        """
import importlib, inspect, json
package = importlib.import_module(PACKAGE)
public = sorted(name for name in vars(package) if not name.startswith("_"))
star = {}
exec(f"from {PACKAGE} import *", star)
star = sorted(name for name in star if not name.startswith("_"))
def kind(value):
    return "class" if inspect.isclass(value) else "module" if inspect.ismodule(value) else "function"
exports = {name: [kind(getattr(package, name)), getattr(package, name).__module__] for name in package.__all__}
print(json.dumps({"__all__": list(package.__all__), "exports": exports, "public_names": public, "star": star}))
""",
        package=run.module.__name__,
    )
    for entry in found["exports"].values():
        entry[1] = run.golden_name(entry[1])
    return found


@harness("multimodal_insight", "shadowed_name")
def shadowed_name(run: Run) -> dict[str, Any]:
    return _fresh_interpreter(
        """
import importlib, inspect, json
package = importlib.import_module(PACKAGE)
NAME = "supervised_contrastive_loss"
def kind(value):
    return "module" if inspect.ismodule(value) else "function" if inspect.isfunction(value) else type(value).__name__
def from_import():
    scope = {}
    exec(f"from {PACKAGE} import {NAME}", scope)
    return scope[NAME]
before, bound = kind(getattr(package, NAME)), from_import()
importlib.import_module(f"{PACKAGE}.{NAME}")
print(json.dumps({"before": before, "after_submodule_import": kind(getattr(package, NAME)),
                  "name_bound_earlier": kind(bound), "from_import_after": kind(from_import())}))
""",
        package=run.module.__name__,
    )
