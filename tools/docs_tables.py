"""Fill the generated parts of the documentation, or check that they are current.

    python tools/docs_tables.py            fill every marked region under docs/
    python tools/docs_tables.py --check    write nothing; exit 1 and name the stale files
    python tools/docs_tables.py --pages    also create a page for each registered loss (or those named) that has none

A region starts with ``<!-- catalog:SELECTOR -->`` or ``<!-- docstring:DOTTED.CLASS -->`` and ends with
``<!-- /catalog -->`` or ``<!-- /docstring -->``. Selectors: ``MODULE.Name`` of an old symbol
(``SYSTEM/MODULE.Name`` where two systems share it), ``index SYSTEM``, ``examples SYSTEM``, ``deviations SYSTEM``,
``losses``, ``guides``. Everything comes from the catalog and from docstrings, which are read and not imported: torch is
not needed.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools" / "checkout"))

from training_losses.migration.catalog import (  # noqa: E402 (path above)
    MISSING,
    Argument,
    Case,
    Catalog,
    Symbol,
    Unconvertible,
    builtin_catalog,
)
from training_losses.migration.translate import Untranslatable, translate  # noqa: E402

REGION = re.compile(
    r"(?P<open><!-- (?P<kind>catalog|docstring):(?P<what>[^>]+?) -->\n)(?P<body>.*?)(?P<close><!-- /(?P=kind) -->)",
    re.S,
)
SECTIONS = {
    "Args": "Arguments",
    "Returns": "Returns",
    "Raises": "Errors",
    "Attributes": "Attributes",
    "Example": "Example",
}
PARITY = {
    "exact": "exact: equal on every valid input",
    "documented": "documented: equal inside the stated domain",
    "fixed": "fixed: the old one is broken, numbers change",
}


# --- values and cells ------------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    """Prose of the catalog: what looks like a tag outside of backticks is no tag."""
    return "".join(p if i % 2 else p.replace("<", "&lt;") for i, p in enumerate(re.split(r"(`[^`]*`)", text)))


def cell(text: str) -> str:
    return plain(text).replace("|", "\\|").replace("\n", " ")


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(cell(c) for c in row) + " |" for row in rows]) + "\n"


def fate(argument: Argument) -> tuple[str, str]:
    """New name and remark of an old argument."""
    if argument.drop is not None:
        return "", f"dropped: {argument.drop}"
    if argument.report is not None:
        return "", f"by hand: {argument.report}"
    if argument.variadic:
        return "", argument.note or "whatever is passed here is reported"
    remarks = [argument.note] if argument.note else []
    if argument.scale is not None:
        remarks.append(f"times {argument.scale:g}")
    if argument.invert:
        remarks.append("inverted")
    if argument.map is not None:
        remarks.append(", ".join(f"`{old!r}` becomes `{new!r}`" for old, new in argument.map))
    if argument.pin is not MISSING:
        remarks.append(f"`{argument.pin!r}` is written where it was left out")
    return f"`{argument.new_name}`", "; ".join(remarks)


def show_default(argument: Argument) -> str:
    name = f"{argument.variadic}{argument.name}"
    return f"`{name}`" if argument.required or argument.variadic else f"`{name}={argument.default!r}`"


# --- one old symbol ---------------------------------------------------------------------------------------------------


def find(catalog: Catalog, what: str) -> Symbol:
    system, _, old = what.rpartition("/")
    found = [s for s in catalog.symbols if s.old == old and system in ("", s.system)]
    if len(found) != 1:
        raise SystemExit(f"docs: {what!r} names {len(found)} symbols: {[f'{s.system}/{s.old}' for s in found]}")
    return found[0]


def render_case(symbol: Symbol, case: Case, numbered: bool) -> Iterator[str]:
    condition = case.describe()
    opening = f"If `{condition}`: " if condition else "Otherwise: " if numbered else ""
    target = f"`{case.new}`" if case.new else "no successor"
    yield opening + target + (f" (registry `{case.registry}`)" if case.registry else "") + "\n"
    if case.new is None:
        yield f"{plain(case.reason)}\n"
        return
    yield f"Parity {PARITY[case.parity]}" + (f" ({plain(case.domain)})" if case.domain else "") + ".\n"
    if case.deviations:
        yield "\n".join(f"* {plain(deviation)}" for deviation in case.deviations) + "\n"
    arguments = [(show_default(a), *fate(a)) for a in case.arguments.values()]
    if arguments:
        yield table(("old argument", "new", "remark"), arguments)
    if case.pins:
        yield table(
            ("pinned in migrated code", "value", "because"),
            [(f"`{p.name}`", f"`{p.value!r}`", p.reason) for p in case.pins.values()],
        )
    if case.forward:
        yield table(
            ("old call argument", "new", "remark"), [(show_default(a), *fate(a)) for a in case.forward.values()]
        )
    if case.results:
        rows = [
            (f"`{k}`", f"`{r.new}`" if r.new else "", f"dropped: {r.drop}" if r.new is None else r.differs)
            for k, r in case.results.items()
        ]
        yield table(("old result", "new", "remark"), rows)
    if case.state:
        rows = []
        for rule in case.state:
            remark = rule.drop and f"dropped: {rule.drop}"
            remark = remark or (rule.fresh and f"new: {rule.fresh}") or ("transposed" if rule.transpose else "")
            rows.append((f"`{rule.old}`" if rule.old else "", ", ".join(f"`{n}`" for n in rule.new), remark))
        yield table(("old state_dict key", "new", "remark"), rows)


def render_symbol(symbol: Symbol) -> str:
    parts = [f"**`{symbol.old}`** ({symbol.system}), {symbol.kind}; frozen twin `{symbol.twin}`.\n"]
    for case in symbol.cases:
        parts += render_case(symbol, case, len(symbol.cases) > 1)
    return "\n".join(parts)


# --- overviews --------------------------------------------------------------------------------------------------------


def link(case: Case, up: str) -> str:
    short = case.new.removeprefix("training_losses.") if case.new else "none"
    page = ROOT / "docs" / "losses" / f"{case.registry}.md"
    return f"[`{short}`]({up}losses/{case.registry}.md)" if case.registry and page.is_file() else f"`{short}`"


def symbols_of(catalog: Catalog, system: str) -> list[Symbol]:
    found = [s for s in catalog.symbols if s.system == system]
    if not found:
        raise SystemExit(f"docs: the catalog has no system {system!r}")
    return found


def render_index(catalog: Catalog, system: str, up: str) -> str:
    rows = [
        (f"`{symbol.old}`", case.describe() and f"`{case.describe()}`", link(case, up), case.parity if case.new else "")
        for symbol in symbols_of(catalog, system)
        for case in symbol.cases
    ]
    return table(("old", "if", "new", "parity"), rows)


def render_deviations(catalog: Catalog, system: str, up: str) -> str:
    parts = []
    for symbol in symbols_of(catalog, system):
        lines = []
        for case in symbol.cases:
            for line in [*case.deviations, *([case.reason] if case.new is None and case.reason else [])]:
                if line not in lines:
                    lines.append(line)
        if lines:
            parts.append(f"`{symbol.old}`:\n\n" + "\n".join(f"* {plain(line)}" for line in lines) + "\n")
    return "\n".join(parts)


def call(name: str, kwargs: dict[str, Any]) -> str:
    text = f"{name}({', '.join(f'{k}={v}' for k, v in kwargs.items())})"
    if len(text) <= 96:
        return text
    return f"{name}(\n" + "".join(f"    {k}={v},\n" for k, v in kwargs.items()) + ")"


class Given(str):
    """A value that is only known by the name of its argument."""

    def __repr__(self) -> str:
        return str(self)


def abstract(dotted: str) -> bool:
    """A class to derive from, of which there are no instances."""
    module, _, name = dotted.rpartition(".")
    bodies = [n.body for n in source_of(module).body if isinstance(n, ast.ClassDef) and n.name == name]
    decorators = [d for body in bodies for n in body if isinstance(n, ast.FunctionDef) for d in n.decorator_list]
    return any(ast.unparse(decorator) == "abstractmethod" for decorator in decorators)


def render_examples(catalog: Catalog, system: str, up: str) -> str:
    """For every old class, the call without optional arguments, before and after."""
    parts = []
    for symbol in symbols_of(catalog, system):
        if symbol.kind != "class":
            continue
        required = {n: Given(n) for n, a in symbol.signature.items() if a.required}
        for case in symbol.cases:
            chosen = {n: v[0] for n, v in case.when.items() if symbol.signature[n].default not in v}
            heads = symbol.signature.get("add_projection")
            if heads is not None and chosen.get("add_projection", heads.default):
                chosen["input_dim"] = 512
            before = f"from {symbol.paths[0].rpartition('.')[0]} import {symbol.name}\n\nloss = "
            before += call(symbol.name, {**required, **{k: repr(v) for k, v in chosen.items()}})
            try:
                picked, kwargs = translate(symbol, (), {**required, **chosen})
            except (Untranslatable, Unconvertible) as error:
                after = f"# left to you, or to the frozen twin {symbol.twin}:\n# {error}"
            else:
                if picked is not case or case.new is None or abstract(case.new):
                    continue
                module, _, name = case.new.rpartition(".")
                after = f"from {module} import {name}\n\nloss = {call(name, {k: repr(v) for k, v in kwargs.items()})}"
            if case.new is not None:
                parts.append(f"```python\n# before\n{before}\n\n# after\n{after}\n```\n")
    return "\n".join(parts)


def registry() -> dict[str, str]:
    """Registry name -> dotted class, read from the sources."""
    public = ast.parse((ROOT / "src/training/losses/_public.py").read_text("utf-8"))
    modules: dict[str, str] = {}
    for node in public.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "REGISTRY":
            modules = ast.literal_eval(node.value)
    found = {}
    for name, module in modules.items():
        for node in source_of(f"training_losses.{module}").body:
            if isinstance(node, ast.ClassDef) and any(
                ast.unparse(d).endswith(f"({name!r})") for d in node.decorator_list
            ):
                found[name] = f"training_losses.{module}.{node.name}"
    missing = sorted(set(modules) - set(found))
    if missing:
        raise SystemExit(f"docs: no class is registered under {missing}")
    return found


def render_losses(catalog: Catalog, up: str) -> str:
    rows = []
    for name, dotted in sorted(registry().items()):
        page = f"[`{name}`]({up}losses/{name}.md)" if (ROOT / "docs/losses" / f"{name}.md").is_file() else f"`{name}`"
        old = dict.fromkeys(f"`{symbol.old}`" for symbol, _ in catalog.of_successor(dotted))
        rows.append((page, f"`{dotted.removeprefix('training_losses.')}`", summary(dotted), ", ".join(old) or "new"))
    return table(("registry", "class", "what it is", "replaces"), rows)


def render_guides(up: str) -> str:
    pages = sorted((ROOT / "docs" / "guide").glob("*.md"))
    titles = [page.read_text("utf-8").splitlines()[0].lstrip("# ") for page in pages]
    return "\n".join(f"* [{t}]({up}guide/{p.name})" for t, p in zip(titles, pages, strict=True)) + "\n"


# --- docstrings -------------------------------------------------------------------------------------------------------


def source_of(module: str) -> ast.Module:
    path = ROOT / "src" / "training" / "losses" / Path(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text("utf-8"))


def docstring(dotted: str) -> str:
    module, _, name = dotted.rpartition(".")
    for node in source_of(module).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            return ast.get_docstring(node) or ""
    raise SystemExit(f"docs: there is no {dotted}")


def with_options(text: str) -> str:
    """A docstring whose argument ``options`` is followed by those of ``BaseContrastiveLoss``, which takes them."""
    base = docstring("training_losses.base.base_contrastive.BaseContrastiveLoss")
    shared = re.search(r"^Args:\n(.*)", base, re.M | re.S)
    entry = re.search(r"^    options: (?:.*\n)(?:        .*\n)*", text, re.M)
    if entry is None or shared is None:
        return text
    return f"{text[: entry.end()]}{shared[1].rstrip()}\n{text[entry.end() :]}"


def summary(dotted: str) -> str:
    text = " ".join(docstring(dotted).split("\n\n")[0].split()).replace("``", "`")
    return re.split(r"(?<=[.])\s|:\s*$", text)[0].rstrip(".:")


def to_markdown(text: str) -> str:
    """Google-style docstring -> Markdown: sections become headings, entries lists, literal blocks fenced code."""
    out: list[str] = []
    # roles name what they link to, Markdown has no links to it
    lines = re.sub(r":\w+:(?=`)", "", text.replace("``", "`")).splitlines()
    section = False
    index = 0
    while index < len(lines):
        line = lines[index]
        index += 1
        heading = re.fullmatch(r"(\w+)::?", line)
        if heading and heading[1] in SECTIONS:
            out += [f"## {SECTIONS[heading[1]]}", ""]
            section = not line.endswith("::")
            if section:
                continue
        elif line and not line[0].isspace():
            section = False
        if line.endswith("::"):
            if not (heading and heading[1] in SECTIONS):
                out += [line[:-1], ""]
            block = []
            while index < len(lines) and (not lines[index] or lines[index][0].isspace()):
                block.append(lines[index])
                index += 1
            code = textwrap.dedent("\n".join(block)).strip("\n")
            language = "python" if re.search(r"^(from|import|loss = \w+Loss\(|@)", code, re.M) else "text"
            out += [f"```{language}", code, "```", ""]
            continue
        if section and line:
            entry = line[4:]
            named = re.match(r"([\w, *`@.<>]+): (.*)", entry)
            if entry[:1].isspace() or not named:
                out.append(entry.strip() if not entry[:1].isspace() else f"  {entry.strip()}")
            else:
                out.append(f"* `{named[1]}`: {named[2]}" if "`" not in named[1] else f"* {named[1]}: {named[2]}")
            continue
        out.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip("\n") + "\n"


# --- files ------------------------------------------------------------------------------------------------------------


def render(catalog: Catalog, kind: str, what: str, up: str) -> str:
    if kind == "docstring":
        return to_markdown(with_options(docstring(what)))
    name, _, system = what.partition(" ")
    overviews = {"index": render_index, "deviations": render_deviations, "examples": render_examples}
    if what == "guides":
        return render_guides(up)
    if what == "losses":
        return render_losses(catalog, up)
    return overviews[name](catalog, system, up) if name in overviews else render_symbol(find(catalog, what))


def fill(text: str, catalog: Catalog, up: str = "") -> str:
    """``text`` with every region rendered anew; ``up`` leads from the file to ``docs/``."""
    for marker in re.findall(r"<!-- (?:catalog|docstring):[^>]*-->", text):
        if not any(m["open"].strip() == marker for m in REGION.finditer(text)):
            raise SystemExit(f"docs: the region {marker} has no end")

    def replace(match: re.Match[str]) -> str:
        return f"{match['open']}\n{render(catalog, match['kind'], match['what'].strip(), up)}\n{match['close']}"

    return REGION.sub(replace, text)


def new_page(name: str, dotted: str, catalog: Catalog) -> str:
    short = dotted.rpartition(".")[2]
    parts = [f"# {short} (`{name}`)\n"]
    parts.append(f"```python\nfrom {dotted.rpartition('.')[0]} import {short}\n```\n")
    parts.append(f"<!-- docstring:{dotted} -->\n<!-- /docstring -->\n")
    rows = {symbol.old: symbol for symbol, _ in catalog.of_successor(dotted)}
    if rows:
        parts.append("## Coming from the old classes\n")
    for old, symbol in rows.items():
        shared = sum(s.old == old for s in catalog.symbols) > 1
        parts.append(f"<!-- catalog:{f'{symbol.system}/' if shared else ''}{old} -->\n<!-- /catalog -->\n")
    return "\n".join(parts)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is stale")
    parser.add_argument("--pages", nargs="*", metavar="NAME", help="create missing pages of registered losses")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder to work on")
    arguments = parser.parse_args(argv)
    catalog = builtin_catalog()
    if arguments.pages is not None:
        for name, dotted in registry().items():
            page = arguments.docs / "losses" / f"{name}.md"
            if not page.is_file() and name in (arguments.pages or [name]):
                page.parent.mkdir(parents=True, exist_ok=True)
                page.write_text(new_page(name, dotted, catalog), "utf-8")
    stale = []
    for path in sorted(arguments.docs.rglob("*.md")):
        text = path.read_text("utf-8")
        current = fill(text, catalog, "../" * (len(path.relative_to(arguments.docs).parts) - 1))
        if current != text:
            stale.append(path)
            if not arguments.check:
                path.write_text(current, "utf-8")
    for path in stale:
        print(f"{'stale' if arguments.check else 'filled'}: {path.relative_to(arguments.docs.parent)}")
    return 1 if stale and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
