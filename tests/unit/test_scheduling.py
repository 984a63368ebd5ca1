"""Cores, locked memory and priority: real system calls, in processes of their own; a refusal is one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon import scheduling

ROOT = Path(__file__).resolve().parents[2]
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs the rights of root, to have and to drop")
START = """
import logging, os, resource, sys, threading
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s", level="INFO")
from daemon import scheduling
"""
UNPRIVILEGED = """
resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
os.setgid(65534)
os.setuid(65534)
"""


def run(code):
    """What a process that runs the code prints, line by line."""
    done = subprocess.run(
        [sys.executable, "-c", START + code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_the_process_runs_on_the_cores_it_is_told():
    """So do threads that come later."""
    core = min(os.sched_getaffinity(0))
    code = f"""
scheduling.use_cpus([{core}])
thread = threading.Thread(target=lambda: print(os.sched_getaffinity(0)))
thread.start()
thread.join()
"""
    assert run(code) == [str({core})]


def test_cores_that_are_not_there_are_named():
    """The others are used; without any, all are, as if nothing had been said."""
    cores = sorted(os.sched_getaffinity(0))
    listed = ", ".join(map(str, cores))
    code = f"""
scheduling.use_cpus([4095, {cores[0]}])
print(os.sched_getaffinity(0))
"""
    warning = f"WARNING [engine] cpus: no core 4095 to run on; there are {listed}"
    assert run(code) == [warning, str({cores[0]})]
    assert run("scheduling.use_cpus([4095])\nprint(os.sched_getaffinity(0))") == [warning, str(set(cores))]
    assert run("scheduling.use_cpus([])\nprint(os.sched_getaffinity(0))") == [str(set(cores))]


@AS_ROOT
def test_what_was_used_stays_in_memory():
    """The kernel counts it as locked, and what comes later can still be allocated."""
    code = """
scheduling.lock_memory()
more = bytearray(200_000_000)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmLck")))
"""
    said, locked_kb = run(code)
    assert said == "INFO memory locked"
    assert 5_000 < int(locked_kb) < 200_000


@AS_ROOT
def test_a_refusal_to_lock_is_one_line():
    """It says what the limit is, and how a unit raises it."""
    code = UNPRIVILEGED + "resource.setrlimit(resource.RLIMIT_MEMLOCK, (4096, 4096))\nscheduling.lock_memory()\n"
    (said,) = run(code)
    assert said.startswith("WARNING [engine] mlock: Cannot allocate memory: the limit of locked memory is 0 MB (Limit")


THREAD = """
done = threading.Event()
thread = threading.Thread(target=done.wait, name="audio")
thread.start()
try:
    scheduling.raise_thread("audio", {priority})
    print(os.sched_getscheduler(thread.native_id) == os.SCHED_RR, os.sched_getscheduler(0) == os.SCHED_RR)
finally:
    done.set()
"""


@AS_ROOT
def test_a_thread_goes_before_others():
    """The one of that name alone; 0 asks for nothing."""
    assert run(THREAD.format(priority=10)) == ["INFO real-time thread=audio priority=10", "True False"]
    assert run(THREAD.format(priority=0)) == ["False False"]


@AS_ROOT
def test_a_refused_priority_is_one_line():
    """The thread goes on as it was."""
    said, was = run(UNPRIVILEGED + THREAD.format(priority=10))
    assert said == "WARNING [audio] realtime_priority: Operation not permitted: the limit is 0 (LimitRTPRIO in a unit)"
    assert was == "False False"


def test_memory_that_was_freed_goes_back():
    """A heap of small blocks with one in use at its end shrinks."""
    code = """
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
kept = []
for _ in range(100_000):
    kept.append(bytes(700))
kept = kept[-1:]
before = resident()
scheduling.release_memory()
print(before - resident())
"""
    assert int(run(code)[0]) > 20_000_000


def test_the_interpreter_is_shared_in_short_turns():
    """The setting is the interpreter's own."""
    before = sys.getswitchinterval()
    try:
        scheduling.share_interpreter()
        assert sys.getswitchinterval() == pytest.approx(scheduling.SWITCH_S)
    finally:
        sys.setswitchinterval(before)
