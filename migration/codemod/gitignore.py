"""The rules of ``.gitignore`` files."""

from __future__ import annotations

import re


class Ignore:
    """The rules of one ``.gitignore`` file in the directory ``base``; paths are absolute, with slashes."""

    def __init__(self, base: str, text: str) -> None:
        self.base = base.rstrip("/") + "/"
        self.rules = [rule for line in text.splitlines() if (rule := _rule(line))]
        quick = "|".join(f"(?:{pattern})" for pattern, _, _ in self.rules)
        self.quick = re.compile(quick) if quick else None
        self.compiled = [(re.compile(pattern), negated, directory) for pattern, negated, directory in self.rules]

    def verdict(self, path: str, directory: bool) -> bool | None:
        """``True`` ignored, ``False`` taken back by ``!``, ``None`` not mentioned."""
        if self.quick is None or not path.startswith(self.base):
            return None
        relative = path[len(self.base) :]
        if not self.quick.fullmatch(relative):
            return None
        for pattern, negated, only_directories in reversed(self.compiled):
            if (directory or not only_directories) and pattern.fullmatch(relative):
                return not negated
        return None


def _rule(line: str) -> tuple[str, bool, bool] | None:
    line = re.sub(r"(?<!\\)\s+$", "", line)
    if not line or line.startswith("#"):
        return None
    negated = line.startswith("!")
    line = line[1:] if negated else line
    directory = line.endswith("/")
    line = line.rstrip("/")
    anchored = "/" in line
    line = line.lstrip("/")
    if not line:
        return None
    return ("" if anchored else "(?:.*/)?") + _translate(line), negated, directory


def _translate(pattern: str) -> str:
    out = []
    position = 0
    while position < len(pattern):
        rest = pattern[position:]
        if rest.startswith("**/"):
            out.append("(?:.*/)?")
            position += 3
        elif rest.startswith("/**") and len(rest) == 3:
            out.append("/.*")
            position += 3
        elif rest[0] == "*":
            out.append("[^/]*")
            position += 1
        elif rest[0] == "?":
            out.append("[^/]")
            position += 1
        elif rest[0] == "[" and (end := rest.find("]", 2)) > 0:
            body = rest[1:end].replace("\\", "\\\\")
            out.append("[" + ("^" + body[1:] if body[0] in "!^" else body) + "]")
            position += end + 1
        elif rest[0] == "\\" and len(rest) > 1:
            out.append(re.escape(rest[1]))
            position += 2
        else:
            out.append(re.escape(rest[0]))
            position += 1
    return "".join(out)
