"""Float to PCM16, and the streaming decoder's bookkeeping."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.engine.bundle import load_bundle
from daemon.engine.codec import CodecDecoder, to_pcm16
from daemon.errors import EngineError

ROOT = Path(__file__).resolve().parents[2]


@given(st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=50))
def test_rounding_and_saturation(values):
    """Nearest integer of 32767 x, kept within int16."""
    samples = np.array(values, np.float32)
    out = np.zeros(len(values), np.int16)
    expected = np.clip(np.rint(samples.astype(np.float64) * 32767), -32768, 32767)
    to_pcm16(samples, out)
    assert np.abs(out - expected).max() <= 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_numbers_fail_the_utterance(bad):
    """A broken model is an EngineError, never noise."""
    with pytest.raises(EngineError, match="not numbers"):
        to_pcm16(np.array([0.1, bad], np.float32), np.zeros(2, np.int16))


@pytest.mark.engine
def test_golden_codes_give_the_golden_pcm():
    """Frame by frame, delay and flush included; the difference is what float16 storage costs, under -60 dB of full."""
    decoder = CodecDecoder(load_bundle(ROOT / "models" / "starter"))
    golden = np.load(ROOT / "tests" / "golden" / "starter_golden.npz")
    buffer = np.zeros(decoder.samples_per_frame, np.int16)
    for index in range(3):
        decoder.reset()
        parts = []
        for frame in golden[f"codes{index}"]:
            count = decoder.decode_frame(frame.astype(np.int32), buffer)
            parts.append(buffer[:count].copy())
        count = decoder.flush(buffer)
        parts.append(buffer[:count].copy())
        pcm = np.concatenate(parts) / 32767
        assert len(pcm) == len(golden[f"pcm{index}"])
        assert np.abs(pcm - golden[f"pcm{index}"]).max() < 1e-3
