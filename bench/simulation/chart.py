"""The curves of `bench scale` as one standalone SVG, in the manner of `bench.chart`.

Four plots: how many times faster a fleet is than its smallest, how near the bound it comes, the part of
the list that is finished while broadcasters are lost, and time against the bound for each way a list, its
receivers and the addresses can be. Sections that were not run leave their curve or plot out. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from bench.chart import FONTS, MARGIN, line, number, text, ticks
from bench.simulation.runs import Plan, Row

WIDTH, HEIGHT = 560, 330  # of one plot
LEFT, RIGHT, TOP, BOTTOM = 62, 24, 56, 46
HEADER = 64
COLOURS = ("#1f5fa8", "#d98200", "#2e8b57", "#d02a2a", "#7a5ba8", "#555555", "#8a8a2a")
GRID, EDGE, BOUND = "#e4e4e4", "#999999", "#555555"
HEADROOM = 1.08
HOUR = 3_600.0


class Curve(Struct, frozen=True):
    label: str
    points: Sequence[tuple[float, float]]
    dashes: str = ""


def scale_chart(found: Mapping[str, Sequence[Row]], plan: Plan) -> str:
    """The SVG's text."""
    plots = [
        *_speed_up(found),
        *_efficiency(found),
        *_losses(found.get("losses", ())),
        *_bars([*found.get("mixes", ()), *found.get("limits", ()), *found.get("addresses", ())]),
    ]
    rows = (len(plots) + 1) // 2
    width, height = 2 * MARGIN + 2 * WIDTH, HEADER + rows * HEIGHT + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="{FONTS}" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        text(MARGIN, 28, f"One campaign of {plan.messages:,} over many broadcasters", size=18, weight="bold"),
        text(
            MARGIN,
            48,
            f"simulated with the real policy code; engines make {plan.per_second:,.0f} attempts a second; "
            "providers' limits are assumed",
            size=12,
            fill="#555555",
        ),
    ]
    for index, plot in enumerate(plots):
        row, column = divmod(index, 2)
        lines.append(f'<g transform="translate({MARGIN + column * WIDTH} {HEADER + row * HEIGHT})">')
        lines += plot
        lines.append("</g>")
    return "\n".join([*lines, "</svg>"]) + "\n"


def _speed_up(found: Mapping[str, Sequence[Row]]) -> Iterable[list[str]]:
    curves = []
    for label, rows in _fleets(found):
        first = rows[0]
        size = len(first.scenario.broadcasters)
        curves.append(
            Curve(
                label,
                [
                    (len(row.scenario.broadcasters), size * first.outcome.seconds / row.outcome.seconds)
                    for row in rows
                ],
            )
        )
    if curves:
        most = max(x for curve in curves for x, _ in curve.points)
        ideal = Curve("as many times faster", [(0.0, 0.0), (most, most)], "6 4")
        yield plot("Times faster than one broadcaster", "broadcasters", "times", [*curves, ideal])


def _efficiency(found: Mapping[str, Sequence[Row]]) -> Iterable[list[str]]:
    curves = [
        Curve(label, [(len(row.scenario.broadcasters), 100 * row.efficiency) for row in rows])
        for label, rows in _fleets(found)
    ]
    if curves:
        yield plot("Bound over time: how near the best it comes", "broadcasters", "per cent", curves)


def _fleets(found: Mapping[str, Sequence[Row]]) -> Iterable[tuple[str, Sequence[Row]]]:
    for name, label in (("broadcasters", "limits for each address"), ("shared", "and one for the domain")):
        if name in found:
            yield label, found[name]
    for kind in ("signed", "unsigned"):
        rows = [row for row in found.get("engines", ()) if row.label.endswith(f" {kind}")]
        if rows:
            yield f"no limits, {kind}", rows


def _losses(rows: Sequence[Row]) -> Iterable[list[str]]:
    """Of the retirements the largest alone: the others lie beside it."""
    kept = [row for row in rows if not row.outcome.given_up]
    kept += [row for row in rows if row.outcome.given_up][-1:]
    curves = [
        Curve(
            row.label,
            [(at / HOUR, 100 * finished / row.outcome.messages) for at, finished in row.outcome.timeline],
        )
        for row in kept
    ]
    if curves:
        yield plot("Finished while broadcasters are lost", "hours", "per cent of the list", curves)


