"""Pictures of a training: losses, spectrograms, alignment."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from daemon.errors import StoreError
from daemon.values import SAMPLE_RATE
from training.align import FRAME_S
from training.journal import read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WINDOW, _HOP = 1024, 240
_FLOOR_DB = -100.0
_POINTS = 400
"""Points a curve is smoothed to."""


def losses(log: Path, out: Path) -> None:
    """Draw every metric of a log over the steps; nothing is drawn where there is no log yet.

    Of steps that were done twice, before and after a restart from a checkpoint, the last counts.

    Raises:
        StoreError: the picture cannot be written.
    """
    if not log.exists():
        return
    curves = _curves(log)
    if not curves:
        return
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(5 * columns, 2.8 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, (name, curve) in zip(panels, curves.items(), strict=False):
        _draw_curve(panel, name, curve)
    for panel in panels[len(curves) :]:
        panel.set_axis_off()
    figure.suptitle(log.stem)
    _write(figure, out)


def _curves(log: Path) -> dict[str, dict[int, float]]:
    """The value of each metric at each step it was measured at."""
    curves: dict[str, dict[int, float]] = {}
    for line in read_log(log):
        for name, value in line.items():
            if name not in ("step", "time_s") and isinstance(value, (int, float)):
                curves.setdefault(name, {})[int(line["step"])] = float(value)
    return curves


def _draw_curve(panel: "Axes", name: str, curve: dict[int, float]) -> None:
    steps = np.array(sorted(curve))
    values = np.array([curve[step] for step in steps])
    if len(steps) > 2 * _POINTS:
        panel.plot(steps, values, color="0.8", linewidth=0.5)
        parts = np.array_split(np.arange(len(steps)), _POINTS)
        steps = np.array([steps[part].mean() for part in parts])
        values = np.array([values[part].mean() for part in parts])
    panel.plot(steps, values, marker="." if len(steps) < 50 else "", linewidth=1.2)
    if (values > 0).all() and values.max() > 20 * values.min():
        panel.set_yscale("log")
    panel.set_title(name, fontsize=10)
    panel.set_xlabel("step", fontsize=8)
    panel.grid(alpha=0.3)


def spectrogram(pairs: dict[str, NDArray[np.float32]], out: Path, *, title: str) -> None:
    """Draw the spectrogram of each sound, one below the other, on one scale of time.

    Args:
        pairs: name -> float32 [S], 24 kHz, -1..1.
        out: the picture, .png.
        title: what is said.

    Raises:
        StoreError: the picture cannot be written.
    """
    figure = Figure(figsize=(9, 2.2 * len(pairs) + 0.6), layout="constrained")
    panels = figure.subplots(len(pairs), 1, squeeze=False, sharex=True).ravel()
    for panel, (name, sound) in zip(panels, pairs.items(), strict=True):
        panel.imshow(
            _decibels(sound),
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=_FLOOR_DB,
            vmax=0,
            extent=(0, len(sound) / SAMPLE_RATE, 0, SAMPLE_RATE / 2000),
        )
        panel.set_ylabel(f"{name}\nkHz", fontsize=8)
    panels[0].set_xlim(0, max(len(sound) for sound in pairs.values()) / SAMPLE_RATE)
    panels[-1].set_xlabel("seconds", fontsize=8)
    figure.suptitle(title, fontsize=10, wrap=True)
    _write(figure, out)


def _decibels(sound: NDArray[np.float32]) -> NDArray[np.float32]:
    """The magnitudes of a Hann-windowed short-time spectrum: float32 [513, time], dB of a full-scale sine."""
    padded = np.pad(sound, (_WINDOW // 2, _WINDOW // 2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    window = np.hanning(_WINDOW).astype(np.float32)
    magnitudes = np.abs(np.fft.rfft(windows * window)) / (window.sum() / 2)
    decibels: NDArray[np.float32] = 20 * np.log10(np.maximum(magnitudes.T, 10 ** (_FLOOR_DB / 20))).astype(np.float32)
    return decibels


def alignment(attention: NDArray[np.float32], text: str, out: Path) -> None:
    """Draw which characters the frames attend to: a diagonal, where the voice reads what it says.

    Args:
        attention: float32 [frames, characters], 0..1.
        text: the characters.
        out: the picture, .png.

    Raises:
        StoreError: the picture cannot be written.
    """
    frames, characters = attention.shape
    figure = Figure(figsize=(max(4.0, 0.09 * frames + 1), max(3.0, 0.11 * characters + 1)), layout="constrained")
    panel = figure.subplots()
    panel.imshow(
        attention.T,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=0,
        extent=(0, frames * FRAME_S, -0.5, characters - 0.5),
    )
    panel.set_yticks(range(characters), list(text), fontsize=6)
    panel.set_xlabel("seconds", fontsize=8)
    _write(figure, out)


def _write(figure: Figure, out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=110)
    except OSError as err:
        raise StoreError(f"{out}: picture cannot be written: {err.strerror}") from err
