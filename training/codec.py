"""The stage codec: train speech to codes and back, first alone, then the decoder against an adversary."""

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from daemon.errors import ModelError
from training import encode
from training.checkpoint import load
from training.codec_adversary import Deceiving
from training.codec_config import AdversaryConfig, CodecConfig
from training.codec_look import Look
from training.codec_model import Codec
from training.codec_recon import Reconstructing, sizes_of
from training.codec_store import (
    ADVERSARY,
    DISCRIMINATORS,
    RECON,
    codec_of,
    print_of,
    take_over,
    trained_elsewhere,
)
from training.course import Course, Learner
from training.runner import Run, launch
from training.speech import Speech
from training.stopping import Stopped
from training.workspace import Workspace, hold

if TYPE_CHECKING:
    from training.config import Config


def run(config: "Config", *, device: str, processes: int, minutes: float | None, phase: str | None = None) -> None:
    """Train the codec, or go on with it.

    Args:
        config: of the voice.
        device: cpu, cuda or cuda:N.
        processes: how many.
        minutes: after which to stop; None is never.
        phase: recon (everything, alone) or adversary (the decoder, on the codes that the first gives); None is both.

    Raises:
        ModelError: there is no speech, a checkpoint is damaged or of other sizes, or there is no codec to take over.
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
    """One process of the first training, or of taking over what came out of another one."""
    work, codec = Workspace(config.paths.work), config.codec
    if not codec.steps:
        if run.rank == 0:
            take_over(Path(codec.init), work, asdict(sizes_of(codec)))
        return
    speech = Speech(work)
    look = Look(run, codec, speech, work.plots, "codec_recon")
    learner = Reconstructing(run, codec, speech, look, config.speech.repeats)
    if begin := _begin(codec, work.codec / RECON):
        learner.begin_with(begin)
    _course(run, work.codec / RECON, learner, codec).go_on(work.log("codec_recon"))


def _begin(config: CodecConfig, own: Path) -> dict[str, Any] | None:
    """The other voice's codec that a training begins with, unless it has begun."""
    if own.exists() or not config.init:
        return None
    return trained_elsewhere(Path(config.init), asdict(sizes_of(config)))


def deceive(run: Run, config: "Config") -> None:
    """One process of the second training."""
    work = Workspace(config.paths.work)
    speech = Speech(work)
    state = load(work.codec / RECON)
    if state is None:
        raise ModelError(f"{work.codec / RECON}: missing; train the phase recon first")
    codec = codec_of(state)
    _drop_of_other(run, work.codec / ADVERSARY, work.log("codec_adversary"), codec)
    learner = Deceiving(
        run,
        config.codec,
        speech,
        codes=encode.read_codes(work, speech),
        codec=codec.to(run.device),
        look=Look(run, config.codec, speech, work.plots, "codec_adversary"),
        repeats=config.speech.repeats,
    )
    begin = _begin(config.codec, work.codec / ADVERSARY)
    if begin and DISCRIMINATORS in begin:
        learner.judged_by(begin[DISCRIMINATORS])
    _course(run, work.codec / ADVERSARY, learner, config.codec.adversary).go_on(work.log("codec_adversary"))


def _course(run: Run, path: Path, learner: Learner, config: CodecConfig | AdversaryConfig) -> Course:
    return Course(
        run,
        path,
        learner,
        steps=config.steps,
        warmup=config.warmup,
        decay=config.decay,
        every=config.checkpoint_every,
    )


def _drop_of_other(run: Run, path: Path, log: Path, codec: Codec) -> None:
    """Remove a checkpoint of the second training whose encoder and codebooks are not those of the first any more."""
    state = load(path)
    if state is not None and print_of(codec_of(state)) != print_of(codec) and run.rank == 0:
        print(f"{path}: the first training has gone on since: the second begins anew", file=sys.stderr)
        with log.open("a") as file:
            hold(file)  # it may be somebody's who is at work
            path.unlink()
    run.average([torch.zeros(1)])  # nobody looks for it before it is gone
