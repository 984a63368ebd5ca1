"""Work in several processes: in order, not too far ahead, and ended in a line when one of them dies."""

import signal
from itertools import count

import pytest

from daemon.errors import SpeechError
from training.crew import Crew
from training.stopping import Stopped, StopRequest


class Numbers:
    """0, 1, 2, ...; notes how many were asked for."""

    asked = 0

    def __len__(self):
        return 10_000

    def __iter__(self):
        for number in count():
            self.asked = number + 1
            yield number


def test_jobs_are_given_out_a_little_ahead():
    """Results that wait for their turn do not fill the memory; they come in order, and a stop ends them."""
    numbers, request = Numbers(), StopRequest()
    with Crew(2, request) as crew:
        negated = crew.each(abs, numbers, "counting")
        assert [next(negated) for _ in range(5)] == [0, 1, 2, 3, 4]
        assert numbers.asked <= 5 + 2 * 16
        request.ask()
        with pytest.raises(Stopped):
            next(negated)


@pytest.mark.parametrize(
    ("minutes", "error", "said"), [(None, SpeechError, "the same command goes on$"), (0, Stopped, "^$")]
)
def test_a_process_that_dies_is_said(minutes, error, said):
    """In a line, without waiting for it or the others; who was asked to stop, as a terminal asks all, has stopped."""
    with Crew(2, StopRequest(minutes)) as crew, pytest.raises(error, match=said) as caught:
        list(crew.each(signal.raise_signal, [signal.SIGKILL] + [signal.SIGCONT] * 40, "dying"))
    assert getattr(caught.value, "exit_code", 70) == 70
