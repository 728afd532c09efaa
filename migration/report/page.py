"""The report as one HTML page without outside references, and as Markdown."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .tally import COLUMNS, HIGHEST, KINDS, LOWEST, number, ratio, successors, table_rows

__all__ = ["STYLE", "as_html", "as_markdown", "svg", "text", "tile"]

STYLE = """
:root{--ink:#1d2733;--soft:#5c6b7a;--line:#dde3ea;--card:#fff;--page:#f4f6f9;--blue:#20527a;--gold:#d08a2e;
--green:#2e7d4f;--red:#b3372f}
@media(prefers-color-scheme:dark){:root{--ink:#e3e9ef;--soft:#93a3b3;--line:#2c3845;--card:#18212b;--page:#0f151c;
--blue:#6fb1e2;--gold:#e2a954;--green:#63c08a;--red:#ee7f76}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1080px;margin:0 auto;padding:24px 16px 60px}h1{font-size:26px;line-height:1.2;margin:0 0 4px}
h2{font-size:18px;margin:34px 0 10px}p{margin:0 0 10px}.soft{color:var(--soft)}.note{margin-top:8px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(145px,1fr));gap:10px;margin:18px 0}
.tile,.plot,details{background:var(--card);border:1px solid var(--line);border-radius:10px}
.tile{padding:10px 14px}.tile b{display:block;font-size:22px;font-variant-numeric:tabular-nums}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:12px;align-items:start}
.plot{padding:12px 14px;min-width:0}.plot h3{font-size:14px;margin:0 0 6px}svg{display:block;width:100%;height:auto}
details{margin:0 0 8px;overflow:hidden}details[open]{padding-bottom:12px}
summary,.heads{padding:10px 14px;display:grid;gap:2px 12px;align-items:center;
grid-template-columns:minmax(0,2.1fr) minmax(0,1.6fr) 116px 112px 96px}summary{cursor:pointer;list-style:none}
.heads{padding:0 15px 4px;font-size:12px;line-height:1.2;color:var(--soft);align-items:end}
summary::-webkit-details-marker{display:none}summary>*{min-width:0;overflow-wrap:anywhere}
.old{font-weight:600}.num{font-variant-numeric:tabular-nums;text-align:right}
.badge{display:inline-block;padding:1px 9px;border-radius:20px;font-size:12px;font-weight:600;
border:1px solid currentColor;white-space:nowrap}
.exact{color:var(--green)}.documented{color:var(--blue)}.fixed{color:var(--gold)}
.none{color:var(--soft)}.bad{color:var(--red)}.body{padding:0 14px}.body h4{margin:12px 0 2px;font-size:13px}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
td,th{padding:3px 14px 3px 0;text-align:right;white-space:nowrap}td:first-child,th:first-child{text-align:left}
th{color:var(--soft);font-weight:500}ul{margin:2px 0;padding-left:20px}code{font-size:.92em;overflow-wrap:anywhere}
.small{display:grid;grid-template-columns:repeat(auto-fit,minmax(240px,1fr));gap:14px;max-width:640px}
text{font:10px system-ui,sans-serif;fill:var(--soft)}.bar{fill:var(--blue)}.dot{fill:var(--blue);fill-opacity:.55}
.axis{stroke:var(--line);stroke-width:1}.slow{fill:var(--gold)}.name{fill:var(--ink)}
@media(max-width:640px){summary{grid-template-columns:minmax(0,1fr) auto}summary .new{grid-column:1/-1;order:3}
summary .num{text-align:left;order:4;font-size:13px;color:var(--soft)}summary .last{text-align:right}
.num.last:empty,.heads{display:none}h1{font-size:22px}
.badge{justify-self:end}.tile:last-child:nth-child(odd){grid-column:1/-1}}
"""


_HEADINGS = (
    "<div class=heads><span>old</span><span>new</span><span>parity</span><span class=num>compared</span>"
    "<span class=num>largest deviation</span></div>"
)


def text(value: object) -> str:
    """``value`` without characters that mean something in HTML."""
    return html.escape(str(value))


def svg(width: int, height: int, parts: Sequence[str], label: str) -> str:
    """A picture that fills the width it gets."""
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{text(label)}">{"".join(parts)}</svg>'


def _histogram(counts: Sequence[int]) -> str:
    """Bars per decade, heights by the logarithm of the count."""
    width, height, base = 320, 130, 108
    step = (width - 8) / len(counts)
    top = math.log1p(max([*counts, 1]))
    parts = [f'<line class="axis" x1="4" x2="{width - 4}" y1="{base}" y2="{base}"/>']
    for place, count in enumerate(counts):
        x, tall = 4 + place * step, (base - 16) * math.log1p(count) / top
        power = LOWEST + place - 1
        what = "no deviation" if place == 0 else f"1e{power} to 1e{power + 1}"
        if count:
            parts.append(
                f'<rect class="bar" x="{x + 1:.1f}" y="{base - tall:.1f}" width="{step - 2:.1f}" height="{tall:.1f}" '
                f'rx="1.5"><title>{what}: {count} numbers</title></rect>'
            )
        if place == 0 or power % 4 == 0:
            label = "0" if place == 0 else f"1e{power}"
            parts.append(f'<text x="{x + step / 2:.1f}" y="{base + 14}" text-anchor="middle">{label}</text>')
    return svg(width, height, parts, f"histogram of deviations from 0 to 1e{HIGHEST}")


def _scaled(value: float) -> float:
    """Signed logarithm: losses of all sizes on one axis."""
    return math.copysign(math.log10(1 + abs(value)), value)


def _scatter(points: Sequence[Sequence[float]]) -> str:
    size, edge = 220, 22
    ends = [_scaled(v) for point in points for v in point]
    low, high = min([0.0, *ends]), max([0.1, *ends])

    def place(value: float) -> float:
        return edge + (size - edge - 8) * (_scaled(value) - low) / (high - low)

    a, b = edge, size - 8
    parts = [f'<line class="axis" x1="{a}" y1="{size - a}" x2="{b}" y2="{size - b}"/>']
    for old, new in points:
        parts.append(
            f'<circle class="dot" cx="{place(old):.1f}" cy="{size - place(new):.1f}" r="2.6">'
            f"<title>old {old:.8g}, new {new:.8g}</title></circle>"
        )
    parts.append(f'<text x="{size - 8}" y="{size - 6}" text-anchor="end">old value →</text>')
    parts.append(f'<text x="12" y="{size - edge}" transform="rotate(-90 12 {size - edge})">new value →</text>')
    return svg(size, size, parts, "old against new values")


def _name(old: str, bare: Counter[str]) -> str:
    """The bare name, with its module where several symbols share it."""
    name = old.rpartition(".")[2]
    return old if bare[name] > 1 else name


def _gains(entries: Sequence[Mapping[str, Any]], key: str, label: str) -> str:
    """Bars of old / new, to the right where the new loss takes less."""
    bare = Counter(e["old"].rpartition(".")[2] for e in entries)
    found = sorted((1 / e[key], _name(e["old"], bare)) for e in entries if e[key])[::-1]
    row, left, width = 17, 168, 420
    top = max([math.log2(max(found[0][0], 2)) if found else 1.0, -math.log2(found[-1][0]) if found else 1.0])
    middle, reach = left + 92, 88
    parts = [f'<line class="axis" x1="{middle}" x2="{middle}" y1="0" y2="{row * len(found)}"/>']
    for line, (gain, name) in enumerate(found):
        long = reach * math.log2(gain) / top
        y = line * row
        x = middle if long >= 0 else middle + long
        kind = "bar" if gain >= 1 else "slow"
        shown = name if len(name) <= 27 else f"{name[:12]}…{name[-14:]}"
        parts.append(f'<text class="name" x="{left - 6}" y="{y + 12}" text-anchor="end">{text(shown)}</text>')
        parts.append(f'<rect class="{kind}" x="{x:.1f}" y="{y + 3}" width="{abs(long):.1f}" height="11" rx="2"/>')
        parts.append(f'<text x="{width - 4}" y="{y + 12}" text-anchor="end">{gain:.2g}x</text>')
    return svg(width, row * max(1, len(found)) + 4, parts, label)


def _worst(entry: Mapping[str, Any], dtype: str) -> float | None:
    kinds = entry["largest_deviation"].get(dtype)
    if not kinds:
        return 0.0
    return None if None in kinds.values() else max(kinds.values())


def _rows_html(entry: Mapping[str, Any]) -> str:
    parts = []
    for row in entry["rows"]:
        when = f" <span class=soft>if {text(row['when'])}</span>" if row["when"] else ""
        new = f"<code>{text(row['new'])}</code>" if row["new"] else "no successor"
        parts.append(f"<h4>{new} <span class='badge {row['parity']}'>{row['parity']}</span>{when}</h4>")
        for word in ("domain", "reason"):
            if row[word]:
                parts.append(f"<p><span class=soft>{word}:</span> {text(row[word])}</p>")
        if row["deviations"]:
            items = "".join(f"<li>{text(said)}</li>" for said in row["deviations"])
            parts.append(f"<ul>{items}</ul>")
    return "".join(parts)


def _entry_html(entry: Mapping[str, Any]) -> str:
    new = successors(entry) or "no successor"
    single, double = (_worst(entry, name) for name in ("float32", "float64"))
    checks = f"{entry['numbers']:,} numbers" if entry["calls"] else "not compared"
    worst = number(double if entry["largest_deviation"].get("float64") else single) if entry["calls"] else ""
    mark = " <span class='badge bad'>fails</span>" if entry["failures"] else ""
    head = (
        f"<summary><span class=old>{text(entry['old'])}{mark}</span><span class=new>{text(new)}</span>"
        f"<span class='badge {entry['parity']}' style='justify-self:start'>{entry['parity']}</span>"
        f"<span class=num>{checks}</span><span class='num last'>{worst}</span></summary>"
    )
    body = [_rows_html(entry)]
    words = [("compared", note) for note in entry["notes"]]
    words += [("not compared", entry["not_compared"])] if entry["not_compared"] else []
    body += [f"<p><span class=soft>{word}:</span> {text(said)}</p>" for word, said in words]
    if entry["failures"]:
        items = "".join(f"<li>{text(said)}</li>" for said in entry["failures"][:20])
        body.append(f"<h4 class=bad>Failures ({len(entry['failures'])})</h4><ul>{items}</ul>")
    if entry["calls"]:
        lines = "".join(
            f"<tr><td>{dtype}</td>" + "".join(f"<td>{number(kinds[k])}</td>" for k in KINDS) + "</tr>"
            for dtype, kinds in entry["largest_deviation"].items()
        )
        kinds_head = "".join(f"<th>{kind}</th>" for kind in KINDS)
        body.append(
            f"<h4>Largest deviations</h4><div class=scroll><table><tr><th></th>{kinds_head}</tr>{lines}</table></div>"
            f"<p class=soft>{entry['calls']} calls, {entry['recorded_calls']} of them recorded; new / old: "
            f"time {ratio(entry['time_ratio'])}, memory {ratio(entry['memory_ratio'])}</p>"
            f"<div class=small><div>{_histogram(entry['histogram'])}</div>"
            f"<div style='max-width:220px'>{_scatter(entry['losses'])}</div></div>"
        )
    return f"<details>{head}<div class=body>{''.join(body)}</div></details>"


def tile(value: object, label: str, kind: str = "") -> str:
    """A number with what it counts."""
    return f"<div class=tile><b class='{kind}'>{text(value)}</b><span class=soft>{text(label)}</span></div>"


def as_html(data: Mapping[str, Any]) -> str:
    """One page: tiles, four plots, and a card per old symbol."""
    entries: Sequence[Mapping[str, Any]] = data["symbols"]
    compared = [e for e in entries if e["calls"]]
    total = [sum(column) for column in zip(*(e["histogram"] for e in compared), strict=True)] or [0, 0]
    points = [p for e in compared for p in e["losses"][:12]]
    failures = sum(len(e["failures"]) for e in entries)
    tiles = "".join(
        [
            tile(len(compared), f"of {len(entries)} old symbols compared"),
            tile(f"{data['numbers']:,}", "numbers compared"),
            tile(number(data["largest_deviation"]["float64"]), "largest deviation, float64"),
            tile(number(data["largest_deviation"]["float32"]), "largest deviation, float32"),
            tile(failures, "beyond the tolerance", "bad" if failures else "exact"),
        ]
    )
    plots = "".join(
        f"<div class=plot><h3>{title}</h3>{_gains(compared, key, title)}</div>"
        for title, key in (("Speed: old time / new time", "time_ratio"), ("Memory: old / new", "memory_ratio"))
    )
    sections = []
    for system in dict.fromkeys(e["system"] for e in entries):
        cards = "".join(_entry_html(e) for e in entries if e["system"] == system)
        sections.append(f"<h2>{text(system)}</h2>{_HEADINGS}{cards}")
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>Parity of old and new losses</title><style>{STYLE}</style></head><body><main>"
        "<h1>Parity of old and new losses</h1>"
        f"<p class=soft>{text(data['made'])} · torch {text(data['torch'])} · Python {text(data['python'])} · "
        f"{text(data['machine'])}</p>"
        "<p>Every old loss and its successor on the same inputs. A deviation is |new - old| / (1 + |old|); gradients "
        f"are measured against their largest entry.</p><div class=tiles>{tiles}</div><div class=plots>"
        f"<div class=plot><h3>Deviations by decade</h3>{_histogram(total)}<p class=soft>Heights are logarithmic.</p>"
        f"<h3>Old against new values</h3>{_scatter(points)}</div>"
        f"{plots}</div><p class='soft note'>Speed and memory are those of a forward pass on the small batches of the "
        f"suite, lengths logarithmic. Blue: the new loss takes less.</p>{''.join(sections)}</main></body></html>"
    )


def as_markdown(data: Mapping[str, Any]) -> str:
    """A table for a pull request, and what differs."""
    entries: Sequence[Mapping[str, Any]] = data["symbols"]
    failures = [failure for e in entries for failure in e["failures"]]
    compared = [e for e in entries if e["calls"]]
    lines = [
        "# Parity of old and new losses",
        "",
        f"{len(compared)} of {len(entries)} old symbols, {data['numbers']} numbers compared, "
        f"{len(failures)} beyond the tolerance ({data['made']}, torch {data['torch']}).",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * 4}{'---:|' * (len(COLUMNS) - 4)}",
        *(f"| {' | '.join(row)} |" for row in table_rows(compared)),
    ]
    if failures:
        lines += ["", "## Beyond the tolerance", "", *(f"* {failure}" for failure in failures[:50])]
    lines += ["", "## What differs, and why", ""]
    for entry in entries:
        said = [entry["not_compared"], *entry["notes"]]
        texts = dict.fromkeys(t for row in entry["rows"] for t in [*row["deviations"], row["reason"], *said] if t)
        if texts:
            lines += [f"**{entry['old']}** ({entry['parity']})", "", *(f"* {text}" for text in texts), ""]
    return "\n".join(lines).rstrip() + "\n"
