"""Speech that was made before, as files: the samples, and the codes for requests that go on from it; never the text."""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from daemon.cache_folder import CacheFolder
from daemon.config_sections import PhrasesConfig
from daemon.values import I32, Pcm16

RENDITION = 1
"""To be counted up when the program comes to speak the same text in another way."""

_FOLDER = "phrases"
_MAGIC = b"crier-phrase-1\n"
_KEY_BYTES = hashlib.sha256().digest_size
_HEADER = struct.Struct(f"<{_KEY_BYTES}sQIII")
"""Key, samples, frames, segments, codebooks; behind it the frames of each segment, the codes, the samples."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """What an utterance was."""

    pcm: Pcm16
    """int16 [S]; not writable."""
    codes: list[I32]
    """int32 [T, Q] of each segment; empty for a model that does not go on from earlier speech."""


def phrase_key(*parts: object) -> bytes:
    """The key of a phrase from everything its samples depend on; the parts' repr must tell all of them."""
    return hashlib.sha256(repr((RENDITION, *parts)).encode("utf-8", "surrogatepass")).digest()


def open_phrases(config: PhrasesConfig, cache: Path, *, complain: bool = True) -> "PhraseCache | None":
    """The phrases within a cache folder; None where none are to be kept. ``complain``: as for ``PhraseCache``."""
    return PhraseCache(cache / _FOLDER, config.max_mb * 2**20, complain=complain) if config.cache else None


class PhraseCache:
    """A folder of phrases, bounded in bytes; the least recently used leaves first.

    ``get`` and ``put`` on one thread, ``has`` on any; other processes may use the same folder.

    Args:
        folder: where.
        max_bytes: of all files together.
        complain: log what cannot be read or kept; ``error`` tells it in any case.
    """

    def __init__(self, folder: Path, max_bytes: int, *, complain: bool = True) -> None:
        self._files = CacheFolder(folder, max_bytes, suffix=".phrase", magic=_MAGIC, complain=complain)
        self._files.evict()

    @property
    def folder(self) -> Path:
        """Where the phrases are."""
        return self._files.folder

    @property
    def max_bytes(self) -> int:
        """Of all phrases together; none is longer."""
        return self._files.max_bytes

    @property
    def num_bytes(self) -> int:
        """Of all phrases, as of the start or the last ``put``."""
        return self._files.num_bytes

    @property
    def error(self) -> str:
        """Why the last phrase could not be kept; empty where it could."""
        return self._files.error

    def has(self, key: bytes) -> bool:
        """Whether there is a phrase; its samples are not looked at."""
        found = self._files.head(key.hex(), _HEADER.size)
        return found is not None and len(found[0]) == _HEADER.size and _size(found[0], key) == found[1]

    def get(self, key: bytes) -> Phrase | None:
        """A phrase, None if there is none that is whole."""
        content = self._files.read(key.hex())
        if content is None:
            return None
        if len(content) < _HEADER.size or _size(content[: _HEADER.size], key) != len(content):
            self._files.remove(key.hex())  # whole, but not what its name says
            return None
        _key, _samples, num_frames, num_segments, num_codebooks = _HEADER.unpack(content[: _HEADER.size])
        lengths = np.frombuffer(content, "<u4", num_segments, _HEADER.size)
        start = _HEADER.size + lengths.nbytes
        codes = np.frombuffer(content, "<u2", num_frames * num_codebooks, start).astype(np.int32)
        parts = np.split(codes.reshape(num_frames, num_codebooks), np.cumsum(lengths[:-1])) if num_segments else []
        return Phrase(np.frombuffer(content, "<i2", offset=start + 2 * len(codes)), parts)

    def put(self, key: bytes, pcm: bytes | bytearray, codes: Sequence[I32] = ()) -> bool:
        """Keep a phrase, int16 [S] as bytes; whether it could be kept."""
        num_codebooks = codes[0].shape[1] if codes else 0
        num_frames = sum(map(len, codes))
        header = _HEADER.pack(key, len(pcm) // 2, num_frames, len(codes), num_codebooks)
        lengths = np.array([len(each) for each in codes], "<u4").tobytes()
        return self._files.write(key.hex(), [header, lengths, *(each.astype("<u2").tobytes() for each in codes), pcm])


def _size(header: bytes | memoryview, key: bytes) -> int | None:
    """How long the content is that a header begins; None if it is of another phrase."""
    found, num_samples, num_frames, num_segments, num_codebooks = _HEADER.unpack(header)
    if found != key:
        return None
    return int(_HEADER.size + 4 * num_segments + 2 * num_frames * num_codebooks + 2 * num_samples)