def plot(title: str, x_unit: str, y_unit: str, curves: Sequence[Curve]) -> list[str]:
    """Curves over a common grid, from 0 on both axes, with their legend above."""
    right = max(x for curve in curves for x, _ in curve.points) or 1.0
    top = (max(y for curve in curves for _, y in curve.points) or 1.0) * HEADROOM
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    bottom = TOP + inner_height

    def at(point: tuple[float, float]) -> tuple[float, float]:
        return LEFT + inner_width * point[0] / right, bottom - inner_height * point[1] / top

    lines = [text(LEFT, 16, title, size=13, weight="bold")]
    for tick in ticks(top):
        y = at((0, tick))[1]
        lines += [
            line([(LEFT, y), (LEFT + inner_width, y)], GRID, 1),
            text(LEFT - 6, y + 4, number(tick), anchor="end"),
        ]
    for tick in ticks(right):
        x = at((tick, 0))[0]
        lines += [
            line([(x, bottom), (x, bottom + 3)], EDGE, 1),
            text(x, bottom + 15, number(tick), anchor="middle"),
        ]
    lines.append(text(LEFT + inner_width / 2, bottom + 32, x_unit, anchor="middle", fill="#555555"))
    lines.append(text(12, TOP + inner_height / 2, y_unit, anchor="middle", fill="#555555", turned=True))
    legend_x, legend_y = LEFT, 32
    for index, curve in enumerate(curves):
        colour = BOUND if curve.dashes else COLOURS[index % len(COLOURS)]
        length = 40 + round(len(curve.label) * 5.7)
        if legend_x + length > WIDTH:
            legend_x, legend_y = LEFT, legend_y + 14
        lines.append(line([(legend_x, legend_y - 4), (legend_x + 20, legend_y - 4)], colour, 2, curve.dashes))
        lines.append(text(legend_x + 25, legend_y, curve.label))
        legend_x += length
        lines.append(line([at(point) for point in curve.points], colour, 2, curve.dashes))
    edge = f'width="{inner_width}" height="{inner_height}" fill="none" stroke="{EDGE}"'
    lines.append(f'<rect x="{LEFT}" y="{TOP}" {edge}/>')
    return [each for each in lines if each]


def _bars(rows: Sequence[Row]) -> Iterable[list[str]]:
    """Hours of each row as a bar, with a mark where the bound lies."""
    if not rows:
        return
    left, inner_width = 150, WIDTH - 150 - RIGHT - 40
    top = max(row.outcome.seconds for row in rows) / HOUR * HEADROOM
    height = (HEIGHT - TOP - BOTTOM) / len(rows)
    bottom = HEIGHT - BOTTOM
    lines = [
        text(LEFT, 16, "Hours, and the bound as a mark", size=13, weight="bold"),
        text(left + inner_width / 2, bottom + 32, "hours", anchor="middle", fill="#555555"),
    ]
    for tick in ticks(top):
        x = left + inner_width * tick / top
        lines += [
            line([(x, TOP - 8), (x, bottom)], GRID, 1),
            text(x, bottom + 15, number(tick), anchor="middle"),
        ]
    for index, row in enumerate(rows):
        y = TOP + index * height
        length = inner_width * row.outcome.seconds / HOUR / top
        mark = left + inner_width * row.bound.seconds / HOUR / top
        lines += [
            text(left - 6, y + height / 2 + 4, row.label, anchor="end"),
            f'<rect x="{left}" y="{y + 2:.1f}" width="{length:.1f}" height="{height - 6:.1f}" '
            f'fill="{COLOURS[0]}"/>',
            line([(mark, y), (mark, y + height - 2)], COLOURS[3], 2),
            text(left + length + 5, y + height / 2 + 4, number(round(row.outcome.seconds / HOUR, 2))),
        ]
    yield lines
