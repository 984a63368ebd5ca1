"""Recordings are taken in every form they come in, and refused with the reason where they would make a bad voice."""

import os

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from voice_bundle import silence, speech, write_recording

from daemon.engine import recording
from daemon.engine.recording import active_level, clipped_share, load_recording, prepare
from daemon.errors import BadRequestError

RATE = 24_000


def padded(rate=RATE, *, before=0.7, seconds=2.0, after=0.5, amplitude=0.3):
    """Speech between silences."""
    return np.concatenate([silence(before, rate), speech(seconds, rate, amplitude=amplitude), silence(after, rate)])


def pitch(pcm):
    """The strongest frequency below 400 Hz."""
    spectrum = np.abs(np.fft.rfft(pcm))
    frequencies = np.fft.rfftfreq(len(pcm), 1 / RATE)
    return frequencies[np.argmax(np.where(frequencies < 400, spectrum, 0))]


def find(part, whole):
    """Where ``part`` is in ``whole``, by correlation."""
    size = len(whole) + len(part)
    correlation = np.fft.irfft(np.fft.rfft(whole, size) * np.conj(np.fft.rfft(part, size)), size)
    return int(np.argmax(correlation[: len(whole) - len(part) + 1]))


@pytest.mark.parametrize(
    ("name", "rate", "subtype"),
    [
        ("a.wav", 8_000, "ULAW"),
        ("a.wav", 11_025, "PCM_U8"),
        ("a.wav", 44_100, "PCM_16"),
        ("a.wav", 192_000, "FLOAT"),
        ("a.wav", 24_000, "PCM_24"),
        ("a.flac", 96_000, "PCM_24"),
        ("a.ogg", 22_050, "VORBIS"),
        ("a.ogg", 48_000, "OPUS"),
        ("a.mp3", 32_000, "MPEG_LAYER_III"),
        ("a.aiff", 16_000, "PCM_16"),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_formats_rates_and_channels_give_the_same_speech(tmp_path, name, rate, subtype, channels):
    """Whatever the file: 24 kHz, the same length, pitch and level."""
    mono = padded(rate)
    samples = np.stack([1.2 * mono, 0.8 * mono], axis=1) if channels == 2 else mono
    pcm = load_recording(write_recording(tmp_path / name, samples, rate, subtype=subtype))
    assert (pcm.dtype, pcm.ndim, pcm.flags.c_contiguous) == (np.float32, 1, True)
    assert 2.1 < len(pcm) / RATE < 2.25
    assert abs(pitch(pcm) - 150) < 1
    assert abs(active_level(pcm) + 20) < 0.01


@settings(max_examples=50)
@given(
    before=st.floats(0, 1),
    seconds=st.floats(1, 2),
    after=st.floats(0, 1),
    noise=st.sampled_from([0, 1e-4, 1e-3]),
    seed=st.integers(0, 99),
)
def test_trimming_keeps_the_speech_and_little_else(before, seconds, after, noise, seed):
    """What is kept is one stretch of the recording: all that is loud, with at most 100 ms on either side."""
    whole = padded(before=before, seconds=seconds, after=after)
    whole += np.random.default_rng(seed).normal(0, noise, len(whole)).astype(np.float32) if noise else 0
    pcm = prepare(whole[:, None], RATE)
    assert seconds - 0.05 <= len(pcm) / RATE <= seconds + 0.2
    first = find(pcm, whole - whole.mean())
    kept = whole[first : first + len(pcm)] - whole.mean()
    gain = float(pcm @ kept / (kept @ kept))
    np.testing.assert_allclose(pcm, gain * kept, atol=1e-4)
    assert np.abs(np.concatenate([whole[:first], whole[first + len(pcm) :], [0]])).max() < 0.05


@settings(max_examples=30)
@given(amplitude=st.floats(0.02, 0.9), offset=st.floats(-0.05, 0.05))
def test_level_is_fixed_and_an_offset_does_not_count(amplitude, offset):
    """However loud, and with whatever constant offset: the same samples."""
    plain = prepare(padded()[:, None], RATE)
    pcm = prepare(padded(amplitude=amplitude)[:, None] + np.float32(offset), RATE)
    np.testing.assert_allclose(pcm, plain, atol=2e-3)
    assert abs(pcm.mean()) < 1e-3


def test_peaks_are_not_clipped_by_the_level():
    """A recording of low level with a high peak stays lower instead."""
    whole = padded(amplitude=0.1)
    whole[len(whole) // 2] = 0.9
    pcm = prepare(whole[:, None], RATE)
    assert np.abs(pcm).max() == pytest.approx(recording.PEAK, abs=1e-6)
    assert active_level(pcm) < -21


def test_a_silent_channel_is_no_fault():
    """Speech on one side of a stereo file is a recording like any other."""
    mono = padded()
    pcm = prepare(np.stack([mono, np.zeros_like(mono)], axis=1), RATE)
    np.testing.assert_allclose(pcm, prepare(mono[:, None], RATE), atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (speech(0.4), "0.40 s long; at least 0.5 s are needed"),
        (np.zeros(0, np.float32), "0.00 s long"),
        (padded(before=0.3, seconds=0.4, after=0.3), "0.4. s of speech; at least 0.5 s are needed"),
        (speech(30.5), "30.5 s long; at most 30 s are taken"),
        (silence(3), "silent: its loud parts are at -100 dBFS, speech is above -50"),
        (speech(3, amplitude=0.002), "silent: its loud parts are at -61 dBFS"),
        (np.full(3 * RATE, 0.5, np.float32), "silent"),
        (padded(before=3, seconds=1.2, after=2), "(19|20)% of its 6.2 s are speech; at least 30% are needed"),
        (np.clip(speech(2, amplitude=2.0), -1, 1), r"clipped: \d+\.\d% of its samples are at the ceiling, 0.5% may be"),
        (0.5 * np.clip(speech(2, amplitude=2.0), -1, 1), "clipped"),
        (np.stack([speech(2), np.clip(speech(2, amplitude=2.0), -1, 1)], axis=1), "clipped"),
        (np.stack([speech(2)] * 3, axis=1), "3 channels; mono or stereo is needed"),
    ],
)
def test_bad_recordings_are_refused_with_the_figures(tmp_path, samples, reason):
    """Bad request, one line: the file, what is wrong, what would do."""
    path = write_recording(tmp_path / "a.wav", samples, subtype="FLOAT")
    with pytest.raises(BadRequestError, match=f"^{path}: {reason}") as caught:
        load_recording(path)
    assert caught.value.code == "bad_request"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_numbers_are_refused(tmp_path, value):
    """One is enough."""
    samples = speech(2)
    samples[5] = value
    path = write_recording(tmp_path / "a.wav", samples, subtype="FLOAT")
    with pytest.raises(BadRequestError, match="1 of 48000 samples are not numbers"):
        load_recording(path)


@pytest.mark.parametrize("rate", [2_000, 384_000])
def test_rates_beyond_speech_are_refused(tmp_path, rate):
    """The limits are named."""
    path = write_recording(tmp_path / "a.wav", rate=rate)
    with pytest.raises(BadRequestError, match=f"{rate} Hz; 4000 to 192000 are taken"):
        load_recording(path)


def test_what_is_no_audio_file_is_refused(tmp_path):
    """Missing, a folder, a FIFO (which is not waited for), text, empty, cut off, without a header."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "text.wav").write_text("speech" * 100)
    (tmp_path / "empty.mp3").touch()
    (tmp_path / "headless.raw").write_bytes(bytes(100_000))
    whole = write_recording(tmp_path / "a.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[:30])
    for name, reason in {
        "nosuch.wav": "no such file",
        ".": "not a file",
        "fifo": "not a file",
        "text.wav": "not audio that can be read",
        "empty.mp3": "not audio that can be read",
        "headless.raw": "not audio that can be read",
        "cut.flac": "not audio that can be read",
    }.items():
        with pytest.raises(BadRequestError, match=reason) as caught:
            load_recording(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_long_files_are_not_read(tmp_path, monkeypatch):
    """Refused by size, then by the header's length; where the header does not tell, reading stops after 30 s."""
    asked = []
    read = soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda file, n, **kw: (asked.append(n), read(file, n, **kw))[1])
    path = write_recording(tmp_path / "a.flac", speech(40))
    with pytest.raises(BadRequestError, match=r"40\.0 s long"):
        load_recording(path)
    assert asked == []
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # FLAC's 36 bits of length, 0 where a stream's is not known
    data[22:26] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(BadRequestError, match="longer than 30 s"):
        load_recording(path)
    assert asked == [30 * RATE + 1]
    with path.open("r+b") as file:
        file.truncate(200_000_000)  # sparse
    with pytest.raises(BadRequestError, match="200 MB; no recording of 30 s is larger than 105"):
        load_recording(path)


def test_lossy_files_of_a_clipped_recording_are_clipped(tmp_path):
    """Their overshoots over full scale count as what they were made from; clean full-scale speech passes."""
    clean = speech(2)
    clean /= np.abs(clean).max()
    for name in ("a.mp3", "a.ogg"):
        load_recording(write_recording(tmp_path / name, clean))
        path = write_recording(tmp_path / name, np.clip(3 * clean, -1, 1))
        with pytest.raises(BadRequestError, match="clipped"):
            load_recording(path)


@given(frequency=st.floats(200, 4000), rate=st.sampled_from([16_000, 44_100, 48_000]), amplitude=st.floats(0.3, 1))
def test_a_tone_is_not_clipped(frequency, rate, amplitude):
    """Reaching the peak over and over is not being cut there."""
    tone = amplitude * np.sin(2 * np.pi * frequency * np.arange(rate) / rate)
    assert clipped_share(tone.astype(np.float32)) <= recording.MAX_CLIPPED


@given(
    samples=arrays.arrays(
        np.float32,
        st.tuples(st.integers(0, 4000), st.integers(1, 2)),
        elements=st.floats(width=32),
        fill=st.floats(-1, 1, width=32),
    )
)
def test_any_samples_are_taken_or_refused(samples):
    """Nothing else comes of the strangest samples, and what is taken is sound at a level."""
    try:
        pcm = prepare(samples, 4000)
    except BadRequestError:
        return
    assert np.isfinite(pcm).all()
    assert 0 < np.abs(pcm).max() <= recording.PEAK + 1e-6
