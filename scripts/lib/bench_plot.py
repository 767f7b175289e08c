"""Times against sizes as an SVG, both axes logarithmic: what grows linearly is as steep as the grid's diagonal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, slots=True)
class Series:
    """`y`: milliseconds for each `x`."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def exponent(series: Series) -> float:
    """The power of x by which y grows, by least squares over the logarithms; 1 is linear."""
    return round(float(np.polyfit(np.log(series.x), np.log(series.y), 1)[0]), 2) + 0.0  # no -0.0


def plot(path: Path, title: str, what: str, series: Sequence[Series]) -> None:
    """Write the picture; `what` names the x axis."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "ipbp"  # the same figures make the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for row in series:
        axes.loglog(
            row.x, row.y, marker="o", label=f"{row.name} (x^{exponent(row):.2f})" if len(row.x) > 1 else row.name
        )
    axes.set(title=title, xlabel=what, ylabel="ms")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    pyplot.close(figure)
