"""Stages for the tests of the runner, which spawned processes can import; as a program, one that counts its steps."""

import os
import sys
import time
from pathlib import Path

import torch

from daemon.errors import BadRequestError
from training.checkpoint import load, save
from training.journal import Journal
from training.runner import Run, launch
from training.stopping import Stopped


def count(run: Run, folder: Path, total: int) -> None:
    """Count to ``total``, from the checkpoint on; note where every process stopped."""
    checkpoint = folder / "count.pt"
    state = load(checkpoint)
    start = int(state["step"]) if state else 0
    with Journal(run, folder / "count.jsonl", total=total, start=start) as journal:
        for step in range(start + 1, total + 1):
            time.sleep(0.01)
            journal.step(step, value=1.0 / step)
            if run.should_stop() or step == total:
                (folder / f"stopped-{run.rank}").write_text(str(step))
                if run.rank == 0:
                    save(checkpoint, {"step": step})
                return


def exchange(run: Run, folder: Path) -> None:
    """Save what this process holds after an average and a broadcast of its rank."""
    matrix = torch.arange(6.0).reshape(2, 3).t() * (1 + run.rank)  # not contiguous
    half = torch.full((4,), float(run.rank), dtype=torch.bfloat16)
    parameter = torch.nn.Parameter(torch.tensor(float(run.rank)))
    run.average([matrix, half, parameter])
    told = torch.tensor([run.rank, 7])
    run.broadcast([told])
    held = {"matrix": matrix, "half": half, "parameter": parameter.detach(), "told": told}
    save(folder / f"{run.rank}.pt", held | {"drawn": torch.rand(3), "integer": int(run.generator.integers(2**40))})


def vanish(run: Run) -> None:
    """Lose the second process while the first waits for it, or computes without looking."""
    if run.rank == 1:
        os._exit(3)
    if run.rank == 2:
        time.sleep(600)
    run.should_stop()


def refuse(run: Run) -> None:
    """Refuse in the second process, while the first waits for it."""
    if run.rank == 1:
        raise BadRequestError("empty", "nothing to train on")
    run.should_stop()


if __name__ == "__main__":
    try:
        launch(count, Path(sys.argv[1]), int(sys.argv[2]), device="cpu", processes=int(sys.argv[3]))
    except Stopped:
        print("stopped")
