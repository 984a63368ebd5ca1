"""``--plot FILE``: where the time of a frame goes, and how long texts of several lengths take to be heard.

matplotlib is in the extra ``bench``; it is loaded where a picture is asked for.
"""

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.bench.table import title
from daemon.errors import BadRequestError, UnreachableError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377", "#bbbbbb")
"""Of the stages; told apart with any colour vision. Source: Paul Tol's bright scheme."""
_SUFFIXES = (".png", ".svg", ".pdf")


def check(path: Path) -> None:
    """Find out before minutes of measuring whether the picture can be made.

    Raises:
        UnreachableError: matplotlib is not installed.
        BadRequestError: the file cannot be written there.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UnreachableError("--plot needs matplotlib: pip install matplotlib, or pip install -e '.[bench]'")
    if path.suffix.lower() not in _SUFFIXES:
        raise BadRequestError("bad_request", f"--plot {path}: expected a name that ends with {', '.join(_SUFFIXES)}")
    if path.is_dir() or not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise BadRequestError("bad_request", f"--plot {path}: cannot be written")


def draw(result: dict[str, Any], path: Path) -> None:
    """Write the picture.

    Raises:
        BadRequestError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 (see above)
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title(result), fontsize=10)
    left, right = figure.subplots(1, 2)
    _draw_stages(left, result)
    _draw_lengths(right, result)
    try:
        figure.savefig(path, dpi=120)
    except OSError as err:
        raise BadRequestError("bad_request", f"--plot {path}: {err.strerror}") from err


def _draw_stages(axes: "Axes", result: dict[str, Any]) -> None:
    """A bar a stage, longest at the top as the list goes, and what the memory's speed would make of the whole."""
    names, values = list(result["frame_ms"]), list(result["frame_ms"].values())
    bars = axes.barh(names, values, color=[_COLOURS[i % len(_COLOURS)] for i in range(len(names))])
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    least_ms = 1000 * result["bytes_per_frame"] / result["bandwidth_bytes_per_s"]
    axes.set_title(f"A frame: {sum(values):.2f} ms; the memory alone: {least_ms:.2f} ms", fontsize=10)
    axes.set_xlabel("milliseconds")


def _draw_lengths(axes: "Axes", result: dict[str, Any]) -> None:
    rows = [row for row in result["by_length"] if row["ttfa_ms"] is not None]
    axes.plot([row["chars"] for row in rows], [row["ttfa_ms"] for row in rows], "o-", label="first sample, daemon")
    rows = result["by_length"]
    axes.plot(
        [row["chars"] for row in rows],
        [row["first_audio_ms"] for row in rows],
        "s--",
        label="first frame, engine alone",
    )
    whole = [row for row in rows if not row["cut"]]
    axes.plot([row["chars"] for row in whole], [row["synthesis_ms"] for row in whole], "^:", label="all of the speech")
    axes.set_yscale("log")
    axes.set_title("Time by length of text", fontsize=10)
    axes.set_xlabel("characters")
    axes.set_ylabel("milliseconds")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize=8)
