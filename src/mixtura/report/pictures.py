"""Pictures as SVG inside of a page, in its colours and its font."""

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..plots import BLUE, GREY, INK, ORANGE

_SETTINGS = {
    "font.size": 10,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.unicode_minus": True,
    "savefig.transparent": True,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "mixtura",  # the same picture twice is the same text
    "text.parse_math": False,  # a dollar in a name is a dollar
    "text.usetex": False,
}
_COLOURS = {INK: "ink", "#000000": "ink", BLUE: "blue", ORANGE: "orange", GREY: "grey", "#ffffff": "paper"}


@dataclass(frozen=True)
class Picture:
    """A picture, and in words what it shows."""

    svg: Markup
    caption: str
    is_light: bool = False
    """Whether it holds an image that is made for light paper."""


def draw(
    plot: Callable[[Axes], object],
    label: str,
    caption: str,
    size: tuple[float, float] = (4.7, 3.3),
    light: bool = False,
) -> Picture:
    """What `plot` draws on one axes.

    Parameters
    ----------
    plot
        Draws.
    label
        A few words that name the picture, for those who do not see it.
    caption
        What it shows, with the numbers.
    size
        Inches.
    light
        Whether it keeps its colours on a dark page.
    """
    settings: Any = {**matplotlib.rcParamsDefault, **_SETTINGS}
    del settings["backend"]
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=size, layout="constrained")
        plot(figure.subplots())
        stream = StringIO()
        figure.savefig(stream, format="svg", dpi=150, metadata={"Date": None})
    return Picture(_inline(stream.getvalue(), label, light), caption, light)


def short(name: object, most: int = 24) -> str:
    """A name that leaves room for the picture."""
    text = str(name)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _inline(svg: str, label: str, light: bool) -> Markup:
    """An SVG file as part of a page: without what only files need, and with the colours of the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', svg)
    key = f"p{_checksum(svg + label):08x}-"  # names of parts are to be unique in the page

    def change(tag: re.Match[str]) -> str:
        text = re.sub(r'(\sid="|xlink:href="#|url\(#)', rf"\g<1>{key}", tag[0])
        if not light:
            for colour, name in _COLOURS.items():
                text = re.sub(colour, f"var(--{name})", text, flags=re.IGNORECASE)
        return text

    body = re.sub(r"<[^>]+>", change, svg[svg.index(">") + 1 :])
    opening = Markup('<svg role="img" aria-label="{}" {}>').format(label, Markup(box[0] if box else ""))
    return opening + Markup(body)


def _checksum(text: str) -> int:
    return zlib.crc32(text.encode())
