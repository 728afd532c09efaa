"""The first look at a file: can it use an old loss at all?

Most files end here, so this part is built for speed. It knows the catalog only by the names in its text, imports next
to nothing, and searches bytes:

1. Each line with the word ``import`` is looked up among the lines that were seen before; a new one is resolved, if it
   has a part of an old path in it, by the place of the file.
2. Quoted paths are searched for when the tree is small, or when a folder, a file or any import in it has the name of
   their package. So a large tree in which nothing is called ``dynvision`` is not searched for ``"dynvision.base"``.

A path that is put together from pieces is not seen.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing, re and argparse take as long as the search of a small tree
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from ..catalog import Catalog
    from .words import OldWords

SMALL = 8_000_000
"""Trees of less than so many bytes are searched for everything."""

_WORDS = bytes(byte if byte in b"_.;*" or (byte < 128 and chr(byte).isalnum()) else 32 for byte in range(256))
"""What is no ASCII word, point, star or semicolon becomes white space."""
_AT_ONCE = 1 << 16
_READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0)

Relative = tuple[int, str]


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
        self.quoted = self._quoted()
        # relative paths that begin behind `src`, which is too common to look into all files below it
        self.tails = tuple({f".{path.split('.')[1]}".encode() for path in self.full if path.startswith("src.")})
        self.signs: set[bytes] = set()
        self._old: OldWords | None = None
        self._verdicts: dict[bytes, bool | tuple[Relative, ...]] = {}
        self._relatives: dict[tuple[str, tuple[Relative, ...]], bool] = {}
        self._places: dict[str, bool] = {}

    def _quoted(self) -> list[tuple[bytes, tuple[bytes, ...]]]:
        """The first part of old paths, and strings one of which is in each quoted path with that part."""
        found: dict[str, set[str]] = {}
        for path in self.full:
            first, *rest = path.split(".")
            heads = found.setdefault(first, set())
            if first in self.full:
                heads |= {quote + first + end for quote in "\"'" for end in (quote, ".")}
            else:
                heads.add(f"{first}.{rest[0]}")
        return [(first.encode(), tuple(head.encode() for head in sorted(heads))) for first, heads in found.items()]

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
        return self.first(path, kind, data) or (kind == "python" and self.quotes(data, [f for f, _ in self.quoted]))

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
            return self.old.in_config(data)
        return self.old.mentioned(data)

    def quotes(self, data: bytes, firsts: Collection[bytes]) -> bool:
        """Whether the file may quote an old path whose first part is one of ``firsts``."""
        if any(first in firsts and any(head in data for head in heads) for first, heads in self.quoted):
            return self.old.words.search(data) is not None
        return b"src" in firsts and any(tail in data for tail in self.tails) and bool(self.old.leaves.search(data))

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
        at = data.find(b"import")
        while at >= 0:
            start = data.rfind(b"\n", 0, at) + 1
            end = data.find(b"\n", at)
            if end < 0:
                end = len(data)
            verdict = verdicts.get(data[start:end])
            if verdict is None or data.endswith((b"\\\n", b"\\\r\n"), 0, start):
                start, end = _statement(data, start, at, end)
                verdict = self._resolve(data[start:end])
            if verdict is not False and (verdict is True or self._relative(path, verdict)):
                return True
            at = data.find(b"import", end)
        return False

    def _resolve(self, text: bytes) -> bool | tuple[Relative, ...]:
        """Whether the imports in ``text`` concern us; relative ones are left to the place of the file."""
        known = self._verdicts.get(text)
        if known is None:
            known = self._verdicts[text] = self._concern(text)
        return known

    def _concern(self, text: bytes) -> bool | tuple[Relative, ...]:
        tokens = text.replace(b".", b" . ").replace(b";", b" ; ").replace(b"*", b" * ").translate(_WORDS).split()
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

    def _relative(self, path: str, imports: tuple[Relative, ...]) -> bool:
        directory = path.rpartition(os.sep)[0]
        known = self._relatives.get((directory, imports))
        if known is None:
            known = self._relatives[directory, imports] = self._leads_here(_folders(directory), imports)
        return known

    def _leads_here(self, folders: list[str], imports: Iterable[Relative]) -> bool:
        for level, tail in imports:
            base = folders[: len(folders) - level + 1]
            for count in range(1, min(len(base), self.depth) + 1):
                if self._related(".".join([*base[-count:], tail] if tail else base[-count:])):
                    return True
        return False


def imported(tokens: Iterable[bytes], comments: bool) -> list[Relative]:
    """Level and dotted path of all that may be imported; ``comments``: words of comments may stand between them."""
    found: list[Relative] = []
    base: list[str] | None = None
    reading = ""
    current: list[str] = []
    joined = renamed = False
    for token in tokens:
        if renamed:
            renamed = False
        elif token == b"as":
            renamed = not comments
        elif token == b"from":
            reading, base = "from", []
        elif token == b"import":
            reading, current, joined = "import", [], False
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
        elif reading:
            current = [*current, token.decode()] if joined else [token.decode()]
            joined = False
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
    """What the first look at many files found: the paths to look at again, those that cannot be read, their size."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.failed: list[tuple[str, OSError]] = []
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


def look_again(scout: Scout, files: Iterable[str], firsts: Sequence[bytes]) -> list[str]:
    """Those of the Python ``files`` that quote an old path."""
    found = []
    for path in files:
        try:
            if scout.quotes(read_bytes(path), firsts):
                found.append(path)
        except OSError:
            continue  # the first look reported it
    return found


def search(
    scout: Scout,
    files: Sequence[tuple[str, str]],
    progress: Callable[[int, str], None] | None = None,
    jobs: int = 1,
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
    named = seen.signs
    if seen.size >= SMALL:
        named = named | {os.path.splitext(part)[0].encode() for part in _steps(path for path, _ in files)}
    firsts = [first for first, _ in scout.quoted if seen.size < SMALL or first in named]
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
    return read_texts([os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(".toml")])


def read_texts(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """The catalogs as text; a file that cannot be read is left to the reader of the catalog, which says why."""
    texts = []
    for path in paths:
        try:
            with open(path, encoding="utf-8") as handle:
                texts.append(handle.read())
        except (OSError, UnicodeDecodeError):
            continue
    return texts


def scout(texts: Sequence[str]) -> Scout:
    """The scout for catalogs with these texts. It may see more names than there are, never fewer."""
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
