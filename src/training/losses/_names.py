"""The names of version 1.0, where nobody else owns them: ``training.losses``, ``legacy``, ``migration``.

The finder stands last, so whatever is on the path comes first; what it serves is made in ``migration.aliases``.
Nothing is imported here: every interpreter of an environment with this package loads this module.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

_FIRST = ("training", "legacy", "migration")


class OldNames:
    """Meta path finder for the names of version 1.0."""

    @classmethod
    def find_spec(cls, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """A spec for a name that 1.0 had and that no finder before this one knows."""
        if fullname.partition(".")[0] not in _FIRST:
            return None
        from importlib import import_module

        found: ModuleSpec | None = import_module(".migration.aliases", __package__).find_old_name(fullname)
        return found


if OldNames not in sys.meta_path:
    sys.meta_path.append(OldNames)
