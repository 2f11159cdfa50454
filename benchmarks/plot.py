"""The results as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")
from contenders import FORK, FOUR, PLAIN, POPEN, REFERENCE, SPAWN, SUBPROCESS
from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter

if TYPE_CHECKING:
    from bench import Results

GREY, LIGHT = "#6b7280", "#cbd5e1"
COLORS = {
    SPAWN: "#0f766e",
    POPEN: "#14b8a6",
    REFERENCE: "#111827",
    FORK: "#dc2626",
    SUBPROCESS: "#f59e0b",
}
OTHERS = ("#8b5cf6", "#a16207", "#94a3b8", "#64748b")


def _time(value: float, _: Any = None) -> str:
    return f"{value:g} µs" if value < 1000 else f"{value / 1000:g} ms"


def _short(value: float) -> str:
    return f"{value:.0f} µs" if value < 1000 else f"{value / 1000:.1f} ms"


def _label(name: str) -> str:
    return f"{name}, no namespaces" if name in PLAIN else name


def _color(name: str) -> str:
    return COLORS.setdefault(name, OTHERS[len(COLORS) % len(OTHERS)])


def _bars(axes: Any, results: Results) -> None:
    table = sorted(results.pinned[FOUR].items(), key=lambda item: -item[1].median)
    names = [_label(name).replace(", ", ",\n") for name, _ in table]
    medians = [series.median for _, series in table]
    bars = axes.barh(names, medians, color=[_color(name) for name, _ in table], height=0.65)
    axes.bar_label(bars, [_short(median) for median in medians], padding=4, color=GREY, fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(min(medians) / 2, max(medians) * 3)
    axes.xaxis.set_major_formatter(FuncFormatter(_time))
    axes.grid(axis="x", color=LIGHT, linewidth=0.6)
    axes.set_title("New pid, uts, ipc and mnt namespaces")


def _memory(axes: Any, results: Results) -> None:
    sizes = list(results.memory)
    for name in results.memory[sizes[0]]:
        medians = [results.memory[size][name].median for size in sizes]
        places = [size / 1024 for size in sizes]
        axes.plot(places, medians, marker="o", markersize=4, color=_color(name), label=_label(name))
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(_time))
    axes.set_xlabel("GiB resident in the parent")
    axes.grid(axis="y", color=LIGHT, linewidth=0.6)
    axes.legend(frameon=False, fontsize=9)
    axes.set_title("By the parent's memory")


def _threads(axes: Any, results: Results) -> None:
    counts = list(results.threads)
    for name in results.threads[counts[0]]:
        rates = [results.threads[count][name] for count in counts]
        axes.plot(counts, rates, marker="o", markersize=4, color=_color(name), label=_label(name))
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_ylim(0, max(max(rates.values()) for rates in results.threads.values()) * 1.35)
    axes.set_xlabel("threads that spawn at once")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}/s"))
    axes.grid(axis="y", color=LIGHT, linewidth=0.6)
    axes.legend(frameon=False, fontsize=9, ncols=2, loc="upper left")
    axes.set_title("Spawns per second")


def draw(results: Results, path: str) -> None:
    """Draw the three pictures side by side."""
    figure, axes = pyplot.subplots(1, 3, figsize=(16, 4.8), layout="constrained")
    for place, picture in zip(axes, (_bars, _memory, _threads), strict=True):
        place.spines[["top", "right"]].set_visible(False)
        place.spines[["left", "bottom"]].set_color(GREY)
        place.tick_params(colors=GREY, labelsize=9)
        place.set_axisbelow(True)
        picture(place, results)
        place.title.set_fontsize(11)
    machine = results.machine
    figure.supxlabel(
        f"{machine['cpu']} · {machine['kernel']} · {machine['python']}", fontsize=8, color=GREY
    )
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
