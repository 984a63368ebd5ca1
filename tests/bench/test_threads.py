"""A depth decoder of CSM-1B's true shape on this machine, alone and beside a program that wants a core."""

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

import numpy as np
import pytest

from daemon.engine.governor import LONGEST_WAIT, TRIAL_STEPS, ThreadGovernor
from daemon.engine.llama import LlamaModel
from quantize.gguf_writer import write_gguf
from quantize.synthetic import synthetic

CORES = min(len(os.sched_getaffinity(0)), 4)
STEPS = 30

pytestmark = [
    pytest.mark.slow,
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CORES < 2, reason="one core: nothing to choose"),
]


class Frames:
    """The steps of frames on one model."""

    def __init__(self, model: LlamaModel):
        self.model = model
        model.inputs[:] = np.random.default_rng(0).standard_normal(model.inputs.shape) * 0.02
        self.seconds: list[float] = []

    def __call__(self) -> None:
        """One frame."""
        began = perf_counter()
        self.model.rewind(0)
        self.model.decode(2)
        for _ in range(STEPS):
            self.model.decode(1)
        self.seconds.append(perf_counter() - began)


@contextmanager
def busy_core() -> Iterator[None]:
    """Another program that never sleeps."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()


@pytest.fixture(scope="module")
def open_frames(tmp_path_factory) -> Iterator[Callable[[int, ThreadGovernor | None], Frames]]:
    """Makes frames of a depth decoder, 8 bits, for a number of threads."""
    path = tmp_path_factory.mktemp("depth") / "depth_decoder.gguf"
    write_gguf(path, synthetic("csm-1b", "noise").depth_decoder, name="noise", quant="q8_0", context=STEPS + 2)
    models = []

    def make(threads: int, governor: ThreadGovernor | None = None) -> Frames:
        models.append(LlamaModel(path, num_positions=STEPS + 2, max_batch=2, num_threads=threads, governor=governor))
        return Frames(models[-1])

    yield make
    for model in models:
        model.close()


def _in_turn(frames: list[Frames], times: int) -> list[float]:
    """Milliseconds a frame of each, without the slowest tenth; in turn, for the machine is not the same from one minute
    to the next."""
    for each in frames:
        each.seconds.clear()
    for _ in range(times):
        for each in frames:
            each()
    return [1000 * statistics.mean(sorted(each.seconds)[: -max(1, times // 10)]) for each in frames]


def test_the_governor_is_as_fast_as_the_better_fixed_number(open_frames):
    """Alone within 5 % of all threads; beside a busy core within 25 % of one; then all of them again."""
    governor = ThreadGovernor(CORES)
    governed, one, most = open_frames(CORES, governor), open_frames(1), open_frames(CORES)
    _in_turn([governed, one, most], 3)
    alone = _in_turn([governed, most], 30)
    with busy_core():
        beside = _in_turn([governed, one], 30)
        level = governor.level
        fixed = _in_turn([most], 5)
    for _ in range(1 + (LONGEST_WAIT + TRIAL_STEPS) // (STEPS - 1)):
        governed()
    print(f"\nms a frame: alone governed {alone[0]:.0f}, {CORES} threads {alone[1]:.0f}; beside a busy core governed")
    print(f"{beside[0]:.0f} (at level {level}), 1 thread {beside[1]:.0f}, {CORES} threads {fixed[0]:.0f}")
    assert alone[0] <= 1.05 * alone[1]
    assert beside[0] <= 1.25 * beside[1]
    assert level < CORES
    assert governor.level == CORES
