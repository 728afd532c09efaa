"""``training_losses`` in a checkout, whose folders keep their places. Importing this gives the real package.

An editable install, the tests and ``tools/codemod.py`` have the folder above this one on their path; a wheel has the
folders themselves in their places.
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = {
    "training_losses": "src/training/losses",
    "training_losses.legacy": "legacy",
    "training_losses.migration": "migration",
}


class Folders:
    """Meta path finder of the three packages."""

    @classmethod
    def find_spec(cls, fullname: str, path: object = None, target: object = None) -> "ModuleSpec | None":
        """The package in its folder."""
        folder = FOLDERS.get(fullname)
        return folder and spec_from_file_location(fullname, ROOT / folder / "__init__.py")


sys.meta_path.insert(0, Folders)
spec = Folders.find_spec(__name__)
sys.modules[__name__] = module_from_spec(spec)
spec.loader.exec_module(sys.modules[__name__])
