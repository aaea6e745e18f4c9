"""Small multiples as one standalone SVG: what a sender was allowed and what it did, provider by provider.

`chart(title, note, panels, seconds)` draws a panel each: messages taken per second (line), the receiver's
limit (dashed), the sender's own rate where it has one (thin line), refusals over a limit (red bars), times
when the sender keeps mail back (grey) and, on the right axis, the connections that it allows itself. One
legend above all. Plain shapes and system fonts on white, so that a browser, an editor or a report shows it
alike. Pure.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape

from msgspec import Struct

COLUMNS = 3
PANEL_WIDTH, PANEL_HEIGHT = 430, 216
LEFT, RIGHT, TOP, BOTTOM = 52, 44, 34, 40  # around the plot of each panel
MARGIN, HEADER = 18, 86
HEADROOM = 1.12
TICKS = 4
FONTS = "Helvetica, Arial, DejaVu Sans, sans-serif"
ACCEPTED, LIMIT, RATE, REFUSED, WINDOW = "#1f5fa8", "#555555", "#2e8b57", "#d02a2a", "#d98200"
REST = "#ececec"

Steps = Sequence[tuple[float, float | None]]


class Panel(Struct, frozen=True, kw_only=True):
    """`accepted` and `refused` hold one number for each second from 0; `window` and `rate` are steps:
    (second, value from then on; None = no limit). `limit` is in messages a second, None = there is none.
    `rests` are (second, how many seconds) in which the sender keeps mail back.
    """

    title: str
    accepted: Sequence[float]
    refused: Sequence[float] = ()
    limit: float | None = None
    window: Steps = ()
    rate: Steps = ()
    rests: Sequence[tuple[float, float]] = ()


def chart(title: str, note: str, panels: Sequence[Panel], seconds: float) -> str:
    """The SVG's text. `seconds` is the length of every time axis."""
    rows = math.ceil(len(panels) / COLUMNS)
    width = 2 * MARGIN + COLUMNS * PANEL_WIDTH
    height = HEADER + rows * PANEL_HEIGHT + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="{FONTS}" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        text(MARGIN, 28, title, size=18, weight="bold"),
        text(MARGIN, 48, note, size=12, fill="#555555"),
        *_legend(MARGIN, 70),
    ]
    for number, panel in enumerate(panels):
        row, column = divmod(number, COLUMNS)
        left, top = MARGIN + column * PANEL_WIDTH, HEADER + row * PANEL_HEIGHT
        lines.append(f'<g transform="translate({left} {top})">')
        lines += _panel(panel, max(seconds, 1.0))
        lines.append("</g>")
    lines.append("</svg>")
    return "\n".join(lines) + "\n"


def _legend(left: int, y: int) -> Iterable[str]:
    entries = (
        ("accepted, messages/s", ACCEPTED, 2.0, ""),
        ("limit of the receiver, messages/s", LIMIT, 1.4, "6 4"),
        ("rate the sender allows itself, messages/s", RATE, 1.2, ""),
        ("refused over a limit, per second", REFUSED, 5.0, ""),
        ("connections allowed (right axis)", WINDOW, 1.6, ""),
        ("sender keeps mail back", REST, 9.0, ""),
    )
    for label, colour, thickness, dashes in entries:
        yield line([(left, y - 4), (left + 24, y - 4)], colour, thickness, dashes)
        yield text(left + 30, y, label)
        left += 48 + round(len(label) * 5.7)


class _Plot:
    """The inner rectangle of a panel: data to pixels on a left and a right scale."""

    def __init__(self, seconds: float, left_max: float, right_max: float) -> None:
        self.seconds = seconds
        self.left_max = left_max
        self.right_max = right_max
        self.width = PANEL_WIDTH - LEFT - RIGHT
        self.height = PANEL_HEIGHT - TOP - BOTTOM

    def x(self, second: float) -> float:
        return LEFT + self.width * min(1.0, max(0.0, second / self.seconds))

    def y(self, value: float, top: float) -> float:
        return TOP + self.height * (1.0 - min(1.0, max(0.0, value / top)))

    def steps(self, steps: Steps, top: float) -> list[tuple[float, float]]:
        """The corners of a step line; "no limit" runs along the upper edge."""
        points: list[tuple[float, float]] = []
        for second, value in steps:
            height = self.y(top if value is None else value, top)
            if points:
                points.append((self.x(second), points[-1][1]))
            points.append((self.x(second), height))
        if points:
            points.append((self.x(self.seconds), points[-1][1]))
        return points


