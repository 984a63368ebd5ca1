"""libsonic: another speed at the same pitch, whatever the pieces are."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.audio import tempo
from daemon.audio.tempo import Tempo
from daemon.errors import EngineError
from daemon.values import SAMPLE_RATE

PITCH_HZ = 140.0
SPEEDS = (0.5, 0.75, 1.25, 1.5, 2.0)


def voiced(seconds=2.0, pitch_hz=PITCH_HZ):
    """int16 [S]: a buzz of harmonics that swells like syllables."""
    time_s = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    buzz = sum(np.cos(2 * np.pi * pitch_hz * k * time_s) / k for k in range(1, 12))
    return (3000 * buzz * (0.6 - 0.4 * np.cos(2 * np.pi * 3 * time_s))).astype(np.int16)


def pitch_of(pcm):
    """The lag of the autocorrelation's highest peak between 60 and 400 Hz, as Hz."""
    samples = pcm.astype(float)
    spectrum = np.fft.rfft(samples, 2 * len(samples))
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)
    lags = np.arange(SAMPLE_RATE // 400, SAMPLE_RATE // 60)
    return SAMPLE_RATE / lags[np.argmax(correlation[lags])]


def stretched(pieces, speed, stream=None):
    """The pieces at another speed, as one array."""
    with stream or Tempo() as opened:
        opened.begin(speed)
        parts = [part.copy() for piece in pieces for part in opened.stretch(piece)]
        parts += [part.copy() for part in opened.end()]
    return np.concatenate(parts)


@pytest.mark.parametrize("speed", SPEEDS)
def test_length_changes_and_pitch_does_not(speed):
    """Both within 3 %; nothing is much louder than it was."""
    pcm = voiced()
    result = stretched([pcm], speed)
    assert len(pcm) / len(result) == pytest.approx(speed, rel=0.03)
    assert pitch_of(result) == pytest.approx(PITCH_HZ, rel=0.03)
    assert np.abs(result.astype(int)).max() <= 1.05 * np.abs(pcm.astype(int)).max()


@given(speed=st.sampled_from(SPEEDS), cuts=st.lists(st.integers(0, 24_000), max_size=8))
def test_pieces_give_what_the_whole_gives(speed, cuts):
    """To the bit, wherever the samples are cut."""
    pcm = voiced(1.0)
    edges = [0, *sorted(cuts), len(pcm)]
    np.testing.assert_array_equal(
        stretched([pcm[a:b] for a, b in itertools.pairwise(edges)], speed), stretched([pcm], speed)
    )


def test_a_segment_depends_on_nothing_before_it():
    """After another segment, and after one that was given up half-way."""
    pcm, other = voiced(0.7), voiced(0.5, 230.0)
    alone = stretched([pcm], 1.5)
    stream = Tempo()
    stretched([other], 0.75, stream)
    stream.begin(2.0)
    list(stream.stretch(other))
    np.testing.assert_array_equal(stretched([pcm], 1.5, stream), alone)


def test_the_first_frame_gives_sound_at_once():
    """At no speed a listener waits for a second frame."""
    for speed in SPEEDS:
        with Tempo() as stream:
            stream.begin(speed)
            assert sum(map(len, stream.stretch(voiced()[:1560]))) > 0


@pytest.mark.parametrize("num_samples", [0, 1, 100, 700])
def test_a_segment_too_short_for_a_pitch_comes_out_too(num_samples):
    """Whatever its length, it is there at about the right length."""
    result = stretched([voiced()[:num_samples]], 2.0) if num_samples else stretched([np.zeros(1, np.int16)], 2.0)
    assert abs(len(result) - num_samples / 2) <= 1


def test_joints_do_not_click():
    """Segments that fade out join without a step larger than those of the sound itself."""
    pcm = voiced(0.8)
    pcm = (pcm * np.clip(np.arange(len(pcm))[::-1] / 2400, 0, 1)).astype(np.int16)
    pcm[:240] = pcm[:240] * np.linspace(0, 1, 240)
    for speed in SPEEDS:
        joined = np.concatenate([stretched([pcm], speed), stretched([pcm], speed)])
        assert np.abs(np.diff(joined.astype(int))).max() <= 1.1 * np.abs(np.diff(pcm.astype(int))).max()


def test_what_decides_the_bits_is_named():
    """The version is the file's that is loaded."""
    assert tempo.version().startswith("libsonic.so.0")


@pytest.fixture
def forget():
    """What was found out about the library is found out anew, by this test and after it."""
    caches = (tempo._library, tempo.version)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.mark.usefixtures("forget")
def test_without_the_library_nothing_breaks(monkeypatch, caplog):
    """It is said to be missing, once, and only its use is an error."""
    monkeypatch.setattr(tempo, "_LIBRARY", "libnosuch.so.0")
    for _ in range(3):
        assert (tempo.available(), tempo.version()) == (False, "")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "libsonic0 is not installed" in caplog.text
    with pytest.raises(EngineError, match="not installed"):
        Tempo()
