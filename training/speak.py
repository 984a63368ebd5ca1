"""Stage 2: the texts, spoken by flite or taken from recordings, with the times of the phones."""

import json
import multiprocessing
import os
import signal
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray
from rich.progress import track

from daemon.errors import ModelError, StoreError
from daemon.values import F32, SAMPLE_RATE
from training import forced_alignment, recordings
from training.config import Config, SpeakerConfig, SpeechConfig
from training.jobs import Each, Job, done, plan
from training.loudness import prepare
from training.phones import phone_id
from training.stopping import Stopped, StopRequest
from training.workspace import Workspace, hold

_CHUNK = 16
"""Jobs that a process is given at once."""


def run(config: Config, *, minutes: float | None = None) -> None:
    """Append what is missing to the workspace's audio and index: a stopped run goes on where it was.

    Args:
        config: of the voice.
        minutes: the time after which it ends.

    Raises:
        Stopped: the minutes were over; what has been spoken is kept.
        ModelError: the corpus has not been made, flite is not installed, or what has been spoken is not of this
            configuration.
        BadRequestError: a speaker has no recording that can be used, or another run is at work here.
        StoreError: the disk is full.
    """
    work, request = Workspace(config.paths.work), StopRequest(minutes)
    with multiprocessing.get_context("spawn").Pool(os.cpu_count(), _start, (config.speech,)) as pool:
        each = partial(pool.imap, chunksize=_CHUNK)
        jobs = plan(work, config, each)
        work.audio.parent.mkdir(parents=True, exist_ok=True)
        with work.audio.open("ab") as audio:
            hold(audio)
            size = _append(work, audio, jobs, each, request)
    print(f"spoken: {len(jobs)} utterances, {size / 2 / SAMPLE_RATE / 3600:.1f} hours")


def _append(work: Workspace, audio: BinaryIO, jobs: list[Job], each: Each, request: StopRequest) -> int:
    """Do the jobs that are not done yet; the bytes of audio there are then."""
    count, size = done(work, jobs)
    rest = jobs[count:]
    audio.truncate(size)
    with work.index.open("a", encoding="utf-8") as index:
        for job, (pcm, phones) in zip(rest, track(each(_say, rest), "speaking", total=len(rest)), strict=True):
            line = job.entry() | {"start": size // 2, "num_samples": len(pcm), "phones": phones}
            try:
                audio.write(pcm.tobytes())
                audio.flush()
                index.write(json.dumps(line) + "\n")
                index.flush()
            except OSError as err:
                raise StoreError(f"{work.audio}: {err.strerror}") from None
            size += pcm.nbytes
            if request.asked:
                raise Stopped
    return size


_speech: SpeechConfig


def _start(speech: SpeechConfig) -> None:
    global _speech  # noqa: PLW0603  # a pool's workers have no other place
    _speech = speech
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends the pool


def _say(job: Job) -> tuple[NDArray[np.int16], list[tuple[int, float]]]:
    """PCM16 at 24 kHz and the phones with their ends in seconds."""
    if job.recording:
        audio, rate = recordings.load(job.recording)
        phones = forced_alignment.phones(audio, rate, job.text)
    else:
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
