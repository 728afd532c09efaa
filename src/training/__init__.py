"""In a checkout with ``src`` or its parent on ``sys.path``: the names of version 1.0 (``training.losses``)."""

import sys
from importlib import import_module
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools" / "checkout"))
import_module("training_losses.migration.aliases").stand_aside(__name__)
if __name__ == "src.training":
    import_module("training_losses.migration.shims").install()
