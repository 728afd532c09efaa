"""Build the documentation site into ``site/``: everything offline, no fonts or scripts from elsewhere.

    python tools/docs_site.py [--output site]

The pages of ``docs/`` are joined by generated ones: the gallery of losses (from the registry and the catalog), the API
(from the docstrings), and the parity report of the last run (``python -m training_losses report``).
"""

from __future__ import annotations

import argparse
import inspect
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from training_losses import LossRegistry
from training_losses._public import PUBLIC
from training_losses.migration.catalog import builtin_catalog

ROOT = Path(__file__).resolve().parents[1]
SYSTEMS = {
    "multimodal_insight": "Vision and text",
    "alignment": "Video alignment",
    "hjepa": "Joint-embedding prediction",
    "dynvision": "Over time",
    "triangulate": "Perceptual and balancing",
}
REPORT = ROOT / "parity-report"
COSTS = (
    "Costs are orders of magnitude: multiplications of a forward and a backward pass, and numbers held in between, "
    "for B rows, D wide. Measured times and memory, old against new: see the benchmarks and the parity report."
)
MODULES = ["base", "functional", "loss_registry", "config"]


def sections(docstring: str) -> dict[str, str]:
    """First paragraph, first formula and paper of a class docstring."""
    text = inspect.cleandoc(docstring)
    formula = re.search(r"::\n\n((?:    .+\n?|\n)+)", text)
    paper = re.search(r"^Papers?: (.+?)(?:\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    return {
        "what": text.split("\n\n")[0].replace("\n", " "),
        "formula": inspect.cleandoc(formula.group(1)).strip() if formula else "",
        "paper": paper.group(1).replace("\n", " ") if paper else "",
    }


def gallery() -> str:
    """One entry per registered loss: what for, formula, cost, paper, old names."""
    catalog = builtin_catalog()
    known = tomllib.loads((ROOT / "tools" / "gallery.toml").read_text(encoding="utf-8"))
    parts = ["# Gallery of losses", "", COSTS, ""]
    family = ""
    for name in sorted(LossRegistry.available(), key=lambda n: (LossRegistry.get(n).__module__, n)):
        loss = LossRegistry.get(name)
        here = loss.__module__.split(".")[2]
        if here != family:
            family = here
            parts += [f"## {family.capitalize()}", ""]
        about = sections(loss.__doc__ or "")
        old = dict.fromkeys(s.old for s, c in catalog.of_successor(f"{loss.__module__}.{loss.__qualname__}"))
        parts += [f"### [{loss.__name__}]({name}.md)", "", about["what"], ""]
        parts += ["```text", about["formula"] or known["formula"][name], "```", ""]
        parts += [f"* Registry name: `{name}`"]
        parts += [f"* Cost: {known['cost'][name]}", f"* Paper: {about['paper'] or 'none'}"]
        parts += [f"* Old names: {', '.join(f'`{o}`' for o in old) or 'none, it is new'}", ""]
    return "\n".join(parts)


def api_pages(folder: Path) -> list[dict[str, str]]:
    """One page per module with public names; their navigation entries."""
    modules = dict.fromkeys([*MODULES, *sorted({m for m in PUBLIC.values() if "." in m})])
    folder.mkdir(parents=True)
    entries = []
    for module in modules:
        page = folder / f"{module}.md"
        page.write_text(f"# training_losses.{module}\n\n::: training_losses.{module}\n", encoding="utf-8")
        entries.append({module: f"api/{page.name}"})
    return entries


def navigation(docs: Path, api: list[dict[str, str]]) -> list[object]:
    """The tree on the left."""

    def pages(*patterns: str) -> list[object]:
        found = [path for pattern in patterns for path in sorted(docs.glob(pattern))]
        return [str(path.relative_to(docs)) for path in found if path.name != "index.md"]

    systems: list[object] = [
        {title: f"guide/{name}.md"} for name, title in SYSTEMS.items() if (docs / "guide" / f"{name}.md").exists()
    ]
    nav: list[object] = [{"Start here": "index.md"}, {"Migration guide": "LOSS_MIGRATION_GUIDE.md"}]
    nav.append({"Proof on your own run": "verify.md"})
    nav.append({"Losses": [{"Gallery": "losses/index.md"}, *pages("losses/*.md")]})
    nav.append({"By system": systems})
    nav += [{"Codemod": pages("codemod/*.md")}, {"Benchmarks": pages("benchmarks/*.md")}]
    nav += [{"Parity report": "report.md"}, {"API": api}]
    return nav


def report_page(docs: Path) -> None:
    """The report of the last run: its page, and its tables. Without one, what it looks like and how to make it."""
    command = "python -m training_losses report      # in a checkout: writes parity-report/"
    intro = f"# Parity report\n\n```sh\n{command}\n```\n\n"
    if (REPORT / "report.html").exists():
        shutil.copy(REPORT / "report.html", docs / "parity.html")
        tables = (REPORT / "report.md").read_text(encoding="utf-8").partition("\n")[2]
        text = f"{intro}[The report of the last run](parity.html), with plots. The same in words:\n{tables}"
    else:
        text = f"{intro}There was no run in the checkout that this site was built from. It looks like this:\n\n"
        text += "![The head of a report](assets/report-desktop.png)\n"
    (docs / "report.md").write_text(text, encoding="utf-8")


def build(output: Path) -> None:
    """Assemble the pages in a temporary folder and run mkdocs on them."""
    with tempfile.TemporaryDirectory() as scratch:
        docs = Path(scratch) / "docs"
        shutil.copytree(ROOT / "docs", docs)
        for name, target in (("README.md", "index.md"), ("CONTRIBUTING.md", "CONTRIBUTING.md")):
            text = (ROOT / name).read_text(encoding="utf-8")
            text = text.replace("](docs/losses)", "](losses/index.md)").replace("](docs/", "](")
            (docs / target).write_text(text, encoding="utf-8")
        (docs / "losses").mkdir(exist_ok=True)
        (docs / "losses" / "index.md").write_text(gallery(), encoding="utf-8")
        report_page(docs)
        config = {
            "site_name": "training-losses",
            "docs_dir": str(docs),
            "site_dir": str(output.resolve()),
            "use_directory_urls": False,
            "theme": {
                "name": "material",
                "font": False,
                "palette": [{"scheme": "default", "primary": "blue grey", "accent": "orange"}],
                "features": ["navigation.sections", "navigation.top", "content.code.copy"],
            },
            "markdown_extensions": ["tables", "admonition", "pymdownx.superfences", "toc"],
            "plugins": [
                {"search": {}},
                {
                    "mkdocstrings": {
                        "handlers": {
                            "python": {
                                "paths": [str(ROOT / "tools" / "checkout")],
                                "options": {"show_source": False, "heading_level": 2, "show_root_toc_entry": False},
                            }
                        }
                    }
                },
            ],
            "nav": [*navigation(docs, api_pages(docs / "api")), {"Contributing": "CONTRIBUTING.md"}],
            "validation": {"links": {"not_found": "warn"}},
        }
        (Path(scratch) / "mkdocs.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "--quiet",
            "-f",
            str(Path(scratch) / "mkdocs.yml"),
        ]
        if subprocess.run(command, check=False).returncode:
            raise SystemExit(1)


def main() -> None:
    """Build."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=ROOT / "site")
    output = parser.parse_args().output
    build(output)
    print(f"{len(list(output.rglob('*.html')))} pages in {output}")


if __name__ == "__main__":
    main()
