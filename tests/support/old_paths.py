"""Import every old path of a system in one fresh interpreter, the way a user's file would, and note what happens.

Run as a script (``python -m tests.support.old_paths SYSTEM``) it prints JSON; :func:`walk` starts it.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import pickle
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LINE = 4
"""Line of the import statement in the made-up user files."""


def environment(**extra: str) -> dict[str, str]:
    paths = os.pathsep.join((str(ROOT), str(ROOT / "src")))
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **extra}


def fresh_interpreter(*arguments: str) -> str:
    """Standard output of a new interpreter with the repository (and ``src``) on its path."""
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment(), check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def walk(system: str) -> dict[str, Any]:
    """What importing each old path of ``system`` gave: ``symbols`` and ``modules`` by old path."""
    found: dict[str, Any] = json.loads(fresh_interpreter("-m", "tests.support.old_paths", system))
    return found


# ------------------------------------------------------------------------------------- inside the fresh interpreter
_files: list[Any] = []
"""The made-up files stay alive, as those of a user do: no two of them share an address."""


def run_statement(statement: str, name: str) -> dict[str, Any]:
    """Execute ``statement`` (which binds ``found``) on line 4 of a user file and collect its deprecation warnings."""
    from deprecation import DeprecatedWarning

    filename = f"/user/{name}.py"
    scope: dict[str, Any] = {"__name__": name}
    code = compile("\n" * (LINE - 1) + statement, filename, "exec")
    _files.append(code)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(code, scope)
    noted = [
        {"file": w.filename, "line": w.lineno, "text": str(w.message)}
        for w in caught
        if issubclass(w.category, DeprecatedWarning)
    ]
    return {"object": scope["found"], "file": filename, "warnings": noted}


def _twin(path: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)


def _pickled(path: str, twin: Any) -> bool:
    """Whether a reference that was pickled under the old path comes back as the twin."""
    module, _, name = path.rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pickle.loads(f"c{module}\n{name}\n.".encode()) is twin


def _walk(system: str) -> dict[str, Any]:
    from migration import shims
    from migration.catalog import builtin_catalog

    shims.install()
    catalog = builtin_catalog()
    result: dict[str, Any] = {"symbols": {}, "modules": {}}
    symbols = [symbol for symbol in catalog.symbols if symbol.system == system]
    # package level first: afterwards a sub-module may have taken the name of a function
    paths = [(path, symbol) for symbol in symbols for path in symbol.package_paths]
    paths += [(path, symbol) for symbol in symbols for path in symbol.paths]
    for number, (path, symbol) in enumerate(paths):
        module, _, name = path.rpartition(".")
        statement = f"from {module} import {name} as found"
        runs = [run_statement(statement, f"user_{number}_{turn}") for turn in range(2)]
        twin = _twin(symbol.twin)
        result["symbols"][path] = {
            "same": [run.pop("object") is twin for run in runs],
            "runs": runs,
            "pickled": _pickled(path, twin),
        }
    owned = {symbol.twin.rpartition(".")[0] for symbol in symbols}
    for number, (path, twin) in enumerate(item for item in catalog.modules.items() if item[1] in owned):
        if sys.version_info >= (3, 11):
            statement = f"import importlib; found = importlib.import_module({path!r})"
        else:  # import_module does not look at a loaded module there, so that nobody can notice it
            statement = f"import {path}; import sys; found = sys.modules[{path!r}]"
        run = run_statement(statement, f"module_{number}")
        run["same"] = run.pop("object") is sys.modules[twin]
        result["modules"][path] = run
    return result


def dump_under(cls: type, path: str, obj: Any) -> bytes:
    """``pickle`` of ``obj`` as code wrote it in which its class ``cls`` lived at the old ``path``."""
    own = cls.__module__
    cls.__module__ = path.rpartition(".")[0]
    try:
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pickle.dump(obj, buffer)
    finally:
        cls.__module__ = own
    return buffer.getvalue()


if __name__ == "__main__":
    print(json.dumps(_walk(sys.argv[1])))
