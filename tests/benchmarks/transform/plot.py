"""Draws the growth: `python -m tests.benchmarks.transform.plot <JSON> <file>`, in the environment that has matplotlib.

The JSON names two panels, and in each of them curves of [rows, value].
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

Curves = Mapping[str, Sequence[tuple[int, float]]]


def main() -> None:
    panels: Mapping[str, Curves] = json.loads(sys.argv[1])
    draw(panels, Path(sys.argv[2]))


def draw(panels: Mapping[str, Curves], path: Path) -> None:
    """SVG or PNG, by the name's ending. Both axes are logarithmic, so that linear growth is a straight line."""
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, axes = plt.subplots(1, len(panels), figsize=(6 * len(panels), 5.5), layout="constrained", squeeze=False)
    for axis, (title, curves) in zip(axes[0], panels.items(), strict=True):
        for name, points in curves.items():
            axis.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
        axis.set(xscale="log", yscale="log", xlabel="profiles, millions", title=title)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:,g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
        sizes = sorted({rows for points in curves.values() for rows, _ in points})
        axis.set_xticks(sizes, [f"{rows / 1e6:g}" for rows in sizes])
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(visible=True, which="both", linewidth=0.3)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    main()
