"""The stage lm: train the language model on the texts and the codes of their speech."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from daemon.errors import ModelError
from training import schedule, text
from training.checkpoint import load, save
from training.journal import Journal
from training.lm_check import Check
from training.lm_config import LmConfig
from training.lm_data import Sentence, batches, collate, read_codes, sentences
from training.lm_loss import losses
from training.lm_model import LmShape, SpeechLm
from training.lm_optimizer import LmOptimizer
from training.phones import PHONES
from training.runner import Run, launch
from training.speech import Speech
from training.workspace import Workspace

if TYPE_CHECKING:
    from training.config import Config

_GUIDE_FALLS_BY = 0.6
_GUIDE_FLOOR = 0.05


def run(config: "Config", *, device: str, processes: int, minutes: float | None) -> None:
    """Train the language model, or go on with it.

    Raises:
        ModelError: there are no codes yet, or a checkpoint is damaged or of another shape.
        StoreError: progress cannot be saved.
        Stopped: it ended early, and saved.
    """
    launch(train, config, device=device, processes=processes, minutes=minutes)


def train(run: Run, config: "Config") -> None:
    """One process of the stage."""
    work = Workspace(config.paths.work)
    speech = Speech(work)
    codes = read_codes(work, speech)
    training = Training(run, config.lm, work.lm, shape_of(config, codes.shape[1]))
    if training.step >= config.lm.steps:
        return
    data = sentences(speech, codes, "train", config.lm.longest, config.speech.repeats)
    held = sentences(speech, codes, "held", config.lm.longest)
    if not data:
        raise ModelError(f"{work.index}: no sentence to train on of {config.lm.longest} positions or fewer")
    check = Check(run, config.lm, held, work.plots)
    with Journal(run, work.log("lm"), total=config.lm.steps, start=training.step) as journal:
        training.go_on(data, check, journal)


def shape_of(config: "Config", num_codebooks: int) -> LmShape:
    """The sizes that the configuration and the codes ask for."""
    lm = config.lm
    return LmShape(
        width=lm.width,
        layers=lm.layers,
        ffn=lm.ffn,
        depth_width=lm.depth_width,
        depth_layers=lm.depth_layers,
        depth_ffn=lm.depth_ffn,
        num_tokens=text.num_tokens(len(config.speech.speakers)),
        num_codebooks=num_codebooks,
        codebook_size=config.codec.codebook_size,
        num_phones=len(PHONES),
        phone_layer=lm.phone_layer,
        guide_layer=lm.guide_layer,
    )


class Training:
    """A model in training, with what its checkpoint holds.

    Args:
        run: this process.
        config: [lm].
        folder: of the checkpoints: last.pt, and last.stable.pt from before the decay.
        shape: of the model.

    Raises:
        ModelError: a checkpoint is damaged or of another shape.
    """

    def __init__(self, run: Run, config: LmConfig, folder: Path, shape: LmShape) -> None:
        self._run, self._config = run, config
        self._last, self._stable = folder / "last.pt", folder / "last.stable.pt"
        torch.manual_seed(config.seed)
        self.model = SpeechLm(shape).to(run.device)
        self._parameters = list(self.model.parameters())
        self._optimizer = LmOptimizer(self.model, config)
        self.step = 0
        """Steps done."""
        self._restore()
        run.broadcast(self._parameters)
        self.model.dtype = torch.bfloat16
        if config.compile and run.device.type == "cpu" and shutil.which("g++"):
            self.model.compile_layers()

    def go_on(self, data: Sequence[Sentence], check: Check, journal: Journal) -> None:
        """Train until the last step or until asked to stop; saves before it returns."""
        run, config = self._run, self._config
        order = batches(
            data, positions=config.positions, rank=run.rank, world=run.world, seed=config.seed, start=self.step
        )
        begin = schedule.decay_begins(config.steps, config.decay)
        stopped = False
        while self.step < config.steps and not stopped:
            metrics = self._one(next(order))
            self.step += 1
            journal.step(self.step, **metrics)
            stopped = run.should_stop()
            if self.step == begin:
                self._save(self._stable)
            if stopped or self.step % config.evaluate_every == 0 or self.step == config.steps:
                self._save(self._last)
                if not stopped:
                    journal.note(**check.look(self.model))

    def _one(self, rows: Sequence[Sentence]) -> dict[str, float]:
        """One step on this process's rows; what was measured, by name."""
        run, config, model = self._run, self._config, self.model
        run.seed(self.step)  # the same noise whether or not training was interrupted
        model.train()
        batch = collate(rows, config.positions, model.shape.codebook_size, model.dtype).to(run.device)
        found = losses(model, batch, config, _depth_frames(config))
        torch.autograd.backward(found.total(config, _guide_weight(config, self.step)))
        run.average([each.grad for each in self._parameters if each.grad is not None])
        norm = nn.utils.clip_grad_norm_(self._parameters, config.clip)
        self._optimizer.step(schedule.rate(self.step, config.steps, config.warmup, config.decay))
        metrics = found.metrics() | {"gradient": norm}
        values = torch.stack([value.float() for value in metrics.values()]).tolist()
        return dict(zip(metrics, values, strict=True))

    def _save(self, path: Path) -> None:
        if self._run.rank:
            return
        state = {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "shape": asdict(self.model.shape),
            "step": self.step,
            "steps": self._config.steps,
            "decay": self._config.decay,
        }
        save(path, state)

    def _restore(self) -> None:
        state = load(self._last, self._run.device)
        if state is None:
            if self._config.init:
                _begin_with(self.model, Path(self._config.init))
            return
        try:
            more = self._config.steps > state["steps"]
            if more and state["step"] > schedule.decay_begins(state["steps"], state["decay"]):
                state = load(self._stable, self._run.device) or state
            if state["shape"] != asdict(self.model.shape):
                raise ModelError(
                    f"{self._last}: expected a model of {asdict(self.model.shape)}, found {state['shape']};"
                    " remove it to begin anew"
                )
            self.model.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
            self.step = int(state["step"])
        except (KeyError, TypeError, ValueError, RuntimeError) as err:
            raise ModelError(f"{self._last}: not a checkpoint of this stage: {str(err).splitlines()[0]}") from err


def _guide_weight(config: LmConfig, step: int) -> float:
    return config.guide_weight * max(_GUIDE_FLOOR, 1 - step / config.steps / _GUIDE_FALLS_BY)


def _depth_frames(config: LmConfig) -> int:
    """Frames that train the depth decoder; always as many, so that its batches have one size.

    About half of the positions are frames.
    """
    return max(1, round(config.depth_share * config.positions / 2))


def _begin_with(model: SpeechLm, path: Path) -> None:
    """Copy the weights of another checkpoint; a speaker it does not know starts as the mean of those it does.

    Raises:
        ModelError: there is none, or its model has other sizes.
    """
    state = load(path, "cpu")
    if state is None:
        raise ModelError(f"{path}: lm.init: no such file")
    try:
        found: dict[str, Tensor] = state["model"]
        table = found["te.weight"]
        known = text.num_tokens(0)
        new = model.shape.num_tokens - len(table)
        if new > 0:
            found["te.weight"] = torch.cat([table, table[known:].mean(dim=0).expand(new, -1)])
        else:
            found["te.weight"] = table[: model.shape.num_tokens]
        model.load_state_dict(found)
    except (KeyError, TypeError, RuntimeError) as err:
        raise ModelError(f"{path}: lm.init: expected a model of the same sizes: {str(err).splitlines()[0]}") from err
