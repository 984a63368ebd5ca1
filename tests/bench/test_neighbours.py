"""Other programs that want the cores, and the first request after the start: time to first audio, as ratios."""

import contextlib
import subprocess
import sys
import time
from statistics import median

import pytest
from daemon_process import NULL_CONFIG, run_daemon

CONFIG = NULL_CONFIG + "[phrases]\ncache = false\n"
TEXT = "The front door is open."
REQUESTS = 15
ROUNDS = 3

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(600)]


@contextlib.contextmanager
def busy_processes(count):
    """So many programs that never rest."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    time.sleep(0.3)
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def ttfa_ms(client, count):
    """Of so many requests, one after the other, from acceptance to the first sample in the ring."""
    times = []
    for _ in range(count):
        request_id = client.say(TEXT)
        times.append(client.wait_for("started", request_id)["ttfa_ms"])
        client.op("stop", what="all")
        client.wait_for("cancelled", request_id)
        time.sleep(0.1)
    return times


def test_a_busy_neighbour_at_most_doubles_the_time_to_first_audio(tmp_path):
    """Medians of rounds with and without it, in turns on one daemon."""
    alone, beside = [], []
    with run_daemon(tmp_path, CONFIG) as daemon:
        client = daemon.client()
        for _ in range(ROUNDS):
            alone += ttfa_ms(client, REQUESTS)
            with busy_processes(1):
                beside += ttfa_ms(client, REQUESTS)
    print(f"\nfirst audio alone {median(alone):.1f} ms, beside a busy process {median(beside):.1f} ms")
    assert median(beside) <= 2 * median(alone)


def test_the_first_request_is_as_fast_as_the_tenth(tmp_path):
    """On fresh daemons: everything that a first request would have to make ready is ready."""
    first, later = [], []
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        with run_daemon(folder, CONFIG) as daemon:
            times = ttfa_ms(daemon.client(), 10)
        first.append(times[0])
        later.append(median(times[1:]))
    print(f"\nfirst audio of the first request {median(first):.1f} ms, of later ones {median(later):.1f} ms")
    assert median(first) <= 1.5 * median(later)