def _panel(panel: Panel, seconds: float) -> Iterable[str]:
    peak = max([*panel.accepted, panel.limit or 0.0, 1.0])
    windows = [value for _, value in panel.window if value is not None]
    plot = _Plot(seconds, peak * HEADROOM, max([*windows, 1.0]) * HEADROOM)
    bottom = TOP + plot.height
    yield text(LEFT, TOP - 12, panel.title, size=13, weight="bold")
    for second, length in panel.rests:
        left, right = plot.x(second), plot.x(second + length)
        size = f'x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" height="{plot.height}"'
        yield f'<rect {size} fill="{REST}"/>'
    for tick in ticks(plot.left_max):
        y = plot.y(tick, plot.left_max)
        yield line([(LEFT, y), (LEFT + plot.width, y)], "#e4e4e4", 1)
        yield text(LEFT - 6, y + 4, number(tick), anchor="end")
    for tick in ticks(plot.seconds):
        yield text(plot.x(tick), bottom + 14, number(tick), anchor="middle")
        yield line([(plot.x(tick), bottom), (plot.x(tick), bottom + 3)], "#999999", 1)
    if panel.window:
        for tick in ticks(plot.right_max):
            y = plot.y(tick, plot.right_max) + 4
            yield text(LEFT + plot.width + 6, y, number(tick), fill=WINDOW)
    yield text(LEFT + plot.width / 2, bottom + 29, "seconds", anchor="middle", fill="#555555")
    yield text(12, TOP + plot.height / 2, "messages/s", anchor="middle", fill="#555555", turned=True)
    if panel.window:
        at = PANEL_WIDTH - 10
        yield text(at, TOP + plot.height / 2, "connections", anchor="middle", fill=WINDOW, turned=True)
    for second, count in enumerate(panel.refused):
        if count:
            # At least three pixels: a single refusal is what one looks for.
            y = min(bottom - 3, plot.y(count, plot.left_max))
            yield line([(plot.x(second + 0.5), bottom), (plot.x(second + 0.5), y)], REFUSED, 1.4)
    if panel.limit is not None:
        y = plot.y(panel.limit, plot.left_max)
        yield line([(LEFT, y), (LEFT + plot.width, y)], LIMIT, 1.4, "6 4")
    yield line(plot.steps(panel.rate, plot.left_max), RATE, 1.2)
    yield line(plot.steps(panel.window, plot.right_max), WINDOW, 1.6)
    taken = [(plot.x(at + 0.5), plot.y(count, plot.left_max)) for at, count in enumerate(panel.accepted)]
    yield line(taken, ACCEPTED, 2)
    edge = f'width="{plot.width}" height="{plot.height}" fill="none" stroke="#999999"'
    yield f'<rect x="{LEFT}" y="{TOP}" {edge}/>'


def ticks(top: float) -> list[float]:
    """About four round numbers from 0 to `top`."""
    step = 10.0 ** math.floor(math.log10(top / TICKS))
    step *= next(factor for factor in (1, 2, 5, 10) if step * factor * TICKS >= top * 0.8)
    return [step * index for index in range(int(top / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A tick's label: no more digits than it needs."""
    return f"{value:,.0f}" if value == round(value) else f"{value:,.3g}"


def line(points: Sequence[tuple[float, float]], colour: str, width: float, dashes: str = "") -> str:
    """A polyline in pixels; nothing for no points."""
    if not points:
        return ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dashed} '
        f'stroke-linejoin="round"/>'
    )


def text(
    x: float,
    y: float,
    words: str,
    *,
    size: int = 11,
    weight: str = "normal",
    fill: str = "#222222",
    anchor: str = "start",
    turned: bool = False,
) -> str:
    """A text at a place in pixels, escaped; `turned` reads upwards."""
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{fill}" '
        f'text-anchor="{anchor}"{turn}>{escape(words)}</text>'
    )
