"""The pictures of a training."""

import json

import numpy as np
import pytest
import soundfile  # noqa: F401  # as the stages do, before matplotlib
from matplotlib.image import imread

from daemon.errors import StoreError
from training import plots


def test_steps_done_twice_count_once(tmp_path):
    """After a restart from a checkpoint the later value of a step is drawn, and notes beside steps."""
    log = tmp_path / "lm.jsonl"
    lines = [
        {"time_s": 1, "step": 1, "loss": 3.0},
        {"time_s": 2, "step": 2, "loss": 9.0},
        {"time_s": 2, "step": 2, "loss": 2.0},
        {"time_s": 2, "step": 2, "held": 2.5, "say": "words"},
    ]
    log.write_text("\n".join(map(json.dumps, lines)))
    assert plots._curves(log) == {"loss": {1: 3.0, 2: 2.0}, "held": {2: 2.5}}
    plots.losses(log, tmp_path / "plots" / "lm.png")
    assert imread(tmp_path / "plots" / "lm.png").ndim == 3


def test_many_steps_are_smoothed(tmp_path):
    """A long log is drawn, whatever its values."""
    log = tmp_path / "codec.jsonl"
    rows = (
        {"time_s": step, "step": step, "a": 1 / step, "b": 0, "c": -1.0, "d": float("nan")} for step in range(1, 3000)
    )
    log.write_text("\n".join(map(json.dumps, rows)))
    plots.losses(log, tmp_path / "codec.png")
    assert (tmp_path / "codec.png").exists()


def test_no_log_no_picture(tmp_path):
    """A stage without a log, or an empty one, is not drawn."""
    plots.losses(tmp_path / "none.jsonl", tmp_path / "none.png")
    (tmp_path / "empty.jsonl").touch()
    plots.losses(tmp_path / "empty.jsonl", tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_a_full_scale_sine_is_0_db_at_its_frequency():
    """The scale of the spectrogram is dB of full scale, and its rows are the frequencies."""
    tone = np.sin(2 * np.pi * 3000 * np.arange(24_000) / 24_000).astype(np.float32)
    decibels = plots._decibels(tone)
    middle = decibels[:, decibels.shape[1] // 2]
    assert middle.argmax() == 3000 * 1024 // 24_000
    assert middle.max() == pytest.approx(0, abs=0.1)


def test_spectrogram_and_alignment_are_written(tmp_path):
    """Sounds of different lengths and an attention are drawn to files."""
    noise = np.random.default_rng(0).normal(0, 0.1, 30_000).astype(np.float32)
    plots.spectrogram(
        {"teacher": noise, "voice": noise[:20_000], "short": noise[:3]}, tmp_path / "s.png", title="A $1 a"
    )
    text = "Hello $5_^ there."
    plots.alignment(np.eye(20, len(text), dtype=np.float32), text, tmp_path / "a.png")
    assert imread(tmp_path / "s.png").ndim == imread(tmp_path / "a.png").ndim == 3


def test_a_picture_that_cannot_be_written_is_said(tmp_path):
    """No folder can be made below a file."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        plots.alignment(np.eye(2, dtype=np.float32), "ab", tmp_path / "file" / "a.png")
