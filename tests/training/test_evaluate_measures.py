"""Distances and times of speech whose differences are known."""

import librosa
import numpy as np
import pytest
from flite_speech import RATE, say

from training import timing
from training.distortion import cepstra, distortion

TEXT = "please close the kitchen window before you leave the house."


def test_speech_is_at_no_distance_from_itself():
    """Also when it is quieter, begins later and ends later."""
    pcm = say(TEXT)
    later = np.pad(pcm // 2, (RATE // 5, RATE // 4))
    assert distortion(cepstra(pcm), cepstra(pcm)) == pytest.approx(0, abs=1e-6)
    assert distortion(cepstra(pcm), cepstra(later)) < 0.5


def test_what_sounds_less_alike_is_further_away():
    """Slower speech is near, another voice is further, and other words in it further still; noise adds up."""
    teacher = cepstra(say(TEXT))
    others = say(TEXT, stretch=1.1), say(TEXT, voice="rms"), say("turning on the light.", voice="rms")
    slower, voice, words = (distortion(teacher, cepstra(pcm)) for pcm in others)
    assert slower < 1.5 < voice < words
    noise = np.random.default_rng(0).normal(0, 1, len(say(TEXT)))
    noisy = [distortion(teacher, cepstra((say(TEXT) + level * noise).astype(np.int16))) for level in (10, 100, 1000)]
    assert noisy == sorted(noisy)


def test_distance_is_in_decibels():
    """Between noise and its differences it is the root mean square of the filter's response without its mean."""
    noise = np.random.default_rng(0).normal(0, 1000, 4 * RATE)
    plain, filtered = (cepstra(pcm.astype(np.int16)).shape for pcm in (noise, np.diff(noise, append=0)))
    centres = librosa.mel_frequencies(42, fmin=60, fmax=8000)[1:-1]
    response = 20 * np.log10(2 * np.sin(np.pi * centres / RATE))
    shift = float(np.linalg.norm((filtered - plain)[5:-5].mean(0)))
    assert shift == pytest.approx(float(response.std()), rel=0.1)


def test_silence_is_measured_where_it_is():
    """Before, after and within; short gaps belong to the speech."""
    tone = (8000 * np.sin(np.arange(RATE // 2) * 0.2)).astype(np.int16)
    quiet = [np.zeros(int(seconds * RATE), np.int16) for seconds in (0.2, 0.3, 0.05, 0.4)]
    pcm = np.concatenate([quiet[0], tone, quiet[1], tone, quiet[2], tone, quiet[3]])
    found = timing.measure(cepstra(pcm))
    assert found.before_s == pytest.approx(0.2, abs=0.03)
    assert found.pauses_s == pytest.approx(0.3, abs=0.04)
    assert found.after_s == pytest.approx(0.4, abs=0.03)
    assert found.speech_s == pytest.approx(1.55, abs=0.09)  # the windows reach 12 ms beyond each end of a sound


def test_slower_speech_takes_longer():
    """By as much as it is slower."""
    fast, slow = (timing.measure(cepstra(say(TEXT, stretch=stretch))) for stretch in (1.0, 1.2))
    assert slow.speech_s / fast.speech_s == pytest.approx(1.2, abs=0.05)
