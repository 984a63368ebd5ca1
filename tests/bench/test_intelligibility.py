"""How well the starter voice is understood, beside flite, its teacher: a speech recogniser writes down both.

The sentences were held out from the training of the starter voice (tests/bench/sentences_en.txt).
"""

import multiprocessing
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import jiwer
import numpy as np
import pytest
import soundfile
import soxr
from pocketsphinx import Decoder
from rich.console import Console
from rich.table import Table

from daemon.config import EngineConfig
from daemon.engine.engine import Engine
from daemon.synthesizer import Synthesizer
from daemon.values import SAMPLE_RATE

STARTER = Path(__file__).resolve().parents[2] / "models" / "starter"
SENTENCES = Path(__file__).with_name("sentences_en.txt")
DOMAINS = {"announcement": "announcements", "open": "open vocabulary"}
MOST_TIMES_FLITE = 2.0
FLITE_DURATION = (0.75, 1.35)
"""Shorter than this part of flite's utterance has ended early, longer has run away (measured: 1.02, deviation 0.05)."""
ASR_RATE = 16_000
PADDING_S = 0.2
NOISE = 1e-4
RESAMPLES = 2000

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(1800)]


class Sentence(NamedTuple):
    """One line of the list."""

    domain: str
    text: str


class Utterance(NamedTuple):
    """A sentence that has been spoken."""

    audio: np.ndarray
    """float32 [S], -1..1."""
    rate_hz: int
    truncated: bool = False

    @property
    def duration_s(self):
        """Length, the silence at both ends left out."""
        heard = np.flatnonzero(np.abs(self.audio) > 0.01)
        return (heard[-1] - heard[0]) / self.rate_hz if len(heard) else 0.0


def read_sentences():
    """The held-out sentences."""
    lines = [line for line in SENTENCES.read_text().splitlines() if not line.startswith("#")]
    return [Sentence(*line.split("\t")) for line in lines]


def speak_with_crier(bundle, sentences):
    """The sentences in the voice of a bundle, as the daemon makes them."""
    with Engine(EngineConfig(bundle=str(bundle))) as engine:
        synthesizer = Synthesizer(engine, profile=False)
        return [speak(engine, synthesizer, sentence.text) for sentence in sentences]


def speak(engine, synthesizer, text):
    """One utterance."""
    session = engine.session(synthesizer.segmenter())
    session.push_text(text)
    session.flush()
    pcm, truncated = [], False
    while (chunk := session.next_audio_chunk()) is not None:
        pcm.append(chunk / np.float32(32768))
        truncated |= session.chunk.truncated
    return Utterance(np.concatenate(pcm), SAMPLE_RATE, truncated)


def speak_with_flite(sentences, folder):
    """The sentences in the voice that the starter voice was taught with."""
    utterances = []
    for sentence in sentences:
        path = folder / "flite.wav"
        subprocess.run(["flite", "-voice", "slt", "-t", sentence.text, "-o", str(path)], check=True)
        utterances.append(Utterance(*soundfile.read(path, dtype="float32")))
    return utterances


def recognise(utterances):
    """What pocketsphinx's American English model hears, utterances spread over the cores."""
    with multiprocessing.get_context("spawn").Pool() as pool:
        return pool.map(recognise_one, utterances, chunksize=4)


def recognise_one(utterance):
    """What is heard of one utterance, between silences and with the little noise that a decoder needs."""
    audio = np.pad(soxr.resample(utterance.audio, utterance.rate_hz, ASR_RATE), int(PADDING_S * ASR_RATE))
    audio = audio + np.random.default_rng(0).normal(0, NOISE, len(audio))
    decoder = Decoder(samprate=ASR_RATE, loglevel="FATAL")  # afresh: it adapts to what it has heard
    decoder.start_utt()
    decoder.process_raw((audio.clip(-1, 1) * 32767).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return hypothesis.hypstr if hypothesis else ""


def words(text):
    """Words alone, in lower case."""
    return " ".join(re.findall(r"[a-z']+", text.lower()))


def count_errors(sentences, heard):
    """Wrong words of every sentence, and its words: int [N, 2]."""
    counts = []
    for sentence, text in zip(sentences, heard, strict=True):
        done = jiwer.process_words(words(sentence.text), words(text))
        wrong = done.substitutions + done.deletions + done.insertions
        counts.append((wrong, done.hits + done.substitutions + done.deletions))
    return np.array(counts)


def error_rate(counts):
    """Word error rate of sentences [N, 2]."""
    return counts[:, 0].sum() / counts[:, 1].sum()


def ratio_interval(ours, theirs):
    """90 % bootstrap interval of the ratio of two error rates on the same sentences, which are drawn together."""
    draws = np.random.default_rng(0).integers(0, len(ours), (RESAMPLES, len(ours)))
    ratios = ours[draws, 0].sum(1) / np.maximum(1, theirs[draws, 0].sum(1))
    return np.quantile(ratios, [0.05, 0.95])


def report(sentences, ours, theirs):
    """Print the word error rates of both voices."""
    table = Table(title="word error rate, pocketsphinx en-us")
    for column in ("sentences", "number", "starter", "flite slt", "ratio", "90 % interval"):
        table.add_column(column, justify="left" if column == "sentences" else "right")
    for domain, name in {"": "all", **DOMAINS}.items():
        chosen = [sentence.domain == domain or not domain for sentence in sentences]
        mine, other = ours[chosen], theirs[chosen]
        low, high = ratio_interval(mine, other)
        rates = error_rate(mine), error_rate(other)
        table.add_row(
            name,
            str(len(mine)),
            *(f"{100 * rate:.1f} %" for rate in rates),
            f"{rates[0] / rates[1]:.2f}",
            f"{low:.2f} to {high:.2f}",
        )
    Console(width=100).print("\n", table)


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_word_errors_stay_under_twice_those_of_flite(tmp_path):
    """On sentences that neither was made for; no utterance runs away or ends early."""
    sentences = read_sentences()
    ours = speak_with_crier(STARTER, sentences)
    theirs = speak_with_flite(sentences, tmp_path)
    heard = recognise([*ours, *theirs])
    counts = count_errors(sentences, heard[: len(ours)]), count_errors(sentences, heard[len(ours) :])
    report(sentences, *counts)
    durations = np.array([a.duration_s / b.duration_s for a, b in zip(ours, theirs, strict=True)])
    print(f"duration beside flite's: mean {durations.mean():.2f}, {durations.min():.2f} to {durations.max():.2f}")
    assert [s.text for s, u in zip(sentences, ours, strict=True) if u.truncated] == []
    shortest, longest = FLITE_DURATION
    odd = [(s.text, d) for s, d in zip(sentences, durations, strict=True) if not shortest < d < longest]
    assert odd == []
    assert error_rate(counts[0]) < MOST_TIMES_FLITE * error_rate(counts[1])
