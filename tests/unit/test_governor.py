"""The governor of threads on simulated machines: quiet, busy, changing, noisy, with two cores and with four."""

import tracemalloc
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.config_sections import EngineConfig
from daemon.engine.engine import Engine
from daemon.engine.governor import FIRST_WAIT, LONGEST_WAIT, SAMPLES, TRIAL_STEPS, ThreadGovernor
from daemon.engine.llama import LlamaModel

BACKBONE = Path(__file__).resolve().parents[2] / "models" / "starter" / "backbone.gguf"
STEPS = 30
"""Depth steps of a frame after the first call, which has two positions."""
ALONE = {1: 7.0, 2: 4.5, 3: 3.9, 4: 3.6}
"""Milliseconds a step by threads, nothing else running: the first two as measured."""

Cost = Callable[[int], float]
"""Milliseconds of the next depth step on so many threads."""


class Machine:
    """A governor, its models and a clock that moves by what the steps cost."""

    def __init__(self, cores: int, cost: Cost):
        self.cost = cost
        self.now = 100.0
        self.governor = ThreadGovernor(cores, clock=lambda: self.now)
        self.depth, self.backbone = self.governor.kinds(8), self.governor.kinds(64)
        self.levels: list[int] | deque[int] = []

    def step(self, kinds, count, times=1.0):
        """One step; returns its milliseconds."""
        threads = self.governor.begin(kinds, count)
        cost = self.cost(threads) * times
        self.now += cost / 1000
        self.governor.end()
        self.levels.append(self.governor.level)
        return cost

    def frames(self, number, batch=1):
        """Speak; returns milliseconds a frame, for each."""
        return [
            self.step(self.backbone, batch, times=7.0)
            + self.step(self.depth, 2 * batch, times=1.1)
            + sum(self.step(self.depth, batch) for _ in range(STEPS))
            for _ in range(number)
        ]


def fixed(cost: Cost, threads: int, number: int) -> float:
    """Milliseconds of so many frames on a fixed number of threads."""
    return sum(cost(threads) * (8.1 + STEPS) for _ in range(number))


def busy(cores: int, others: int, seed: int = 0) -> Cost:
    """Others keep some cores busy: more threads than cores are left wait for each other, as measured."""
    rng = np.random.default_rng(seed)
    return lambda threads: ALONE[threads] * (1.0 if threads <= cores - others else rng.choice([2.0, 3.3, 8.0]))


def noisy(cost: Cost, spread: float, seed: int = 0) -> Cost:
    """Every step differs, and one of fifty is interrupted for 20 ms."""
    rng = np.random.default_rng(seed)
    return lambda threads: cost(threads) * rng.lognormal(0, spread) + 20 * (rng.random() < 0.02)


@pytest.mark.parametrize("cores", [2, 3, 4])
def test_alone_all_threads_run(cores):
    """Once measured they cost next to nothing more than a fixed number, and the number never changes."""
    machine = Machine(cores, ALONE.__getitem__)
    machine.frames(3)
    assert sum(machine.frames(100)) <= 1.005 * fixed(ALONE.__getitem__, cores, 100)
    assert set(machine.levels) == {cores}


@pytest.mark.parametrize("seed", range(5))
def test_noise_means_nothing(seed):
    """Steps that differ by 15 % and are interrupted now and then: within 3 % of a fixed number."""
    cost = noisy(ALONE.__getitem__, 0.15, seed)
    machine = Machine(2, cost)
    machine.frames(3)
    assert sum(machine.frames(200)) <= 1.03 * fixed(cost, 2, 200)
    assert np.mean(machine.levels) > 1.98


@given(size=st.floats(1.0, 1000.0), apart=st.integers(6, 100))
def test_one_slow_step_never_changes_anything(size, apart):
    """However slow it is, and coming again when the steps before it have been good."""
    count = 0

    def cost(threads):
        nonlocal count
        count += 1
        return ALONE[threads] * (size if count > 100 and count % apart == 0 else 1.0)

    machine = Machine(2, cost)
    machine.frames(20)
    assert set(machine.levels) == {2}


