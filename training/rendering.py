"""The held-out texts as a bundle speaks them, made by the daemon's own engine."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

import daemon
from daemon.config_sections import EngineConfig
from daemon.engine.bundle import load_bundle
from daemon.engine.engine import Engine
from daemon.errors import BadRequestError, ModelError
from daemon.synthesizer import Synthesizer
from daemon.values import Pcm16
from training.crew import Crew
from training.shelf import Made, Shelf, write

_KEY = 16
"""Hex digits that name a bundle's folder and an utterance's file."""
_SOURCES = ("engine/*.py", "text/*.py", "synthesizer.py")
"""What of the daemon makes sound out of text."""


@dataclass(frozen=True, slots=True)
class _Order:
    bundle: Path
    voice: str
    text: str
    path: Path


class Bundle:
    """A bundle that is to be judged, and what it has spoken so far.

    Args:
        folder: the bundle.
        kept: where renderings are kept, apart by the hash of the bundle's manifest and the daemon's sources.
        crew: who speaks.

    Attributes:
        digest: sha256 of the manifest, which has the hashes of all files.
        num_bytes: on disk.

    Raises:
        ModelError: there is no such bundle.
    """

    def __init__(self, folder: Path, kept: Path, crew: Crew) -> None:
        if not folder.exists():
            raise ModelError(f"{folder}: missing; run the stage export first")
        manifest = load_bundle(folder).manifest
        self.digest = digest(folder)
        self.num_bytes = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        self.frame_samples = manifest.audio.samples_per_frame
        self.delay_samples = manifest.codec.delay_samples
        self._voices = {voice.speaker: name for name, voice in manifest.voices.items()}
        self._bundle = folder
        self._kept = kept / hashlib.sha256(f"{self.digest} {_sources_digest()}".encode()).hexdigest()[:_KEY]
        self._shelf = Shelf(self._kept, crew)

    def speak(self, speaker: int, texts: Sequence[str]) -> list[Made]:
        """The texts, normalised and cut into segments as in the daemon.

        Raises:
            ModelError: the bundle has no such speaker, or cannot speak a text.
            StoreError: the disk is full.
            Stopped: asked to; what was made is kept.
        """
        if speaker not in self._voices:
            raise ModelError(f"{self._bundle}: expected a voice of speaker {speaker}, found {self._voices}")
        voice = self._voices[speaker]
        orders = [_Order(self._bundle, voice, text, self._kept / voice / _file_name(text)) for text in texts]
        return self._shelf.get(_speak, orders, f"{self._bundle.name} {voice}")


def digest(bundle: Path) -> str:
    """sha256 of a bundle's manifest; empty where there is none."""
    path = bundle / "manifest.toml"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def _sources_digest() -> str:
    package = Path(daemon.__file__).parent
    found = hashlib.sha256()
    for path in sorted(path for pattern in _SOURCES for path in package.glob(pattern)):
        found.update(path.read_bytes())
    return found.hexdigest()


def _file_name(text: str) -> str:
    return f"{hashlib.sha256(text.encode()).hexdigest()[:_KEY]}.flac"


@lru_cache(maxsize=1)
def _engine(bundle: Path) -> tuple[Engine, Synthesizer]:
    engine = Engine(EngineConfig(bundle=str(bundle), threads=1))
    return engine, Synthesizer(engine, profile=False)


def _speak(order: _Order) -> Made:
    """One utterance to its file."""
    engine, synthesizer = _engine(order.bundle)
    session = engine.session(synthesizer.segmenter(), voice=order.voice)
    session.push_text(order.text)
    session.flush()
    chunks: list[Pcm16] = []
    starts: dict[int, int] = {}
    truncated = False
    try:
        while (chunk := session.next_audio_chunk()) is not None:
            chunks.append(chunk.copy())
            starts.setdefault(session.chunk.segment, session.chunk.sample_offset)
            truncated |= session.chunk.truncated
    except BadRequestError as err:  # two arguments: it does not survive the way to another process
        raise ModelError(f"{order.bundle}: {order.text!r}: {err}") from err
    if not chunks:
        raise ModelError(f"{order.bundle}: {order.text!r}: nothing was spoken")
    pcm = np.concatenate(chunks)
    write(order.path, pcm)
    return Made(order.path, len(pcm), tuple(starts.values()), truncated)
