"""What every training has in common: steps, checkpoints, going on."""

import math
import sys
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from daemon.errors import ModelError
from training import schedule
from training.checkpoint import load, save
from training.journal import Journal
from training.runner import Run

_PATIENCE = 20
"""So many steps in a row without a finite gradient end a training."""


class Learner(Protocol):
    """What is trained.

    Attributes:
        parts: modules and optimizers by name; their states are what a checkpoint holds.
        facts: plain values that a checkpoint holds as well; they must be the same when training goes on.
        otherwise: what can be done, beside beginning anew, where they are not.
    """

    parts: dict[str, Any]
    facts: dict[str, Any]
    otherwise: str

    def learn(self, step: int) -> dict[str, Tensor]:
        """Find the gradients, averaged over the processes; what was measured, by name.

        The gradients' norms are among it; their names, and no others, begin with ``gradient``.
        """
        ...

    def move(self, step: int, factor: float) -> None:
        """Move the weights by the gradients, at ``factor`` of the learning rate."""
        ...

    def look(self) -> dict[str, float | str]:
        """What is known only by looking at held-out speech; called in every process, told by the one of rank 0."""
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
        ModelError: the checkpoint is damaged, or its facts are others.
    """

    def __init__(
        self, run: Run, path: Path, learner: Learner, *, steps: int, warmup: int, decay: float, every: int
    ) -> None:
        self._run, self._path, self._learner = run, path, learner
        self._steps, self._warmup, self._decay, self._every = steps, warmup, decay, every
        self._stable = path.with_suffix(".stable.pt")
        self._begin = schedule.decay_begins(steps, decay)
        self._skipped = 0
        self.step = 0
        """Steps done."""
        self._restore()

    def go_on(self, log: Path) -> None:
        """Train until the last step or until asked to stop; saves before it returns.

        Raises:
            ModelError: the gradient stays infinite or is no number.
            StoreError: progress cannot be saved.
        """
        stopped = False
        with Journal(self._run, log, total=self._steps, start=self.step) as journal:
            if not self.step and self._run.rank == 0:
                self._stable.unlink(missing_ok=True)  # of a training before, which nobody is to go on from
            while self.step < self._steps and not stopped:
                measured = self._one()
                self.step += 1
                journal.step(self.step, **measured)
                if not measured:
                    journal.note(skipped="the gradient is not finite")
                stopped = self._run.should_stop()
                if self.step == self._begin:
                    self._save(self._stable)
                if stopped or self.step % self._every == 0 or self.step == self._steps:
                    self._save(self._path)
                    if not stopped:
                        journal.note(**self._learner.look())

    def _one(self) -> dict[str, float]:
        """One step; what was measured, or nothing where the gradient was of no use: it would destroy the weights."""
        self._run.seed(self.step)  # the same draws whether or not training was interrupted
        measured = _numbers(self._learner.learn(self.step))
        # The norms are of averages, so every process comes to the same decision.
        if all(math.isfinite(value) for name, value in measured.items() if name.startswith("gradient")):
            self._skipped = 0
            self._learner.move(self.step, schedule.rate(self.step, self._steps, self._warmup, self._decay))
            return measured
        self._skipped += 1
        if self._skipped == _PATIENCE:
            raise ModelError(
                f"{self._path}: no finite gradient in {_PATIENCE} steps up to {self.step + 1}; with a lower rate in the"
                " configuration, the stage goes on from its last checkpoint"
            )
        return {}

    def _save(self, path: Path) -> None:
        if self._run.rank:
            return
        states = {name: part.state_dict() for name, part in self._learner.parts.items()}
        save(path, {**states, **self._learner.facts, "step": self.step, "steps": self._steps, "decay": self._decay})

    def _restore(self) -> None:
        state = load(self._path)
        if state is None:
            return
        for name, expected in self._learner.facts.items():
            if state.get(name) != expected:
                raise ModelError(
                    f"{self._path}: {name}: expected {expected}, found {state.get(name)}; remove it to begin anew"
                    f"{self._learner.otherwise}"
                )
        try:
            if self._steps > state["steps"] and state["step"] > schedule.decay_begins(state["steps"], state["decay"]):
                state = self._before_decay() or state
                self._say(f"more steps than before: goes on from step {state['step']}")
            for name, part in self._learner.parts.items():
                part.load_state_dict(state[name])
            self.step = int(state["step"])
            if self.step >= self._steps:
                self._say(f"all {self._steps} steps are done")
        except (KeyError, TypeError, ValueError, RuntimeError) as err:
            first = (str(err) or type(err).__name__).splitlines()[0]
            raise ModelError(f"{self._path}: not a checkpoint of this stage: {first}") from err

    def _before_decay(self) -> dict[str, Any] | None:
        """The checkpoint from before the rate fell, unless it is of no use for this many steps."""
        state = load(self._stable)
        if state is None:
            self._say(f"there is no {self._stable.name}, so what follows begins after a fall of the rate")
            return None
        fits = all(state.get(name) == expected for name, expected in self._learner.facts.items())
        if not fits or state["step"] > self._begin:
            self._say(f"{self._stable.name} is of another length, so what follows begins after a fall of the rate")
            return None
        return state

    def _say(self, line: str) -> None:
        if self._run.rank == 0:
            print(f"{self._path}: {line}", file=sys.stderr)


def _numbers(measured: dict[str, Tensor]) -> dict[str, float]:
    values = torch.stack([value.detach().float() for value in measured.values()]).tolist()
    return dict(zip(measured, values, strict=True))
