"""Stage 2: the texts, spoken by flite or taken from recordings, with the times of the phones."""

import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from daemon.errors import ConfigError, ModelError, StoreError
from daemon.values import F32, SAMPLE_RATE
from training import forced_alignment, note, recordings
from training.config import Config, SpeechConfig
from training.crew import Crew
from training.jobs import Job, done, plan
from training.loudness import prepare
from training.phones import phone_id
from training.stopping import StopRequest, on_signals
from training.workspace import Workspace, hold


def run(config: Config, *, processes: int = 1, minutes: float | None = None) -> None:
    """Append what is missing to the workspace's audio and index: a stopped run goes on where it was.

    Args:
        config: of the voice.
        processes: how many speak.
        minutes: the time after which it ends.

    Raises:
        Stopped: a signal came or the minutes were over; what has been spoken is kept.
        ConfigError: flite does not have a voice.
        ModelError: the corpus has not been made, flite is not installed, or what has been spoken is not of this
            configuration.
        BadRequestError: a speaker has no recording that can be used, or another run is at work here.
        StoreError: the disk is full.
        SpeechError: a process was killed; what has been spoken is kept.
    """
    work, request = Workspace(config.paths.work), StopRequest(minutes)
    with on_signals(request), Crew(processes, request) as crew:
        jobs = plan(work, config, partial(crew.each, label="recordings"))
        try:
            work.audio.parent.mkdir(parents=True, exist_ok=True)
            with work.audio.open("ab") as audio:
                hold(audio)
                size = _append(work, config.speech, audio, jobs, crew)
        except OSError as err:  # only here: closing the files writes again what could not be written, and fails again
            raise StoreError(f"{err.filename or work.audio.parent}: {err.strerror}") from None
    print(f"spoken: {len(jobs)} utterances, {size / 2 / SAMPLE_RATE / 3600:.1f} hours")


def _append(work: Workspace, speech: SpeechConfig, audio: BinaryIO, jobs: list[Job], crew: Crew) -> int:
    """Do the jobs that are not done yet; the bytes of audio there are then."""
    note.check(work, speech)
    count, size = done(work, jobs)
    rest = jobs[count:]
    if not all(job.recording for job in rest):
        _check_voices(speech)
    note.write(work, speech, len(jobs))
    if count and rest and work.codec.exists():
        print(
            f"{len(rest)} utterances that the trainings in {work.root} began without: remove {work.codec} and {work.lm}"
            " to begin them anew",
            file=sys.stderr,
        )
    audio.truncate(size)
    with work.index.open("a", encoding="utf-8") as index:
        said = crew.each(partial(_say, speech), rest, "speaking")
        for job, (pcm, phones) in zip(rest, said, strict=True):
            line = job.entry() | {"start": size // 2, "num_samples": len(pcm), "phones": phones}
            audio.write(pcm.tobytes())
            audio.flush()
            index.write(json.dumps(line) + "\n")
            index.flush()
            size += pcm.nbytes
    return size


def _check_voices(speech: SpeechConfig) -> None:
    """Refuse voices that flite does not have: it would take its default voice for them, and say nothing."""
    known = _flite("-lv").partition(":")[2].split()
    for voice in (speaker.flite for speaker in speech.speakers if speaker.flite):
        if "/" in voice or voice.endswith(".flitevox"):
            if not Path(voice).is_file():
                raise ConfigError(f"speech.speakers: flite's voice {voice}: no such file")
        elif voice not in known:
            raise ConfigError(f"speech.speakers: flite has no voice {voice}, expected one of {', '.join(known)}")


def _say(speech: SpeechConfig, job: Job) -> tuple[NDArray[np.int16], list[tuple[int, float]]]:
    """PCM16 at 24 kHz and the phones with their ends in seconds."""
    if job.recording:
        audio, rate = recordings.load(job.recording)
        phones = forced_alignment.phones(audio, rate, job.text)
    else:
        audio, rate, phones = _speak(job.text, speech.speakers[job.speaker].flite)
    pcm, start_s = prepare(audio, rate, speech)
    return pcm, [(phone, round(end - start_s, 3)) for phone, end in phones if end > start_s]


def _speak(text: str, voice: str) -> tuple[F32, int, list[tuple[int, float]]]:
    with tempfile.TemporaryDirectory(dir=_shared_memory()) as folder:
        path = Path(folder) / "said.wav"
        said = _flite("-voice", voice, "-psdur", "-t", text, "-o", str(path))
        try:
            audio, rate = soundfile.read(path, dtype="float32")
        except soundfile.LibsndfileError as err:
            raise ModelError(f"flite -voice {voice} cannot say {text!r}: {err}") from None
    phones = [item.rsplit(":", 1) for item in said.split() if ":" in item]
    return audio, rate, [(phone_id(name), float(end)) for name, end in phones]


def _flite(*arguments: str) -> str:
    """What it prints; in a process group of its own, so that a terminal's Ctrl-C does not cut an utterance short."""
    command = ["flite", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, process_group=0).stdout
    except FileNotFoundError as err:
        raise ModelError(f"{err.filename}: not found; install it with: apt install flite") from None
    except subprocess.SubprocessError as err:
        raise ModelError(f"flite failed: {err}") from None


def _shared_memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  # a folder of our own is made in it
