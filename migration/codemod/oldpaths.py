"""What is an old path in a text: full dotted paths, whatever they are used for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from ..catalog import Symbol
from .rules import Rules
from .scout import prefixes

IMPORT = re.compile(
    r"(?:^[ \t>]*|[;\"'`:]|\\n|>>>|\.\.\.)[ \t]*"
    r"(?:from[ \t]+(?P<module>[\w.]+)[ \t]+import[ \t]+(?P<names>\(?[\w \t,*]+)"
    r"|import[ \t]+(?P<plain>[\w.]+))",
    re.M,
)
_FILES = re.compile(r"\.(?:html?|rst|md|txt|py|pyi|log|json|ya?ml|toml|cfg|ini|csv|pt|pth|ckpt|png|svg|zip|gz)\Z")
_REGEX_BEHIND = re.compile(r"\\|\.\\|\.?[*+]|\||\$(?=['\"\s)]|\Z)")
_WORD_BEFORE = re.compile(r"[^\s\"'`<>]*\Z")


@dataclass(frozen=True)
class Hit:
    """An old path at a place of a text; ``imported`` by a statement there."""

    start: int
    end: int
    path: str
    symbol: Symbol | None
    imported: bool = False


class OldPaths:
    """Finds old paths by the rules of a run.

    Args:
        rules: what is wanted.
        own: whether a dotted path is a file of the tree, or a name in one, that is no copy of an old one.
    """

    def __init__(self, rules: Rules, own: Callable[[str], bool] = lambda path: False) -> None:
        self.rules, self.own = rules, own

    @cached_property
    def packages(self) -> frozenset[str]:
        """Old packages that go with everything below them. The name of one at the top level is a common word."""
        held = {prefix for module in self.rules.in_module for prefix in prefixes(module)}
        return frozenset(path for path in self.rules.catalog.owned & held if "." in path)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """A dotted path that begins as an old one does."""
        known = {*self.packages, *self.rules.in_module}
        roots = sorted((path for path in known if "." in path), key=lambda path: (-len(path), path))
        shortest = [path for path in roots if not any(path.startswith(f"{other}.") for other in roots)]
        either = "|".join(map(re.escape, shortest)) or r"(?!)"
        return re.compile(rf"(?<![\w.\\/-])(?:{either})(?:[.:][A-Za-z_]\w*)*(?!\w)")

    def packed(self, path: str) -> bool:
        """Whether ``path`` is an old package, or lies in one."""
        return any(prefix in self.packages for prefix in prefixes(path))

    def meant(self, path: str) -> tuple[bool, Symbol | None]:
        """Whether ``path`` is an old one, and the symbol that it names."""
        symbol = self._symbol(path)
        if symbol is not None:
            return True, symbol
        known = self.rules.catalog.by_path
        if any(prefix in known or prefix in self.rules.foreign for prefix in prefixes(path)):
            return False, None  # not wanted, or somebody else's
        if self.rules.select and path not in self.rules.in_module:
            return False, None
        return self.packed(path) and not self.own(path), None

    def _symbol(self, path: str) -> Symbol | None:
        for prefix in reversed(prefixes(path)):
            if prefix in self.rules.by_path and prefix not in self.rules.foreign:
                return self.rules.by_path[prefix]
        return None

    def from_import(self, module: str, name: str) -> tuple[bool, Symbol | None]:
        """What ``from module import name`` means: also an unknown name of an old module."""
        path = module if name == "*" else f"{module}.{name}"
        found = self.meant(path)
        if found[0] or path in self.rules.catalog.by_path or path in self.rules.foreign:
            return found
        return self._module(module) and not self.own(path) and not self.rules.select, None

    def imports(self, module: str) -> tuple[bool, Symbol | None]:
        """What ``import module`` means."""
        old, symbol = self.meant(module)
        return old or (self._module(module) and "." in module and not self.own(module)), symbol

    def _module(self, path: str) -> bool:
        return path in self.rules.catalog.modules and path in self.rules.in_module

    def hits(self, text: str) -> Iterator[Hit]:
        """The old paths in a text, those in import statements first."""
        taken: list[tuple[int, int]] = []
        for match in IMPORT.finditer(text):
            module = match["module"] or match["plain"]
            names = re.findall(r"[\w*]+", match["names"] or "")
            if match["module"]:
                found = [self.from_import(module, name) for name in names if name not in ("as", "import")]
            else:
                found = [self.imports(module)]
            symbol = next((symbol for old, symbol in found if symbol is not None), None)
            if any(old for old, _ in found):
                group = "module" if match["module"] else "plain"
                taken.append(match.span(group))
                yield Hit(*match.span(group), module, symbol, True)
        for match in self.pattern.finditer(text):
            start, end = match.span()
            if any(start < stop and begin < end for begin, stop in taken):
                continue
            old, symbol = self.meant(match.group().replace(":", "."))
            if old and not (_FILES.search(match.group()) or _away(text, start, end)):
                yield Hit(start, end, match.group(), symbol)


def _away(text: str, start: int, end: int) -> bool:
    """Whether the path belongs to a URL or a regular expression."""
    before = text[max(0, start - 300) : start]
    if before[-1:] in ("^", "|") or (before[-1:] != "*" and _REGEX_BEHIND.match(text, end)):
        return True
    word = _WORD_BEFORE.search(before)
    return word is not None and "://" in word.group()
