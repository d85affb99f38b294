"""Drawings for the results: SVG by hand, one file, no style sheet, right on light and on dark pages."""

import math
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT = 860, 250, 20
TOP, LANE, ROW_GAP, BOTTOM = 46, 26, 14, 40
COLOURS = {"java": "#c2681f", "ours": "#1f77c2"}
NAMES = {"java": "Java", "ours": "Oxkeeper"}
GREY = "#888888"


def milliseconds(value):
    return f"{value:g} ms" if value < 1000 else f"{value / 1000:g} s"


class Scale:
    """Decades from `low` to `high`."""

    def __init__(self, low, high):
        self.low, self.high = math.log10(low), math.log10(high)

    def place(self, value):
        share = (math.log10(max(value, 1e-9)) - self.low) / (self.high - self.low)
        return LEFT + min(max(share, 0), 1) * (WIDTH - LEFT - RIGHT)

    def ticks(self):
        for decade in range(math.floor(self.low), math.ceil(self.high) + 1):
            for digit in (1, 2, 5):
                value = digit * 10**decade
                if self.low - 1e-9 <= math.log10(value) <= self.high + 1e-9:
                    yield value, digit == 1


def bounds(rows):
    values = [value for _, kinds, target in rows for samples in kinds.values() for value in samples]
    values += [target for _, _, target in rows if target]
    low, high = min(values, default=1), max(values, default=1000)
    return 10 ** math.floor(math.log10(max(low, 0.1))), 10 ** (math.floor(math.log10(high * 1.05)) + 1)


def text(x, y, words, anchor="start", colour=GREY, size=12):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">{escape(words)}</text>'


def lane(samples, kind, y, scale):
    """A dot for each sample, and a stroke at the median."""
    colour = COLOURS[kind]
    parts = []
    for number, value in enumerate(samples):
        # Dots of one lane stand at changing heights, so that equal ones show.
        height = y + LANE / 2 + (number * 7 % 11 - 5) * 0.8
        parts.append(f'<circle cx="{scale.place(value):.1f}" cy="{height:.1f}" r="2.6" fill="{colour}" fill-opacity="0.55"/>')
    middle = sorted(samples)[(len(samples) - 1) // 2]
    x = scale.place(middle)
    parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y + 3}" y2="{y + LANE - 3}" stroke="{colour}" stroke-width="2.5"/>')
    return parts


def strips(title, rows):
    """`rows`: (name, {kind: samples in ms}, target in ms or None). An SVG document."""
    scale = Scale(*bounds(rows))
    body, y = [], TOP
    for name, kinds, target in rows:
        top = y
        body.append(text(LEFT - 84, y + LANE * len(kinds) / 2 + 4, name, "end"))
        for kind, samples in kinds.items():
            body.append(text(LEFT - 10, y + LANE / 2 + 4, NAMES[kind], "end", COLOURS[kind]))
            if samples:
                body += lane(samples, kind, y, scale)
            y += LANE
        if target:
            x = scale.place(target)
            body.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{y}" stroke="#2a9d4a" stroke-dasharray="4 3" stroke-width="1.5"/>')
        y += ROW_GAP
    grid = []
    for value, is_decade in scale.ticks():
        x = scale.place(value)
        grid.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{y}" stroke="{GREY}" stroke-opacity="{0.4 if is_decade else 0.15}"/>')
        if is_decade:
            grid.append(text(x, y + 18, milliseconds(value), "middle"))
    head = [text(LEFT, 18, title, size=14), text(LEFT, 34, "a dot for each sample, a stroke at the median, dashed: p99 promised", size=11)]
    size = f'width="{WIDTH}" height="{y + BOTTOM}" viewBox="0 0 {WIDTH} {y + BOTTOM}"'
    lines = "\n".join([*head, *grid, *body])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">\n{lines}\n</svg>\n'
