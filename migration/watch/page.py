"""The result of a verification as one HTML page without outside references, in the look of the parity report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..report.page import STYLE, svg, text, tile
from ..report.tally import ratio
from .show import calls, names, number

__all__ = ["as_html"]

_MORE = """
.equal{color:var(--green)}.drift,.stated{color:var(--blue)}.follows{color:var(--gold)}.deviates{color:var(--red)}
.banner{background:var(--card);border:1px solid var(--line);border-left:5px solid currentColor;border-radius:10px;
padding:12px 16px;margin:16px 0}.banner b{display:block;font-size:17px}.banner span{color:var(--ink)}
.curves{display:grid;grid-template-columns:repeat(auto-fit,minmax(280px,1fr));gap:14px}
.curves h4{font-size:12px;color:var(--soft);font-weight:500;margin:6px 0 2px}
.before{stroke:var(--gold);stroke-width:4;stroke-opacity:.55;fill:none;stroke-linejoin:round}
.after{stroke:var(--blue);stroke-width:1.4;fill:none;stroke-linejoin:round}
.limit{stroke:var(--red);stroke-width:1;stroke-dasharray:4 3}.mark{stroke:var(--red);stroke-width:1.2}
.key{display:inline-block;width:18px;height:4px;border-radius:2px;vertical-align:middle;margin:0 5px 0 12px}
pre{margin:4px 0 8px;padding:8px 10px;background:var(--page);border-radius:6px;font-size:12.5px;white-space:pre-wrap;
overflow-wrap:anywhere}.what{margin:6px 0}.lines td{white-space:pre-wrap;overflow-wrap:anywhere;vertical-align:top;
text-align:left}.lines td:first-child{white-space:nowrap;color:var(--soft)}
dl{display:grid;grid-template-columns:auto auto auto;gap:0 18px;margin:8px 0;font-size:13px;justify-content:start}
dt{color:var(--soft)}dd{margin:0;font-variant-numeric:tabular-nums}dl div{display:flex;gap:8px}
@media(max-width:640px){dl{grid-template-columns:auto auto}}
"""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BASE = 360, 150, 44, 6, 8, 128


def _kind(verdict: str) -> str:
    return {"as stated": "stated", "equal": "equal", "drift": "drift", "follows": "follows"}.get(verdict, "deviates")


def _path(points: Sequence[tuple[float, float]], kind: str) -> str:
    if len(points) == 1:
        x, y = points[0]
        return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="2"/>'
    line = "".join(f"{'M' if not place else 'L'}{x:.1f} {y:.1f}" for place, (x, y) in enumerate(points))
    return f'<path class="{kind}" d="{line}"/>' if points else ""


def _frame(lowest: str, highest: str, last: int) -> list[str]:
    return [
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{BASE}" y2="{BASE}"/>',
        f'<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{BASE}"/>',
        f'<text x="{LEFT - 5}" y="{TOP + 8}" text-anchor="end">{highest}</text>',
        f'<text x="{LEFT - 5}" y="{BASE}" text-anchor="end">{lowest}</text>',
        f'<text x="{LEFT}" y="{BASE + 14}">1</text>',
        f'<text x="{WIDTH - RIGHT}" y="{BASE + 14}" text-anchor="end">call {last}</text>',
    ]


def _across(number: int, last: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (number / max(last - 1, 1))


def _mark(first: Mapping[str, Any] | None, last: int) -> list[str]:
    """A line at the first call that deviates."""
    if first is None:
        return []
    x = _across(first["call"] - 1, last)
    title = f"<title>call {first['call']}: {text(first['text'][:160])}</title>"
    return [f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{BASE}">{title}</line>']


def _values(curve: Sequence[Sequence[Any]], first: Mapping[str, Any] | None, last: int) -> str:
    known = [value for _, old, new, _ in curve for value in (old, new) if value is not None]
    if not known:
        return "<p class=soft>no finite values</p>"
    low, high = min(known), max(known)
    span = (high - low) or max(abs(high), 1.0) * 0.1
    low, high = low - 0.05 * span, high + 0.05 * span

    def down(value: float) -> float:
        return float(BASE - (BASE - TOP) * (value - low) / (high - low))

    parts = [*_frame(f"{low:.3g}", f"{high:.3g}", last), *_mark(first, last)]
    for place, kind in ((1, "before"), (2, "after")):
        parts.append(
            _path([(_across(row[0], last), down(row[place])) for row in curve if row[place] is not None], kind)
        )
    return svg(WIDTH, HEIGHT, parts, "loss per call, before and after")


def _gaps(place: Mapping[str, Any], last: int) -> str:
    """Deviations per call, logarithmic, with the tolerance."""
    low, high = -17.0, 0.5

    def down(value: float) -> float:
        power = max(low, math.log10(value)) if value > 0 else low
        return float(BASE - (BASE - TOP) * (min(power, high) - low) / (high - low))

    tolerance = float(place["tolerance"])
    limit = down(tolerance)
    parts = [*_frame("0", "1", last), *_mark(place["first"], last)]
    parts.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{limit:.1f}" y2="{limit:.1f}"/>')
    parts.append(f'<text x="{LEFT - 5}" y="{limit + 3:.1f}" text-anchor="end">{tolerance:.0e}</text>')
    for n, _, _, gap in place["curve"]:
        y = down(math.inf if gap is None else gap)
        shown = "not finite" if gap is None else f"{gap:.2e}"
        parts.append(
            f'<circle class="dot" cx="{_across(n, last):.1f}" cy="{y:.1f}" r="2">'
            f"<title>call {n + 1}: {shown}</title></circle>"
        )
    return svg(WIDTH, HEIGHT, parts, "deviation of the loss per call, logarithmic")


def _numbers(place: Mapping[str, Any]) -> str:
    rows = [
        ("calls", calls(place)),
        ("compared", place["compared"]),
        ("value", number(place["value"])),
        ("gradient", number(place["gradient"])),
        ("state", number(place["state"])),
        ("tolerance", f"{place['tolerance']:.0e}"),
        ("time, new / old", ratio(place["time_ratio"])),
        ("memory, new / old", ratio(place["memory_ratio"])),
    ]
    if place["not_finite"]:
        rows.append(("not finite on both sides", place["not_finite"]))
    items = "".join(f"<div><dt>{word}</dt><dd>{text(value)}</dd></div>" for word, value in rows)
    return f"<dl>{items}</dl>"


def _place(place: Mapping[str, Any]) -> str:
    kind = _kind(place["verdict"])
    first = place["first"]
    nth = f" #{place['nth'] + 1}" if place["nth"] else ""
    rank = f", rank {place['rank']}" if place["rank"] else ""
    head = (
        f"<summary><span class=old>{text(place['file'])}:{place['line']}{nth}{text(rank)}</span>"
        f"<span class=new>{text(names(place))}</span>"
        f"<span class='badge {kind}' style='justify-self:start'>{text(place['verdict'])}</span>"
        f"<span class=num>{text(calls(place))} calls</span>"
        f"<span class='num last'>{number(place['value'])}</span></summary>"
    )
    body = [f"<pre>{text(place['code'])}</pre>"] if place["code"] else []
    if first is not None:
        tone = "deviates" if first["cause"] and kind == "deviates" else kind
        body.append(f"<p class=what><b class={tone}>Call {first['call']}.</b> {text(first['text'])}</p>")
    if place["curve"]:
        last = max(place["calls"][0], place["curve"][-1][0] + 1)
        body.append(
            f"<div class=curves><div><h4>loss</h4>{_values(place['curve'], first, last)}</div>"
            f"<div><h4>deviation</h4>{_gaps(place, last)}</div></div>"
        )
    body.append(_numbers(place))
    opened = " open" if first is not None else ""
    return f"<details{opened}>{head}<div class=body>{''.join(body)}</div></details>"


def _printed(lines: Sequence[Mapping[str, Any]]) -> str:
    if not lines:
        return ""
    rows = "".join(
        f"<tr><td>{line['line']}</td><td>{text(line['old'])}</td><td>{text(line['new'])}</td></tr>" for line in lines
    )
    heads = "<tr><th>line</th><th style='text-align:left'>before</th><th style='text-align:left'>after</th></tr>"
    return f"<h2>Printed lines that differ</h2><div class='plot scroll'><table class=lines>{heads}{rows}</table></div>"


def _notes(data: Mapping[str, Any]) -> str:
    left = [f"left by the codemod: {line}" for line in data.get("codemod", {}).get("left", [])]
    items = "".join(f"<li>{text(note)}</li>" for note in [*data.get("notes", []), *left])
    return f"<h2>Notes</h2><ul>{items}</ul>" if items else ""


def as_html(data: Mapping[str, Any]) -> str:
    """One page: the verdict, a card per place of construction with its curves, and what was printed differently."""
    places: Sequence[Mapping[str, Any]] = data["places"]
    verdict = _kind(data["verdict"])
    worst = [place["value"] for place in places]
    runs = data.get("runs", {})
    tiles = [
        tile(len(places), "places of construction"),
        tile(f"{sum(place['compared'] for place in places):,}", "calls compared"),
        tile(number(None if None in worst else max(worst, default=0.0)), "largest deviation of a value"),
        tile(sum(place["verdict"] == "deviates" for place in places), "places where a deviation begins"),
    ]
    if runs:
        tiles.append(tile(" → ".join(f"{run['seconds']:.1f}" for run in runs.values()), "seconds, before → after"))
    cards = "".join(map(_place, places))
    heads = (
        "<div class=heads><span>built at</span><span>loss</span><span>verdict</span><span class=num>calls</span>"
        "<span class=num>largest deviation</span></div>"
    )
    keys = (
        "<p class=soft>A deviation is |new - old| / (1 + |old|).<span class=key style='background:var(--gold)'></span>"
        "before<span class=key style='background:var(--blue)'></span>after"
        "<span class=key style='background:var(--red)'></span>tolerance, first call that deviates</p>"
    )
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>verify: {text(data['verdict'])}</title><style>{STYLE}{_MORE}</style></head><body><main>"
        f"<h1>Before and after the migration</h1><p class=soft>{text(data.get('made', ''))} · "
        f"<code>{text(' '.join(map(str, data['command'])))}</code></p>"
        f"<div class='banner {verdict}'><b>{text(data['verdict'])}</b><span>{text(data['message'])}</span></div>"
        f"<div class=tiles>{''.join(tiles)}</div><h2>Places</h2>{heads}{cards}{keys}"
        f"{_printed(data.get('printed', []))}{_notes(data)}</main></body></html>"
    )
