"""Somebody who records sentences: another voice of flite's, in the files that people have."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from codec_scene import CODEC

from training.config import Config, PathsConfig, SpeakerConfig, SpeechConfig
from training.phones import phone_id
from training.workspace import Workspace

FLITE = SpeakerConfig(name="slt", description="flite's", flite="slt")
TEXTS = [
    "The kettle has boiled, and dinner is ready.",
    "Please close the window in the kitchen.",
    "Yes.",
    "The train to the city leaves at nine.",
    "Is the front door locked?",
    "It will rain again in the evening.",
]


def record(path: Path, text: str, *, voice: str = "kal16", rate: int = 16_000, channels: int = 1) -> list:
    """Speak a text into a file with half a second of faint noise around it; the phones, and their ends in seconds."""
    if not shutil.which("flite"):
        pytest.skip("flite is not installed")
    path.parent.mkdir(parents=True, exist_ok=True)
    said = path.with_name(f"{path.name}.said.wav")
    command = ["flite", "-voice", voice, "-psdur", "-t", text, "-o", str(said)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    audio, own_rate = soundfile.read(said, dtype="float32")
    said.unlink()
    audio = np.pad(soxr.resample(0.3 * audio / np.abs(audio).max(), own_rate, rate), rate // 2)
    audio = audio + np.random.default_rng(0).normal(0, 2e-4, (channels, len(audio)))
    soundfile.write(path, audio.T, rate)
    phones = [item.rsplit(":", 1) for item in printed.split()]
    return [(phone_id(name), float(end) + 0.5) for name, end in phones]


def folder(where: Path, texts: list[str] = TEXTS) -> Path:
    """A folder with metadata.csv and a FLAC file, 44.1 kHz, stereo, for each text."""
    lines = []
    for number, text in enumerate(texts):
        record(where / "wavs" / f"{number}.flac", text, rate=44_100, channels=2)
        lines.append(f"{number}|{text}\n")
    (where / "metadata.csv").write_text("".join(lines), encoding="utf-8")
    return where


def config_of(work: Path, recordings: Path | None, **options) -> Config:
    """flite's slt, who has little to say, and the recorded speaker, if there is one."""
    speakers = [FLITE]
    if recordings:
        own = SpeakerConfig(name="me", description="recorded", recordings=str(recordings), **options)
        speakers.append(own)
    corpus = {"held": [["good morning.", "sentences"]], "train": [["the box is open.", "sentences"], ["no.", "words"]]}
    work.mkdir(parents=True, exist_ok=True)
    Workspace(work).corpus.write_text(json.dumps(corpus), encoding="utf-8")
    return Config(paths=PathsConfig(work=str(work)), speech=SpeechConfig(speakers=tuple(speakers)), codec=CODEC)
