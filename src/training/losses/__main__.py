"""``python -m training_losses``: everything that leads from the old losses to the new ones."""

import sys
from importlib import import_module

if __name__ == "__main__":
    sys.exit(import_module(".migration.__main__", __package__).main())
