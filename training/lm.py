"""The stage lm: train the language model on the texts and the codes of their speech."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from daemon.errors import ModelError
from training import text
from training.checkpoint import load
from training.compiling import can_compile
from training.course import Course
from training.encode import codec_of_codes, read_codes
from training.lm_check import Check
from training.lm_config import LmConfig
from training.lm_data import Sentence, batches, collate, sentences
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
        ModelError: there are no codes yet, or a checkpoint is damaged, of another shape or of other codes.
        StoreError: progress cannot be saved.
        Stopped: it ended early, and saved.
    """
    launch(train, config, device=device, processes=processes, minutes=minutes)


def train(run: Run, config: "Config") -> None:
    """One process of the stage."""
    work = Workspace(config.paths.work)
    speech = Speech(work)
    codes = read_codes(work, speech)
    lm, last = config.lm, work.lm / "last.pt"
    learner = LmLearner(run, lm, shape_of(config, codes.shape[1]), codec_of_codes(work))
    if lm.init and not last.exists():
        learner.begin_with(Path(lm.init))
    course = Course(run, last, learner, steps=lm.steps, warmup=lm.warmup, decay=lm.decay, every=lm.evaluate_every)
    if course.step >= lm.steps:
        return
    data = sentences(speech, codes, "train", lm.longest, config.speech.repeats)
    if not data:
        raise ModelError(f"{work.index}: no sentence to train on of {lm.longest} positions or fewer")
    held = sentences(speech, codes, "held", lm.longest)
    learner.take(data, Check(run, lm, held, work.plots), course.step)
    course.go_on(work.log("lm"))


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


class LmLearner:
    """A language model in training.

    Args:
        run: this process.
        config: [lm].
        shape: of the model.
        codec: the print of the codec whose codes it learns.
    """

    def __init__(self, run: Run, config: LmConfig, shape: LmShape, codec: str) -> None:
        self._run, self._config = run, config
        torch.manual_seed(config.seed)  # the same beginning in every process
        self.model = SpeechLm(shape).to(run.device)
        self.model.dtype = torch.bfloat16
        if run.device.type == "cpu" and can_compile(run, wanted=config.compile):
            self.model.compile_layers()
        self._parameters = list(self.model.parameters())
        self._optimizer = LmOptimizer(self.model, config)
        self.parts: dict[str, Any] = {"model": self.model, "optimizer": self._optimizer}
        self.facts: dict[str, Any] = {"shape": asdict(shape), "codec": codec}
        self.otherwise = ", or move it elsewhere and name it as lm.init to go on from it"
        self._batches: Iterator[list[Sentence]] = iter(())
        self._check: Check | None = None

    def begin_with(self, path: Path) -> None:
        """Copy the weights of another checkpoint; a speaker it does not know starts as the mean of those it does.

        Raises:
            ModelError: there is none, or its model has other sizes.
        """
        state = load(path)
        if state is None:
            raise ModelError(f"{path}: lm.init: no such file")
        try:
            found: dict[str, Tensor] = state["model"]
            table = found["te.weight"]
            known = text.num_tokens(0)
            new = self.model.shape.num_tokens - len(table)
            if new > 0:
                found["te.weight"] = torch.cat([table, table[known:].mean(dim=0).expand(new, -1)])
            else:
                found["te.weight"] = table[: self.model.shape.num_tokens]
            self.model.load_state_dict(found)
        except (KeyError, TypeError, RuntimeError) as err:
            first = str(err).splitlines()[0]
            raise ModelError(f"{path}: lm.init: expected a model of the same sizes: {first}") from err

    def take(self, data: Sequence[Sentence], check: Check, start: int) -> None:
        """Learn from ``data`` from step ``start`` on, and be looked at by ``check``."""
        run, config = self._run, self._config
        self._check = check
        self._batches = batches(
            data, positions=config.positions, rank=run.rank, world=run.world, seed=config.seed, start=start
        )

    def learn(self, step: int) -> dict[str, Tensor]:
        """Find the gradients on this process's rows; what was measured, by name."""
        config, model = self._config, self.model
        model.train()
        model.zero_grad()
        rows = next(self._batches)
        batch = collate(rows, config.positions, model.shape.codebook_size, model.dtype).to(self._run.device)
        found = losses(model, batch, config, _depth_frames(config))
        torch.autograd.backward(found.total(config, _guide_weight(config, step)))
        self._run.average([each.grad for each in self._parameters if each.grad is not None])
        return found.metrics() | {"gradient": nn.utils.clip_grad_norm_(self._parameters, config.clip)}

    def move(self, step: int, factor: float) -> None:
        """Move the weights, at ``factor`` of the rate."""
        del step
        self._optimizer.step(factor)

    def look(self) -> dict[str, float | str]:
        """The held-out sentences with the model as it is."""
        return {**self._check.look(self.model)} if self._check else {}


def _guide_weight(config: LmConfig, step: int) -> float:
    return config.guide_weight * max(_GUIDE_FLOOR, 1 - step / config.steps / _GUIDE_FALLS_BY)


def _depth_frames(config: LmConfig) -> int:
    """Frames that train the depth decoder; always as many, so that its batches have one size.

    About half of the positions are frames.
    """
    return max(1, round(config.depth_share * config.positions / 2))
