"""How many threads a step of llama.cpp gets: as many as pay, while other programs may want the cores.

Every operation of a step ends in a barrier. Where another program has one of the cores, all threads wait there for the
one that is not running: two threads are then three to five times slower than they were alone, and two to three times
slower than one thread is. So each step is timed, and the number of threads goes down within a few slow steps, not a few
slow sentences; from below, a few steps with more threads find out now and then whether the cores are free again.
"""

from collections.abc import Callable
from time import perf_counter

COMPARABLE_BATCH = 16
"""Larger batches are prefill: they take the number of threads that the steps found, and say nothing about it."""
SAMPLES = 3
"""Steps on each number of threads before anything is decided. The fastest counts: the first may read from the disk."""
FOLLOW = 1 / 8
"""How quickly what is known of a number of threads follows what it takes now."""
REFRESH_STEPS = 256
"""After so many steps one has fewer threads, so that what they would give is known of now (0.2 % of the time)."""
SLOW_CLIP = 1.5
"""The most that one step counts for: a virtual machine that is paused for a moment means nothing."""
SLOW_LIMIT = 3.0
"""So much time lost, in steps of the best number below: that one it is. Three slow steps in a row do it, two never."""
TRIAL_STEPS = 4
"""Steps of a trial of more threads."""
GAIN, HOPELESS = 0.97, 1.3
"""More threads are kept if the trial took less than this share of the time; one step of more than that ends it."""
FIRST_WAIT, LONGEST_WAIT = 8, 256
"""Steps from one try of more threads to the next: doubled after a bad one, at most two seconds of CSM-1B."""
IDLE_S = 1.0
"""After such a pause what was learned about the neighbours is old: more threads are tried soon."""


class StepKind:
    """Steps that can be compared: of one model, with one batch size.

    Attributes:
        costs: seconds a step takes with so many threads, [threads]; 0 before the first.
        counts: steps made with so many threads, up to ``SAMPLES``.
    """

    __slots__ = ("costs", "counts")

    def __init__(self, most: int) -> None:
        self.costs = [0.0] * (most + 1)
        self.counts = [0] * (most + 1)

    def note(self, threads: int, seconds: float, follow: float) -> None:
        """Take a measurement into ``costs``; later ones weigh at most twice what is known already."""
        cost, count = self.costs[threads], self.counts[threads]
        if count < SAMPLES:
            self.counts[threads] = count + 1
            self.costs[threads] = min(cost, seconds) if count else seconds
        else:
            self.costs[threads] = cost + follow * (min(seconds, 2 * cost) - cost)

    def cheapest_below(self, level: int) -> int:
        """The fastest of the numbers of threads below ``level``; of equals the highest."""
        best = level - 1
        for threads in range(level - 2, 0, -1):
            if self.costs[threads] < self.costs[best]:
                best = threads
        return best

    def unmeasured(self, most: int) -> int:
        """The highest number of threads that has not had its ``SAMPLES``; 0: all have."""
        for threads in range(most, 0, -1):
            if self.counts[threads] < SAMPLES:
                return threads
        return 0


class ThreadGovernor:
    """The number of threads for all models of an engine, which run one after the other on one thread.

    Only runs of equal steps are looked at (the depth decoder's, 31 a frame in CSM-1B); what comes between them follows.
    Nothing is allocated per step.

    Args:
        most: the most threads, two or more.
        clock: seconds.

    Attributes:
        most: likewise.
        level: how many threads pay at present, 1 to ``most``.
    """

    def __init__(self, most: int, *, clock: Callable[[], float] = perf_counter) -> None:
        self.most = self.level = most
        self._clock = clock
        self._kind: StepKind | None = None
        self._compared = False
        self._threads = most
        self._began = self._ended = 0.0
        self._slow = 0.0
        self._since_change = 0
        self._refresh = REFRESH_STEPS
        self._lower = 0
        self._trial = self._tried = 0
        self._trial_s = 0.0
        self._target = most
        self._pause = self._wait = FIRST_WAIT

    def kinds(self, max_batch: int) -> list[StepKind]:
        """What a model keeps here: the kind of its steps of 1, 2, ... positions or sequences, for ``begin``."""
        return [StepKind(self.most) for _ in range(min(max_batch, COMPARABLE_BATCH))]

    def begin(self, kinds: list[StepKind], count: int) -> int:
        """A step of ``count`` begins; returns the number of threads for it."""
        kind = kinds[count - 1] if count <= len(kinds) else None
        self._compared = kind is not None and kind is self._kind
        self._kind = kind
        self._began = self._clock()
        if self._began - self._ended > IDLE_S:
            self._pause = FIRST_WAIT
            self._wait = min(self._wait, FIRST_WAIT)
        self._threads = self._choose(kind) if kind is not None and self._compared else self.level
        return self._threads

    def _choose(self, kind: StepKind) -> int:
        unmeasured = kind.unmeasured(self.most)
        if unmeasured:
            return unmeasured
        if self._trial:
            return self._trial
        if self.level < self.most:
            self._wait -= 1
            if self._wait <= 0:
                self._trial, self._tried, self._trial_s = self._target, 0, 0.0
                return self._trial
        if self.level > 1:
            self._refresh -= 1
            if self._refresh <= 0:
                self._refresh = REFRESH_STEPS
                self._lower = self._lower - 1 if 1 < self._lower < self.level else self.level - 1
                return self._lower
        return self.level

    def end(self) -> None:
        """The step that ``begin`` began is done."""
        self._ended = self._clock()
        kind = self._kind
        if kind is None or not self._compared:
            return
        seconds, threads = self._ended - self._began, self._threads
        measuring = kind.counts[threads] < SAMPLES
        kind.note(threads, seconds, FOLLOW if threads == self.level else 0.5)
        if measuring:
            return
        self._since_change += 1
        if threads > self.level:
            self._judge_trial(seconds, kind.costs[self.level])
        elif threads == self.level > 1:
            fewer = kind.cheapest_below(threads)
            self._slow = max(0.0, self._slow + min(seconds / kind.costs[fewer] - 1.0, SLOW_CLIP))
            if self._slow > SLOW_LIMIT:
                self._step_down(fewer)

    def _step_down(self, level: int) -> None:
        if self._since_change > LONGEST_WAIT:
            self._pause = FIRST_WAIT
        self._change(level)
        self._wait = self._pause

    def _judge_trial(self, seconds: float, usual: float) -> None:
        """One step of a trial has taken so long; when it fails, the next one tries another number."""
        self._tried += 1
        self._trial_s += seconds
        if seconds > HOPELESS * usual or self._trial_s > TRIAL_STEPS * GAIN * usual:
            self._trial = 0
            self._target = self._target - 1 if self._target > self.level + 1 else self.most
            self._pause = self._wait = min(2 * self._pause, LONGEST_WAIT)
        elif self._tried == TRIAL_STEPS:
            self._change(self._trial)
            self._wait = FIRST_WAIT  # for yet more; the pause after the next bad one is as long as it was

    def _change(self, level: int) -> None:
        self.level = level
        self._target = self.most
        self._trial = 0
        self._slow = 0.0
        self._since_change = 0
        self._refresh = REFRESH_STEPS
