"""What both trainings of the codec have in common: steps, checkpoints, going on."""

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from daemon.errors import ModelError
from training import schedule
from training.checkpoint import load, save
from training.journal import Journal
from training.runner import Run


class Learner(Protocol):
    """What is trained.

    Attributes:
        parts: modules and optimizers by name; their states are what a checkpoint holds.
        facts: plain values that a checkpoint holds as well; they must be the same when training goes on.
    """

    parts: dict[str, Any]
    facts: dict[str, Any]

    def learn(self, step: int, factor: float) -> dict[str, Tensor]:
        """Do one step at ``factor`` of the learning rate; what was measured, by name."""
        ...

    def look(self) -> dict[str, float | str]:
        """What is known only by looking at held-out speech; in the process of rank 0 alone."""
        ...


class Course:
    """A training from its first step, or its last checkpoint, to its last step.

    Args:
        run: this process.
        path: the checkpoint; beside it, ``.stable.pt`` is what it was before the rate began to fall.
        learner: what is trained; it is given its state here.
        steps: in all.
        warmup: steps in which the rate grows.
        decay: share of the steps in which it falls.
        every: steps between checkpoints.

    Raises:
        ModelError: the checkpoint is damaged or of other sizes.
    """

    def __init__(
        self, run: Run, path: Path, learner: Learner, *, steps: int, warmup: int, decay: float, every: int
    ) -> None:
        self._run, self._path, self._learner = run, path, learner
        self._steps, self._warmup, self._decay, self._every = steps, warmup, decay, every
        self._stable = path.with_suffix(".stable.pt")
        self.step = 0
        """Steps done."""
        self._restore()

    def go_on(self, log: Path) -> None:
        """Train until the last step or until asked to stop; saves before it returns."""
        begin = schedule.decay_begins(self._steps, self._decay)
        stopped = False
        with Journal(self._run, log, total=self._steps, start=self.step) as journal:
            while self.step < self._steps and not stopped:
                self._run.seed(self.step)  # the same pieces whether or not training was interrupted
                factor = schedule.rate(self.step, self._steps, self._warmup, self._decay)
                measured = self._learner.learn(self.step, factor)
                self.step += 1
                journal.step(self.step, **_numbers(measured))
                stopped = self._run.should_stop()
                if self.step == begin:
                    self._save(self._stable)
                if stopped or self.step % self._every == 0 or self.step == self._steps:
                    self._save(self._path)
                    if self._run.rank == 0 and not stopped:
                        journal.note(**self._learner.look())

    def _save(self, path: Path) -> None:
        if self._run.rank:
            return
        states = {name: part.state_dict() for name, part in self._learner.parts.items()}
        save(path, {**states, **self._learner.facts, "step": self.step, "steps": self._steps, "decay": self._decay})

    def _restore(self) -> None:
        state = load(self._path, self._run.device)
        if state is None:
            return
        try:
            more = self._steps > state["steps"]
            if more and state["step"] > schedule.decay_begins(state["steps"], state["decay"]):
                state = load(self._stable, self._run.device) or state
            found = {name: state[name] for name in self._learner.facts}
            if found != self._learner.facts:
                raise ModelError(
                    f"{self._path}: expected {self._learner.facts}, found {found}; remove it to begin anew"
                )
            for name, part in self._learner.parts.items():
                part.load_state_dict(state[name])
            self.step = int(state["step"])
        except (KeyError, TypeError, ValueError, RuntimeError) as err:
            first = (str(err) or type(err).__name__).splitlines()[0]
            raise ModelError(f"{self._path}: not a checkpoint of this stage: {first}") from err


def _numbers(measured: dict[str, Tensor]) -> dict[str, float]:
    values = torch.stack([value.detach().float() for value in measured.values()]).tolist()
    return dict(zip(measured, values, strict=True))


def optimizer(modules: nn.Module, rate: float) -> torch.optim.AdamW:
    """AdamW for the parameters of ``modules``, with weight decay on matrices alone."""
    parameters = [each for each in modules.parameters() if each.requires_grad]
    groups = [
        {"params": [each for each in parameters if each.ndim > 1], "weight_decay": 0.01},
        {"params": [each for each in parameters if each.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.8, 0.99), fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate
