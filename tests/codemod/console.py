"""Runs the console examples of the documentation."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

BLOCK = re.compile(r"```console\n(\$ .*?)```", re.S)
TOOL = ["training-losses", "codemod"]


def sessions(text: str) -> Iterator[list[tuple[str, str]]]:
    """The console blocks of a page, each as commands and what they print."""
    for block in BLOCK.findall(text):
        parts = re.split(r"^\$ (.*)\n", block, flags=re.M)[1:]
        yield list(zip(parts[::2], parts[1::2], strict=True))


def answer(command: str, shown: str, folder: Path, run: Callable[[list[str]], str]) -> str:
    """What a command prints in ``folder``. ``cat FILE`` makes the file that is shown, if there is none."""
    words = shlex.split(command)
    if words[:2] == TOOL:
        return run(words[2:])
    if words[0] == "cat" and not (folder / words[1]).exists():
        (folder / words[1]).parent.mkdir(parents=True, exist_ok=True)
        (folder / words[1]).write_text(shown, encoding="utf-8")
        return shown
    done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr
