"""Positional parameters of successors, read from their source without importing them."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

_ROOT = __name__.partition(".")[0]
_HOME = Path(__file__).resolve().parent.parent.parent


def _base(dotted: str) -> Path:
    """Where the files of a module are, without their suffix."""
    root, *parts = dotted.split(".")
    if root == _ROOT:  # in a checkout, its folder has another name
        return Path(sys.modules[_ROOT].__path__[0], *parts)
    return _HOME.joinpath(root, *parts)


@cache
def _module(dotted: str) -> ast.Module | None:
    """The syntax tree of a module that is installed (or checked out) beside this package."""
    base = _base(dotted)
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if file.is_file():
            return ast.parse(file.read_text(encoding="utf-8"))
    return None


def _find(dotted: str, depth: int = 0) -> ast.AST | None:
    """The definition that ``dotted`` names, re-exports followed."""
    module, _, name = dotted.rpartition(".")
    tree = _module(module)
    if tree is None or depth > 5:
        return None
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _find(f"{_source(module, node)}.{alias.name}", depth + 1)
    return None


def _source(module: str, node: ast.ImportFrom) -> str:
    """The absolute module of an import statement in ``module``."""
    if not node.level:
        return node.module or ""
    tree_is_package = _base(module).is_dir()
    parts = module.split(".")
    parts = parts[: len(parts) - node.level + (1 if tree_is_package else 0)]
    return ".".join([*parts, node.module] if node.module else parts)


@cache
def positional(dotted: str) -> tuple[str, ...] | None:
    """Names that a call of the function, or of an instance of the class, can pass by place; ``None`` if unknown."""
    node = _find(dotted)
    skip = 0
    if isinstance(node, ast.ClassDef):
        forward = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "forward"), None)
        node, skip = forward, 1
    if not isinstance(node, ast.FunctionDef):
        return None
    return tuple(a.arg for a in (*node.args.posonlyargs, *node.args.args))[skip:]
