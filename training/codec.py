"""The stage codec: train speech to codes and back, first alone, then the decoder against an adversary."""

import time
from typing import TYPE_CHECKING

from daemon.errors import ModelError
from training import encode
from training.checkpoint import load
from training.codec_adversary import Deceiving
from training.codec_course import Course
from training.codec_data import read_codes
from training.codec_look import Look
from training.codec_recon import Reconstructing
from training.codec_store import ADVERSARY, RECON, codec_of, load_codec
from training.runner import Run, launch
from training.speech import Speech
from training.stopping import Stopped
from training.workspace import Workspace

if TYPE_CHECKING:
    from training.config import Config

__all__ = ["load_codec", "run"]


def run(config: "Config", *, device: str, processes: int, minutes: float | None, phase: str | None = None) -> None:
    """Train the codec, or go on with it.

    Args:
        config: of the voice.
        device: cpu, cuda or cuda:N.
        processes: how many.
        minutes: after which to stop; None is never.
        phase: recon (everything, alone) or adversary (the decoder, on the codes that the first gives); None is both.

    Raises:
        ModelError: there is no speech, or a checkpoint is damaged or of other sizes.
        StoreError: progress cannot be saved.
        Stopped: it ended early, and saved.
    """
    deadline_s = None if minutes is None else time.monotonic() + 60 * minutes

    def left() -> float | None:
        if deadline_s is None:
            return None
        if time.monotonic() >= deadline_s:
            raise Stopped
        return (deadline_s - time.monotonic()) / 60

    if phase != "adversary":
        launch(reconstruct, config, device=device, processes=processes, minutes=left())
    if phase != "recon":
        encode.run(config, device=device, processes=processes, minutes=left())
        launch(deceive, config, device=device, processes=processes, minutes=left())


def reconstruct(run: Run, config: "Config") -> None:
    """One process of the first training."""
    work, codec = Workspace(config.paths.work), config.codec
    speech = Speech(work)
    learner = Reconstructing(run, codec, speech, Look(run, codec, speech, work.plots, "codec_recon"))
    course = Course(
        run,
        work.codec / RECON,
        learner,
        steps=codec.steps,
        warmup=codec.warmup,
        decay=codec.decay,
        every=codec.checkpoint_every,
    )
    course.go_on(work.log("codec_recon"))


def deceive(run: Run, config: "Config") -> None:
    """One process of the second training."""
    work, adversary = Workspace(config.paths.work), config.codec.adversary
    speech = Speech(work)
    state = load(work.codec / RECON, run.device)
    if state is None:
        raise ModelError(f"{work.codec / RECON}: missing; train the phase recon first")
    learner = Deceiving(
        run,
        config.codec,
        speech,
        codes=read_codes(work.codes),
        codec=codec_of(state).to(run.device),
        look=Look(run, config.codec, speech, work.plots, "codec_adversary"),
    )
    course = Course(
        run,
        work.codec / ADVERSARY,
        learner,
        steps=adversary.steps,
        warmup=adversary.warmup,
        decay=adversary.decay,
        every=adversary.checkpoint_every,
    )
    course.go_on(work.log("codec_adversary"))
