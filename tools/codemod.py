"""Move a repository from the old losses to ``training_losses``: ``python tools/codemod.py PATH...``."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "checkout"))

from training_losses.migration.codemod.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
