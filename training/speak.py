"""Stage 2: the texts, spoken by flite or taken from recordings, with the times of the phones."""

import json
import multiprocessing
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from rich.progress import track

from daemon.errors import ModelError, StoreError
from daemon.values import F32, SAMPLE_RATE
from training.config import Config, SpeakerConfig, SpeechConfig
from training.phones import phone_id
from training.workspace import Workspace

_FRAME_SAMPLES = 1920
_SILENCE_BLOCK_S = 0.01
_SILENCE_SHARE = 0.02
"""What is under this share of the loudest block is silence."""
_PEAK = 0.95
_SHORTEST_S = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One text to be said by one speaker."""

    text: str
    source: str
    split: str
    speaker: int


def run(config: Config) -> None:
    """Append what is missing to the workspace's audio and index: a stopped run goes on where it was.

    Raises:
        ModelError: the corpus has not been made, or flite is not installed.
        StoreError: the disk is full.
    """
    work = Workspace(config.paths.work)
    jobs = list(_jobs(work, config.speech))
    work.audio.parent.mkdir(parents=True, exist_ok=True)
    done, size = _done(work)
    with work.audio.open("ab") as audio, work.index.open("a", encoding="utf-8") as index:
        audio.truncate(size)
        rest = jobs[done:]
        with multiprocessing.get_context("spawn").Pool(os.cpu_count(), _start, (config.speech,)) as pool:
            spoken = pool.imap(_say, rest, chunksize=16)
            for job, result in zip(rest, track(spoken, "speaking", total=len(rest)), strict=True):
                pcm, phones = result
                line = asdict(job) | {"start": size // 2, "num_samples": len(pcm), "phones": phones}
                try:
                    audio.write(pcm.tobytes())
                    audio.flush()
                    index.write(json.dumps(line) + "\n")
                    index.flush()
                except OSError as err:
                    raise StoreError(f"{work.audio}: {err.strerror}") from None
                size += pcm.nbytes
    print(f"spoken: {len(jobs)} utterances, {size / 2 / SAMPLE_RATE / 3600:.1f} hours")


def _jobs(work: Workspace, speech: SpeechConfig) -> Iterator[Job]:
    """Held-out texts by every speaker of flite's, then the training texts, each by the next speaker in turn."""
    try:
        corpus = json.loads(work.corpus.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise ModelError(f"{work.corpus}: {err}; run the stage corpus first") from None
    numbers = [number for number, speaker in enumerate(speech.speakers) if speaker.flite]
    for text, source in corpus["held"]:
        for number in numbers:
            yield Job(text=text, source=source, split="held", speaker=number)
    for count, (text, source) in enumerate(corpus["train"] if numbers else []):
        yield Job(text=text, source=source, split="train", speaker=numbers[count % len(numbers)])


def _done(work: Workspace) -> tuple[int, int]:
    """How many jobs are done, and the bytes of audio they have; a line cut short is dropped."""
    if not work.index.exists():
        return 0, 0
    whole = work.index.read_text(encoding="utf-8").splitlines(keepends=True)
    if whole and not whole[-1].endswith("\n"):
        work.index.write_text("".join(whole := whole[:-1]), encoding="utf-8")
    if not whole:
        return 0, 0
    last = json.loads(whole[-1])
    return len(whole), 2 * (last["start"] + last["num_samples"])


_speech: SpeechConfig


def _start(speech: SpeechConfig) -> None:
    global _speech  # noqa: PLW0603  # a pool's workers have no other place
    _speech = speech
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends the pool


def _say(job: Job) -> tuple[NDArray[np.int16], list[tuple[int, float]]]:
    """PCM16 at 24 kHz and the phones with their ends in seconds."""
    audio, rate, phones = _flite(job.text, _speech.speakers[job.speaker])
    pcm, start_s = prepare(audio, rate, _speech)
    return pcm, [(phone, round(end - start_s, 3)) for phone, end in phones if end > start_s]


def _flite(text: str, speaker: SpeakerConfig) -> tuple[F32, int, list[tuple[int, float]]]:
    with tempfile.TemporaryDirectory(dir=_shared_memory()) as folder:
        path = Path(folder) / "said.wav"
        command = ["flite", "-voice", speaker.flite, "-psdur", "-t", text, "-o", str(path)]
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
            audio, rate = soundfile.read(path, dtype="float32")
        except FileNotFoundError as err:
            raise ModelError(f"{err.filename}: not found; install it with: apt install flite") from None
        except (subprocess.SubprocessError, soundfile.LibsndfileError) as err:
            raise ModelError(f"flite -voice {speaker.flite} cannot say {text!r}: {err}") from None
    phones = [item.rsplit(":", 1) for item in result.stdout.split() if ":" in item]
    return audio, rate, [(phone_id(name), float(end)) for name, end in phones]


def _shared_memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  # a folder of our own is made in it


def prepare(audio: F32, rate: int, speech: SpeechConfig) -> tuple[NDArray[np.int16], float]:
    """Cut the silence at both ends down to the margin, set the level, resample.

    Args:
        audio: float32 [S'] at ``rate``.
        rate: its sample rate, Hz.
        speech: margin and level.

    Returns:
        int16 [S] at 24 kHz, and how many seconds were cut from the start.
    """
    block = round(rate * _SILENCE_BLOCK_S)
    num_blocks = len(audio) // block
    loudness = np.sqrt((audio[: num_blocks * block].reshape(-1, block) ** 2).mean(axis=1) + 1e-12)
    loud = np.flatnonzero(loudness > _SILENCE_SHARE * loudness.max()) if num_blocks else np.zeros(0, int)
    if len(loud) * _SILENCE_BLOCK_S < _SHORTEST_S / 3:
        return np.zeros(round(_SHORTEST_S * SAMPLE_RATE), np.int16), 0.0
    margin = round(speech.margin_s * rate)
    start, end = max(0, loud[0] * block - margin), min(len(audio), (loud[-1] + 1) * block + margin)
    audio = audio[start:end]
    sounding = audio[np.abs(audio) > 0.01 * np.abs(audio).max()]
    audio = audio * (10 ** (speech.level_db / 20) / np.sqrt((sounding**2).mean()))
    audio = audio * min(1.0, _PEAK / np.abs(audio).max())
    resampled = soxr.resample(audio, rate, SAMPLE_RATE)
    return (np.clip(resampled, -1, 1) * 32767).astype(np.int16), start / rate
