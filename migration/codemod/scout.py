"""The first look at a file: can it use an old loss at all?

Most files end here, so this part is built for speed. It knows the catalog only by the names in its text, imports next
to nothing, and searches bytes:

1. Each line with the word ``import`` is looked up among the lines that were seen before; a new one is resolved, if it
   has a part of an old path in it, by the place of the file.
2. Quoted paths are searched for, too, except in a large tree without any find in which no folder, file or import has
   the name of their package: there ``"dynvision.base"`` is not looked for when nothing is called ``dynvision``, which
   would take as long as reading once more. ``Seen.unsought`` says so.

A path that is put together from pieces is not seen.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing, re and argparse take as long as the search of a small tree
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from ..catalog import Catalog
    from .words import OldWords

LARGEST = 1_000_000
"""Longer texts of no known kind are data."""
SMALL = 8_000_000
"""Trees of less than so many bytes are always searched for quoted paths."""

_WORDS = bytes(byte if byte in b"_.,;*" or (byte < 128 and chr(byte).isalnum()) else 32 for byte in range(256))
"""What is no ASCII word, point, comma, star or semicolon becomes white space."""
_AT_ONCE = 1 << 16
_READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0)

Relative = tuple[int, str]
Quoted = list[tuple[bytes, tuple[bytes, ...]]]


class Scout:
    """What to look for.

    Args:
        modules: dotted paths of old modules and packages.
        aliased: dotted paths of names that a package re-exported which is itself no old one.
        texts: the catalogs, from which further names are read when they are needed.
    """

    def __init__(self, modules: set[str], aliased: set[str], texts: Sequence[str]) -> None:
        self.texts = texts
        self.full = modules | aliased
        self.prefixes = {prefix for path in self.full for prefix in prefixes(path)}
        self.depth = max((path.count(".") for path in self.prefixes), default=0) + 1
        parts = {part for path in self.full for part in path.split(".")}
        self.parts = frozenset(part.encode() for part in parts)
        self.files = frozenset(part + suffix for part in (*parts, "__init__") for suffix in (".py", ".pyi"))
        self.homes = self.full | {path.rpartition(".")[0] for path in aliased}
        self.firsts = frozenset(path.partition(".")[0].encode() for path in self.full)
        self.signs: set[bytes] = set()
        self._old: OldWords | None = None
        self._verdicts: dict[bytes, bool | tuple[Relative, ...]] = {}
        self._relatives: dict[tuple[str, tuple[Relative, ...]], bool] = {}
        self._dots: dict[bytes, int] = {}
        self._levels: dict[tuple[str, int], list[str]] = {}
        self._places: dict[str, bool] = {}

    def quoted(self, firsts: Collection[bytes]) -> Quoted:
        """What to search for to find quoted paths whose first part is one of ``firsts``: see ``quotes``."""
        heads: dict[str, set[str]] = {}
        for path in self.full:
            first, _, rest = path.partition(".")
            second = rest.partition(".")[0]
            if first.encode() not in firsts:
                continue
            if first in self.full:
                heads.setdefault(first, set()).update(q + first + end for q in "\"'" for end in (q, ".", ":"))
            else:
                heads.setdefault(f".{second}", set()).add(f"{first}.{second}")
            if first == "src" and second:
                # relative paths that begin behind `src`, which is too common to look into all files below it
                heads[f".{second}"].update(f"{lead}.{second}" for lead in "\"'.")
        shortest = [needle for needle in heads if not any(needle != n and needle.startswith(n) for n in heads)]
        joined = {n: set().union(*(more for m, more in heads.items() if m.startswith(n))) for n in shortest}
        return [(n.encode(), tuple(head.encode() for head in sorted(more))) for n, more in sorted(joined.items())]

    @property
    def old(self) -> OldWords:
        """Patterns for a closer look, made when they are needed."""
        if self._old is None:
            from .words import OldWords

            self._old = OldWords(self.texts, self.full)
        return self._old

    # -- one file ------------------------------------------------------------------------------------------------

    def interesting(self, path: str, kind: str, data: bytes) -> bool:
        """Whether a file of any kind deserves a second look, by itself."""
        return self.first(path, kind, data) or (kind == "python" and self.quotes(data, self.quoted(self.firsts)))

    def python(self, path: str, data: bytes) -> bool:
        """Whether a Python file deserves to be parsed, by itself."""
        return self.interesting(path, "python", data)

    def first(self, path: str, kind: str, data: bytes) -> bool:
        """Whether a file deserves a second look, quoted paths (``quotes``) aside."""
        if kind == "python":
            if self._imports(path, data) or (self._at_home(path) and self.old.mentioned(data)):
                return True
            return self._inside(path) and (b'".' in data or b"'." in data) and self.old.leaves.search(data) is not None
        if kind == "config":
            return self.old.in_config(data) or self.old.pathed(data)
        if kind == "text":
            return len(data) <= LARGEST and b"\0" not in data and self.old.pathed(data)
        if kind == "notebook":
            data = data.replace(b"\\n", b"\n").replace(b"\\t", b"\t")  # a line of code begins behind these
        if self.old.mentioned(data):
            return True
        return kind != "shell" and b"import" in data and (self._imports(path, data) or self.old.rooted(data))

    def quotes(self, data: bytes, quoted: Quoted) -> bool:
        """Whether the file may quote an old path: it has one of a few strings, one of its heads, and an old name."""
        if not any(needle in data and any(head in data for head in heads) for needle, heads in quoted):
            return False
        old = self.old
        if old.words.search(data) or old.leaves.search(data):
            return True
        return b"import" in data and old.rooted(data)

    # -- places --------------------------------------------------------------------------------------------------

    def _at_home(self, path: str) -> bool:
        """Whether the file has the place of an old module."""
        directory, _, name = path.rpartition(os.sep)
        if name not in self.files:
            return False
        parts = _folders(directory)
        if not name.startswith("__init__."):
            parts = [*parts, name.rpartition(".")[0]]
        return self._ends(parts, self.homes)

    def _inside(self, path: str) -> bool:
        """Whether the file lies in a package on an old path, so that a relative path may be an old one."""
        directory = path.rpartition(os.sep)[0]
        inside = self._places.get(directory)
        if inside is None:
            parts = _folders(directory)
            inside = self._places[directory] = any(
                parts[end - 1] != "src" and self._ends(parts[:end], self.prefixes) for end in range(1, len(parts) + 1)
            )
        return inside

    def _ends(self, parts: Sequence[str], known: Collection[str]) -> bool:
        """Whether the last ones of ``parts`` are in ``known``."""
        longest = min(self.depth, len(parts))
        return any(".".join(parts[len(parts) - n :]) in known for n in range(1, longest + 1))

    def _related(self, path: str) -> bool:
        """Whether ``path`` leads to an old path, is one, or lies below one."""
        return path in self.prefixes or any(prefix in self.full for prefix in prefixes(path))

    # -- imports -------------------------------------------------------------------------------------------------

    def _imports(self, path: str, data: bytes) -> bool:
        """Whether an import statement may mean an old path."""
        verdicts = self._verdicts
        directory = path.rpartition(os.sep)[0]
        at = data.find(b"import")
        while at >= 0:
            start = data.rfind(b"\n", 0, at) + 1
            end = data.find(b"\n", at)
            if end < 0:
                end = len(data)
            text = data[start:end]
            verdict = verdicts.get(text)
            if verdict is None and self._elsewhere(directory, text):
                verdict = False
            elif verdict is None or data.endswith((b"\\\n", b"\\\r\n"), 0, start):
                start, end = _statement(data, start, at, end)
                text = data[start:end]
                # what the end of the file cuts off may be the first line of a whole statement elsewhere
                verdict = self._resolve(text) if end < len(data) else self._concern(text)
            if verdict is not False and (verdict is True or self._relative(directory, verdict)):
                return True
            at = data.find(b"import", end)
        return False

    def _elsewhere(self, directory: str, line: bytes) -> bool:
        """Whether the line is `from a.b import` and nothing of ours is there; what follows does not matter."""
        level = self._dots.get(line)
        if level is None:
            level = self._dots[line] = self._count_dots(line)
        return level >= 0 and (level == 0 or not self._bases(directory, level))

    def _count_dots(self, line: bytes) -> int:
        """Before the module of a line `from .a import`; -1 if it is no such line, or imports something of ours."""
        parts = line.split(None, 2)
        if len(parts) < 3 or parts[0] != b"from" or not parts[2].startswith(b"import"):
            return -1
        module = parts[1]
        if b";" in line or b"\r" in line[:-1] or module.partition(b".")[0] in self.firsts:
            return -1
        return len(module) - len(module.lstrip(b"."))

    def _resolve(self, text: bytes) -> bool | tuple[Relative, ...]:
        """Whether the imports in ``text`` concern us; relative ones are left to the place of the file."""
        known = self._verdicts.get(text)
        if known is None:
            known = self._verdicts[text] = self._concern(text)
        return known

    def _concern(self, text: bytes) -> bool | tuple[Relative, ...]:
        tokens = words(text)
        if self.parts.isdisjoint(tokens):
            return False
        relative: set[Relative] = set()
        for level, path in imported(tokens, b"#" in text):
            if level:
                relative.add((level, path))
                continue
            self.signs.add(path.partition(".")[0].encode())
            if self._related(path):
                return True
        return tuple(sorted(relative)) or False

    def _relative(self, directory: str, imports: tuple[Relative, ...]) -> bool:
        known = self._relatives.get((directory, imports))
        if known is None:
            known = self._relatives[directory, imports] = any(
                self._related(f"{base}.{tail}" if tail else base)
                for level, tail in imports
                for base in self._bases(directory, level)
            )
        return known

    def _bases(self, directory: str, level: int) -> list[str]:
        """Those of the names of the package ``level`` points up to that are, lead to or lie below an old path."""
        known = self._levels.get((directory, level))
        if known is None:
            folders = _folders(directory)
            end = len(folders) - level + 1
            names = (".".join(folders[start:end]) for start in range(max(0, end - self.depth), end))
            known = self._levels[directory, level] = [name for name in names if self._related(name)]
        return known


def words(text: bytes) -> list[bytes]:
    """Names and the signs that matter in imports."""
    for sign in (b".", b",", b";", b"*"):
        text = text.replace(sign, b" " + sign + b" ")
    return text.translate(_WORDS).split()


def imported(tokens: Iterable[bytes], comments: bool) -> list[Relative]:
    """Level and dotted path of all that may be imported; ``comments``: words of comments may stand between them."""
    found: list[Relative] = []
    base: list[str] | None = None
    reading = ""
    current: list[str] = []
    joined = renamed = expected = False
    for token in tokens:
        if renamed:
            renamed = False
        elif token == b"as":
            renamed = not comments
        elif token == b"from":
            reading, base = "from", []
        elif token == b"import":
            reading, current, joined, expected = "import", [], False, True
            if base is not None:
                found.append(_dotted(base))
            else:
                base = []
        elif token == b";":
            reading, base = "", None
        elif reading == "from" and base is not None:
            base.append(token.decode())
        elif reading and token == b".":
            joined = True
        elif reading and token == b",":
            expected = True
        elif reading and not (joined or expected or comments):
            reading, base = "", None
        elif reading:
            current = [*current, token.decode()] if joined else [token.decode()]
            joined = expected = False
            if token != b"*":
                found.append(_dotted([*(base or []), *current]))
    return found


def _dotted(parts: Sequence[str]) -> Relative:
    names = [part for part in parts if part != "."]
    level = next((n for n, part in enumerate(parts) if part != "."), len(parts))
    return level, ".".join(names)


def _statement(data: bytes, start: int, at: int, end: int) -> tuple[int, int]:
    """Widen the line ``start`` .. ``end`` over the statement of the ``import`` at ``at``."""
    while data.endswith((b"\\\n", b"\\\r\n"), 0, start):
        start = data.rfind(b"\n", 0, start - 1) + 1
    while data[at:end].rstrip(b"\r").endswith(b"\\") and end < len(data):
        end = (data.find(b"\n", end + 1) + 1 or len(data) + 1) - 1
    bracket = data.find(b"(", at, end)
    if bracket >= 0 and not data[at + len(b"import") : bracket].strip(b" \t\f\\\r\n"):
        while b")" not in data[bracket:end].rpartition(b"\n")[2].partition(b"#")[0] and end < len(data):
            end = (data.find(b"\n", end + 1) + 1 or len(data) + 1) - 1
    return start, end


def prefixes(path: str) -> list[str]:
    """``a``, ``a.b``, ``a.b.c`` of ``a.b.c``."""
    parts = path.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _folders(directory: str) -> list[str]:
    return os.path.abspath(directory).split(os.sep)


# -- many files -----------------------------------------------------------------------------------------------------


class Seen:
    """What the first look at many files found: the paths to look at again, those that cannot be read, their size.

    ``unsought`` are packages whose quoted paths were not looked for.
    """

    def __init__(self) -> None:
        self.found: list[str] = []
        self.failed: list[tuple[str, OSError]] = []
        self.unsought: list[str] = []
        self.size = 0
        self.signs: set[bytes] = set()

    def join(self, other: Seen) -> None:
        self.found += other.found
        self.failed += other.failed
        self.size += other.size
        self.signs |= other.signs


def read_bytes(path: str) -> bytes:
    """The content of a file, with as few system calls as will do."""
    handle = os.open(path, _READ_ONLY)
    try:
        data = os.read(handle, _AT_ONCE)
        if len(data) < _AT_ONCE:
            return data
        parts = [data]
        while data:
            data = os.read(handle, _AT_ONCE << 4)
            parts.append(data)
        return b"".join(parts)
    finally:
        os.close(handle)


def look(scout: Scout, files: Iterable[tuple[str, str]], progress: Callable[[int, str], None] | None = None) -> Seen:
    """The first look at ``(path, kind)`` pairs, quoted paths aside."""
    seen = Seen()
    size = 0
    for number, (path, kind) in enumerate(files):
        if progress is not None:
            progress(number, path)
        try:
            data = read_bytes(path)
        except OSError as error:
            seen.failed.append((path, error))
            continue
        size += len(data)
        if scout.first(path, kind, data):
            seen.found.append(path)
    seen.size = size
    seen.signs = scout.signs
    return seen


def look_again(scout: Scout, files: Iterable[str], firsts: Collection[bytes]) -> list[str]:
    """Those of the Python ``files`` that quote an old path."""
    found = []
    quoted = scout.quoted(firsts)
    for path in files:
        try:
            if scout.quotes(read_bytes(path), quoted):
                found.append(path)
        except OSError:
            continue  # the first look reported it
    return found


def search(
    scout: Scout,
    files: Sequence[tuple[str, str]],
    progress: Callable[[int, str], None] | None = None,
    jobs: int = 1,
    thorough: bool = False,
) -> Seen:
    """The files of a tree that deserve a second look, in the order of ``files``."""
    if jobs > 1:
        import functools
        from concurrent.futures import ProcessPoolExecutor

        seen = Seen()
        with ProcessPoolExecutor(jobs) as pool:
            for part in pool.map(functools.partial(look, scout), [files[start::jobs] for start in range(jobs)]):
                seen.join(part)
    else:
        seen = look(scout, files, progress)
    if progress is not None:
        progress(-1, "")
    firsts = scout.firsts
    if seen.size >= SMALL and not (seen.found or thorough):
        named = seen.signs.union(os.path.splitext(step)[0].encode() for step in _steps(path for path, _ in files))
        seen.unsought = sorted(first.decode() for first in firsts - named)
        firsts &= named
    done = {*seen.found, *(path for path, _ in seen.failed)}
    if firsts:
        done.update(look_again(scout, [p for p, kind in files if kind == "python" and p not in done], firsts))
    failed = {path for path, _ in seen.failed}
    seen.found = [path for path, _ in files if path in done and path not in failed]
    return seen


def _steps(paths: Iterable[str]) -> set[str]:
    """The names of all folders and files of ``paths``."""
    folders: set[str] = set()
    names: set[str] = set()
    for path in paths:
        folder, _, name = path.rpartition(os.sep)
        folders.add(folder)
        names.add(name)
    return names.union(*(folder.split(os.sep) for folder in folders))


# -- catalogs -------------------------------------------------------------------------------------------------------


def builtin_texts() -> list[str]:
    """The catalogs of this project, as text."""
    folder = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "catalog")
    folders = (folder, os.path.join(folder, "moved"))
    paths = [os.path.join(place, name) for place in folders for name in sorted(os.listdir(place))]
    return [read_bytes(path).decode() for path in paths if path.endswith(".toml")]


def scout(texts: Sequence[str]) -> Scout:
    """The scout for catalogs of this project with these texts, without parsing them: see ``of_catalog`` for others."""
    modules: set[str] = set()
    aliased: set[str] = set()
    for text in texts:
        top = text.partition("\n[")[0]
        roots, parents = strings(top, "roots"), strings(top, "parents")
        if "package=false" not in top.replace(" ", ""):
            modules.update(roots)
        for header, body in sections(text):
            if header == "module":
                (old,) = strings(body, "old") or [""]
                modules.update(strings(body, "paths") or [f"{root}.{old}" for root in roots])
            elif header == "symbol":
                for path in strings(body, "aliases"):
                    module = path.rpartition(".")[0]
                    (aliased if module in parents else modules).add(path if module in parents else module)
    return Scout(modules, aliased, texts)


def of_catalog(catalog: Catalog) -> Scout:
    """The scout for a catalog that was read already."""
    modules = {path.rpartition(".")[0] for symbol in catalog.symbols for path in symbol.all_paths}
    passed = {package for package in catalog.packages if not any(m.startswith(f"{package}.") for m in modules)}
    paths = {path for symbol in catalog.symbols for path in symbol.all_paths}
    aliased = {path for path in paths if path.rpartition(".")[0] in passed}
    made = Scout({*catalog.modules, *(modules - passed)}, aliased, ())
    made.old.names = {path.rpartition(".")[2] for path in paths}
    made.old.configs = {name for rule in catalog.configs for name in rule.names}
    made.old.configs.update(*(rule.words for rule in catalog.factories))
    return made


def sections(text: str) -> list[tuple[str, str]]:
    """Header and text of each section of a catalog that has a name in it for us."""
    parts = (part.partition("\n") for part in text.split("\n[")[1:])
    kinds = {"[module]]": "module", "[symbol]]": "symbol", "config.names]": "config.names"}
    kinds |= {"[config]]": "config", "[config.form]]": "config"}
    return [(kinds[header.strip()], body) for header, _, body in parts if header.strip() in kinds]


def strings(body: str, key: str) -> list[str]:
    """The string, or the strings of the list, behind ``key``."""
    _, found, rest = f"\n{body}".partition(f"\n{key}")
    name, _, value = rest.partition("=")
    if not found or name.strip():
        return []
    value = value.lstrip()
    return value.partition("]" if value.startswith("[") else "\n")[0].split('"')[1::2]
