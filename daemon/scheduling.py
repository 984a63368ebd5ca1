"""What the system is asked for, so that speech is neither late nor starved: cores, memory that stays, priority.

All of it is optional: where the system refuses, one warning says why, and the daemon speaks all the same.
"""

import ctypes
import logging
import os
import resource
import sys
import threading
from collections.abc import Sequence

logger = logging.getLogger(__name__)

SWITCH_S = 0.001
"""How long a thread may keep the interpreter while another waits for it (Python's own is 5 ms). With two busy processes
on two cores and one utterance being made, 1 % of the audio thread's wake-ups were late by 3.4 ms with 5 ms."""

_MCL_CURRENT, _MCL_ONFAULT = 1, 4
_MIB = 2**20


def share_interpreter() -> None:
    """Let the audio thread have the interpreter soon after it has woken up."""
    sys.setswitchinterval(SWITCH_S)


def use_cpus(cpus: Sequence[int]) -> None:
    """Run on these cores alone: every thread of the process, those of the libraries too. Before any is started."""
    if not cpus:
        return
    there = os.sched_getaffinity(0)
    missing = sorted(set(cpus) - there)
    if missing:
        _warn("[engine] cpus", f"no core {_listed(missing)} to run on; there are {_listed(sorted(there))}")
    try:
        os.sched_setaffinity(0, there.intersection(cpus) or there)
    except OSError as err:
        _warn("[engine] cpus", str(err.strerror))


def lock_memory() -> None:
    """Keep in memory whatever has been used once; what is mapped later is not locked.

    To lock what is mapped later too would make its allocation fail at the limit, and to lock what was never used would
    read every table of a model whole and fill every thread's stack.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_ONFAULT) == 0:
        logger.info("memory locked")
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    allowed = "unlimited" if limit == resource.RLIM_INFINITY else f"{limit // _MIB} MB"
    reason = os.strerror(ctypes.get_errno())
    _warn("[engine] mlock", f"{reason}: the limit of locked memory is {allowed} (LimitMEMLOCK=infinity in a unit)")


def raise_thread(name: str, priority: int) -> None:
    """Give a running thread a priority of 1 to 99 before all that is not real-time; 0 leaves it as it is.

    Threads that it starts afterwards, as sound libraries do, have the same.
    """
    if not priority:
        return
    for thread in threading.enumerate():
        if thread.name == name and thread.native_id is not None:
            try:
                os.sched_setscheduler(thread.native_id, os.SCHED_RR, os.sched_param(priority))
            except (OSError, ValueError) as err:
                limit, _ = resource.getrlimit(resource.RLIMIT_RTPRIO)
                reason = getattr(err, "strerror", None) or err
                _warn("[audio] realtime_priority", f"{reason}: the limit is {limit} (LimitRTPRIO in a unit)")
            else:
                logger.info("real-time thread=%s priority=%d", name, priority)


def release_memory() -> None:
    """Give back to the system what loading has used and freed; where the C library has no such thing, nothing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _warn(key: str, reason: str) -> None:
    logger.warning("%s: %s", key, reason)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
