"""How long a request waits until its speech begins, as far as can be told when it is accepted."""

from daemon.desk import Desk, Entry
from daemon.values import SAMPLE_RATE

WORTH_TELLING_S = 0.5
"""What is shorter is taken for at once."""


def told(wait_s: float) -> float | None:
    """What is said of a wait; None where it is brief."""
    return round(wait_s, 1) if wait_s >= WORTH_TELLING_S else None


def expected_wait_s(desk: Desk, request_id: str, now: float) -> float | None:
    """From now to the beginning of a request's speech: what is heard before it, and what it is held back itself.

    A pause is not reckoned with, nor what may yet come in between. The caller holds the lock.
    """
    entry = desk.entries.get(request_id)
    if entry is None or not desk.will_speak(entry.request):
        return None
    total_s = entry.wait_s
    for other in desk.queue.before(request_id):
        if other in desk.entries:
            total_s += _left_s(desk, desk.entries[other], now) + desk.gap_s
    return told(total_s)


def _left_s(desk: Desk, entry: Entry, now: float) -> float:
    """How long a request that comes before takes until its end."""
    chimes = len(desk.chimes.before(entry.request)) + len(desk.chimes.after(entry.request))
    heard_s = entry.expected_s + chimes / SAMPLE_RATE
    job = desk.job
    if job is None or job.request.id != entry.request.id:
        return entry.wait_s + heard_s
    if job.speaking_since is not None:
        return max(0.0, job.speaking_since + heard_s - now)
    return max(0.0, job.begun_at + entry.wait_s - now) + heard_s
