"""The report: text, JSON, SARIF, GitHub annotations."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any

from .closing import closing
from .codes import RULES
from .project import Change, Outcome
from .text import Finding

_ORDER = ("change", "note", "left", "error")


def diff(change: Change) -> str:
    """A unified diff of one file."""
    old, new = (text.splitlines(keepends=True) for text in (change.old_text, change.new_text))
    lines = []
    for row in difflib.unified_diff(old, new, f"a/{change.path}", f"b/{change.path}"):
        lines.append(row if row.endswith(("\n", "\r")) else f"{row}\n\\ No newline at end of file\n")
    return "".join(lines)


def line(finding: Finding) -> str:
    """One finding on one line."""
    return f"{finding.path}:{finding.line}:{finding.column}: {finding.code} {finding.level}: {finding.message}"


def text(outcome: Outcome, wrote: bool, show_diff: bool) -> str:
    """Diffs, what is left and noted, and the summary."""
    parts = [diff(change) for change in outcome.changes] if show_diff else []
    shown = [f for f in outcome.findings if f.level != "change"]
    if parts and shown:
        parts.append("\n")
    parts += [f"{line(f)}\n" for f in shown]
    parts.append(summary(outcome, wrote))
    return "".join(parts)


def summary(outcome: Outcome, wrote: bool) -> str:
    """Counts per rule and one closing line."""
    lines = []
    counts = outcome.counts()
    if counts:
        lines.append("")
        order = {level: index for index, level in enumerate(_ORDER)}
        for code in sorted(counts, key=lambda c: (order[RULES[c].level], c)):
            lines.append(f"{counts[code]:6d}  {code}  {RULES[code].title}")
        lines.append("")
    left = sum(f.level == "left" for f in outcome.findings)
    errors = sum(f.level == "error" for f in outcome.findings)
    lines.append(closing(outcome.scanned, outcome.matched, len(outcome.changes), wrote, left, errors, outcome.unsought))
    return "\n".join(lines)


def as_json(outcome: Outcome, wrote: bool, show_diff: bool) -> str:
    """One JSON object."""
    data = {
        "version": 1,
        "written": wrote,
        "scanned": outcome.scanned,
        "matched": outcome.matched,
        "unsought": outcome.unsought,
        "files": [
            {"path": c.path, "symbols": sorted(c.symbols), **({"diff": diff(c)} if show_diff else {})}
            for c in outcome.changes
        ],
        "findings": [f.__dict__ for f in outcome.findings],
        "counts": dict(sorted(outcome.counts().items())),
    }
    return json.dumps(data, indent=2) + "\n"


def sarif(findings: Iterable[Finding], version: str) -> str:
    """SARIF 2.1.0."""
    levels = {"change": "warning", "left": "warning", "note": "note", "error": "error"}
    findings = list(findings)
    used = sorted({f.code for f in findings})
    results: list[dict[str, Any]] = [
        {
            "ruleId": f.code,
            "ruleIndex": used.index(f.code),
            "level": levels[f.level],
            "message": {"text": f.message},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": f.path.replace("\\", "/")},
                        "region": {"startLine": f.line, "startColumn": f.column},
                    }
                }
            ],
        }
        for f in findings
    ]
    rules = [
        {"id": c, "shortDescription": {"text": RULES[c].title}, "fullDescription": {"text": RULES[c].text}}
        for c in used
    ]
    driver = {"name": "training-losses codemod", "version": version, "rules": rules}
    run = {"tool": {"driver": driver}, "results": results, "columnKind": "unicodeCodePoints"}
    return json.dumps(
        {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}, indent=2
    ) + "\n"  # fmt: skip


def github(findings: Iterable[Finding]) -> str:
    """Workflow commands that annotate a pull request."""
    kinds = {"change": "warning", "left": "warning", "note": "notice", "error": "error"}

    def escape(value: str, property_: bool = False) -> str:
        value = value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
        return value.replace(":", "%3A").replace(",", "%2C") if property_ else value

    return "".join(
        f"::{kinds[f.level]} file={escape(f.path, True)},line={f.line},col={f.column},title={f.code}"
        f"::{escape(f.message)}\n"
        for f in findings
    )
