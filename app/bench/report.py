"""The result, for people: a Markdown table and a chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

_WIDTH, _BAR, _LEFT, _ROW = 760, 330, 270, 34


@dataclass
class Figures:
    """What one measurement found: requests a second, latencies, the most memory of all its processes together, and
    what a request cost each of them in processor time.
    """

    name: str
    requests_per_second: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    peak_pss_mb: float | None = None
    cpu_us_per_request: dict[str, float] = field(default_factory=dict)


def table(figures: Sequence[Figures], base: Figures | None) -> str:
    """A Markdown table; the ratio is to `base`."""
    lines = ["| what | requests/s | ratio | p50 ms | p99 ms | peak PSS MB |", "|---|---:|---:|---:|---:|---:|"]
    for row in figures:
        ratio = "" if base is None else f"{row.requests_per_second / base.requests_per_second:.1f}"
        numbers = [_number(value, 1) for value in (row.p50_ms, row.p99_ms)] + [_number(row.peak_pss_mb, 0)]
        lines.append(f"| {row.name} | {row.requests_per_second:.0f} | {ratio} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def costs(figures: Sequence[Figures]) -> str:
    """A Markdown table of the processor time that a request cost, by process."""
    names = list(dict.fromkeys(name for row in figures for name in row.cpu_us_per_request))
    lines = ["| processor time, µs a request | " + " | ".join(names) + " | all |", "|---|" + "---:|" * (len(names) + 1)]
    for row in figures:
        if row.cpu_us_per_request:
            values = [_number(row.cpu_us_per_request.get(name), 0) for name in names]
            lines.append(f"| {row.name} | {' | '.join(values)} | {sum(row.cpu_us_per_request.values()):.0f} |")
    return "\n".join(lines)


def chart(figures: Sequence[Figures], caption: str) -> str:
    """An SVG of the requests a second, readable on a light and on a dark page."""
    most = max(row.requests_per_second for row in figures)
    height = 56 + _ROW * len(figures)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img"'
        ' font-family="system-ui, sans-serif" font-size="13" fill="#808590">',
        "  <title>Events a second, each stored before it is answered</title>",
        f'  <text x="0" y="16" font-weight="600">{_escape(caption)}</text>',
    ]
    for number, row in enumerate(figures):
        y = 36 + _ROW * number
        width = max(1, round(_BAR * row.requests_per_second / most))
        colour = "#3b82c4" if row.name.startswith("the receiver") else "#9aa3ad"
        late = "" if row.p99_ms is None else f", p99 {row.p99_ms:.0f} ms"
        parts += [
            f'  <text x="{_LEFT - 10}" y="{y + 17}" text-anchor="end">{_escape(row.name)}</text>',
            f'  <rect x="{_LEFT}" y="{y}" width="{width}" height="24" rx="3" fill="{colour}"/>',
            f'  <text x="{_LEFT + width + 8}" y="{y + 17}">{row.requests_per_second:,.0f}/s{late}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
