"""Old loss code to new loss code: the catalog and everything that reads it.

Importing this package (and the catalog, the shims' finder, the codemod) does not import torch.
"""

if __name__ == "migration":
    # found in its folder, with the root of a checkout on sys.path: the one real package takes its place
    import sys
    from pathlib import Path

    sys.path.append(str(Path(__file__).resolve().parents[1] / "tools" / "checkout"))
    __import__("training_losses.migration.aliases").migration.aliases.stand_aside(__name__)
