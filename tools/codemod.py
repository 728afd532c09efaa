"""Move a repository from the old losses to ``training.losses``: ``python tools/codemod.py PATH...``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from migration.codemod.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