@given(seed=st.integers(0, 1000))
def test_beside_a_busy_core_it_is_one_thread_within_a_frame(seed):
    """It goes down inside the first frame, and the whole costs little more than one thread from the start."""
    machine = Machine(2, ALONE.__getitem__)
    machine.frames(5)
    machine.cost = busy(2, 1, seed)
    first = len(machine.levels)
    taken = sum(machine.frames(40))
    assert machine.levels.index(1, first) - first <= 10
    assert taken <= 1.1 * fixed(machine.cost, 1, 40)


@given(seed=st.integers(0, 1000), others=st.integers(1, 3))
def test_a_machine_that_is_busy_at_the_start(seed, others):
    """Nothing was ever measured alone, and yet it comes to the number of cores that is left."""
    cost = busy(4, others, seed)
    machine = Machine(4, cost)
    machine.frames(5)
    assert sum(machine.frames(60)) <= 1.1 * fixed(cost, 4 - others, 60)
    assert abs(np.median(machine.levels[-600:]) - (4 - others)) < 0.1


@given(seed=st.integers(0, 1000), others=st.integers(1, 3), frames=st.integers(1, 60))
def test_it_goes_up_again_when_the_others_are_done(seed, others, frames):
    """Within the longest wait and a few short ones, from wherever it was."""
    machine = Machine(4, ALONE.__getitem__)
    machine.frames(5)
    machine.cost = busy(4, others, seed)
    machine.frames(frames)
    machine.cost = ALONE.__getitem__
    machine.frames(2 + (LONGEST_WAIT + 2 * (FIRST_WAIT + TRIAL_STEPS)) // (STEPS - 1))
    assert machine.governor.level == 4


@given(seed=st.integers(0, 1000), frames=st.integers(2, 30))
def test_others_that_come_and_go(seed, frames):
    """Whatever the rhythm, it is no slower than the better of the two fixed numbers, give or take 10 %."""
    machine, taken, others = Machine(2, ALONE.__getitem__), 0.0, (ALONE.__getitem__, busy(2, 1, seed))
    machine.frames(3)
    for round_ in range(200 // frames):
        machine.cost = others[round_ % 2]
        taken += sum(machine.frames(frames))
    rounds = 200 // frames
    ones = fixed(ALONE.__getitem__, 1, rounds * frames)
    twos = fixed(ALONE.__getitem__, 2, (rounds + 1) // 2 * frames) + fixed(others[1], 2, rounds // 2 * frames)
    assert taken <= 1.1 * min(ones, twos)


@pytest.mark.parametrize("factor", [0.4, 2.5])
def test_another_clock_speed_is_no_neighbour(factor):
    """A processor that slows down or speeds up does so for every number of threads: they all run again."""
    machine = Machine(2, ALONE.__getitem__)
    machine.frames(5)
    machine.cost = lambda threads: factor * ALONE[threads]
    machine.frames(20)
    assert set(machine.levels[-300:]) == {2}


def test_a_measurement_of_worse_times_does_not_last():
    """One thread was measured when it was slow; later, beside a busy core, it is chosen all the same."""
    machine = Machine(2, lambda threads: 5 * ALONE[threads])
    machine.frames(3)
    machine.cost = ALONE.__getitem__
    machine.frames(50)
    machine.cost = lambda threads: ALONE[threads] * (1.0 if threads == 1 else 2.5)
    machine.frames(2)
    assert machine.governor.level == 1


def test_threads_that_bring_nothing_are_left_out():
    """A model whose steps are shorter than waking a thread: it ends with one, even if two were asked for."""
    machine = Machine(2, lambda threads: 0.2 * threads)
    machine.frames(2)
    assert machine.governor.level == 1


def test_after_a_pause_more_threads_are_tried_soon():
    """What the neighbours did at the last announcement says nothing about now."""
    machine = Machine(2, ALONE.__getitem__)
    machine.frames(5)
    machine.cost = busy(2, 1)
    machine.frames(60)
    machine.cost = ALONE.__getitem__
    machine.now += 60
    machine.frames(1)
    assert machine.governor.level == 2


def test_batches_of_several_sequences_are_measured_apart():
    """They cost more than single ones, which is no reason for fewer threads; beside a busy core they count too."""
    machine = Machine(2, ALONE.__getitem__)
    machine.frames(5)
    single = machine.cost
    machine.cost = lambda threads: 2.5 * single(threads)
    machine.frames(10, batch=4)
    assert set(machine.levels) == {2}
    neighbour = busy(2, 1)
    machine.cost = lambda threads: 2.5 * neighbour(threads)
    machine.frames(2, batch=4)
    assert machine.governor.level == 1


def test_prefill_and_steps_between_others_follow():
    """Batches too large to compare, and steps with no equal before them, get the level and decide nothing."""
    machine = Machine(2, lambda _threads: 1000.0)
    for count in (64, 64, 64, 1, 2, 1, 2, 1, 2):
        machine.step(machine.backbone, count)
    assert set(machine.levels) == {2}
    assert not any(any(kind.counts) for kind in machine.backbone)


def test_every_number_is_measured_a_few_times_and_no_more():
    """The first equal steps go through all numbers of threads, from the most down."""
    machine = Machine(4, ALONE.__getitem__)
    used = []
    for _ in range(100):
        used.append(machine.governor.begin(machine.depth, 1))
        machine.now += machine.cost(used[-1]) / 1000
        machine.governor.end()
    changes = [after for before, after in pairwise(used) if before != after]
    assert changes == [3, 2, 1, 4]
    assert used.count(1) == SAMPLES


def test_nothing_is_kept_of_a_step():
    """A thousand frames, in quiet and beside others: memory does not grow."""
    machine = Machine(2, ALONE.__getitem__)
    costs = (ALONE.__getitem__, busy(2, 1))
    machine.levels = deque(maxlen=1)
    machine.frames(20)
    tracemalloc.start()
    try:
        for turn in range(10):
            machine.cost = costs[turn % 2]
            machine.frames(10)
            if turn == 1:
                before, _ = tracemalloc.get_traced_memory()
        assert tracemalloc.get_traced_memory()[0] - before < 1000
    finally:
        tracemalloc.stop()


class Wandering(ThreadGovernor):
    """Another number of threads at every step."""

    def begin(self, kinds, count):
        super().begin(kinds, count)
        self.level = self.level % self.most + 1
        return self.level


@pytest.mark.engine
def test_the_number_of_threads_does_not_change_a_bit():
    """Whatever the governor decides, the hidden states are the same, also far into a long context."""
    found = []
    embeddings = None
    for kind in (ThreadGovernor, Wandering):
        with LlamaModel(BACKBONE, num_positions=512, max_batch=16, num_threads=4, governor=kind(4)) as model:
            if embeddings is None:
                embeddings = np.random.default_rng(0).standard_normal((340, model.width)).astype(np.float32) * 0.3
            model.prefill(embeddings[:300])
            found.append([model.step(row).copy() for row in embeddings[300:]])
    np.testing.assert_array_equal(*found)


@pytest.mark.engine
@pytest.mark.parametrize(("threads", "adapt", "governed"), [(1, True, False), (2, False, False), (2, True, True)])
def test_only_several_threads_are_governed(threads, adapt, governed):
    """One thread, as the starter voice has, and a fixed number cost nothing; else ``threads`` is the most."""
    with Engine(EngineConfig(bundle="starter", threads=threads, adapt_threads=adapt)) as engine:
        models = engine._model._backbone.model, engine._model._depth.model
        assert [model._governor is not None for model in models] == [governed] * 2
        assert models[0]._governor is models[1]._governor
        assert 1 <= engine.threads_now <= engine.num_threads == threads
        engine.self_test()
        assert 1 <= engine.threads_now <= threads
