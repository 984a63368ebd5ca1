"""A daemon measured from outside, over its socket: its start, first samples, gaps, memory, and its rest."""

import itertools
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon.bench.arithmetic import percentile, percentiles
from daemon.bench.child import Child
from daemon.bench.texts import SENTENCES, TEXTS
from daemon.client_socket import Connection
from daemon.config import Config
from daemon.errors import EngineError

MOST_STARTS = 3
STOPPED_S = 30.0
"""After so long no other announcement is begun that is stopped once it is heard."""
WHOLE_S = 30.0
"""Likewise of those that are played to their end."""
PAUSE_S = 0.6
"""Between announcements, so that each finds an idle speaker with a closed device, whose clock starts anew."""
_SETTLE_S = 1.0
_FINAL = ("finished", "cancelled", "expired", "rejected", "failed")


@dataclass(slots=True)
class Heard:
    """One announcement."""

    text: str
    ttfa_ms: float
    """From its acceptance to the first sample in the ring, as the daemon says."""
    onset_ms: float
    """From sending it to the first sample that the sink has taken; the device's latency comes on top."""
    told_s: float | None
    """The wait it was told of, where the voice is slower than real time."""


@dataclass(slots=True)
class Announced:
    """What was said, and how it went."""

    heard: list[Heard] = field(default_factory=list)
    whole: int = 0
    """How many of them were played to the end."""


def daemon_figures(config: Config, bundle: Path, folder: Path, *, rounds: int, idle_s: float) -> dict[str, Any]:
    """Start a daemon a few times, have the last one speak, then leave it alone for ``idle_s``.

    Raises:
        EngineError: it does not start, or does not speak.
    """
    ready_ms = []
    for _ in range(min(rounds, MOST_STARTS) - 1):
        with Child(config, bundle, folder) as child:
            ready_ms.append(1000 * child.ready_s)
    with Child(config, bundle, folder) as child:
        ready_ms.append(1000 * child.ready_s)
        with child.connect() as connection:
            announced = _announce_all(connection, rounds)
            status = connection.ask({"op": "status"})["status"]
        time.sleep(_SETTLE_S)
        memory = child.memory()
        idle = idle_percent(child, idle_s) if idle_s else None
    metrics = status["metrics"]
    return {
        **percentiles("ready_ms", ready_ms),
        **first_sound(announced.heard, status["audio_latency_ms"]),
        "lead_ms": config.audio.lead_ms,
        "device_latency_ms": status["audio_latency_ms"],
        "played_whole": announced.whole,
        "underruns": metrics["underruns"],
        "underrun_ms": metrics["underrun_ms"],
        **memory,
        "idle_cpu_percent": idle,
        "idle_s": idle_s,
        "ttfa_ms_by_chars": by_chars(announced.heard),
    }


def first_sound(heard: list[Heard], latency_ms: float) -> dict[str, Any]:
    """How long after a request there is sound: in the ring, and audibly; the longest wait that was told of."""
    return {
        "announcements": len(heard),
        "ttfa_ms_first": round(heard[0].ttfa_ms, 2),
        **percentiles("ttfa_ms", [each.ttfa_ms for each in heard]),
        **percentiles("onset_ms", [each.onset_ms + latency_ms for each in heard]),
        "told_wait_s_max": max((each.told_s for each in heard if each.told_s is not None), default=None),
    }


def by_chars(heard: list[Heard]) -> dict[int, float]:
    """The median TTFA of every length of text."""
    lengths = sorted({len(each.text) for each in heard})
    return {
        chars: round(percentile([each.ttfa_ms for each in heard if len(each.text) == chars], 50), 2)
        for chars in lengths
    }


def idle_percent(child: Child, seconds: float) -> float:
    """Processor time of the idle daemon, percent of one core."""
    before, began = child.cpu_s(), time.monotonic()
    time.sleep(seconds)
    return round(100 * (child.cpu_s() - before) / (time.monotonic() - began), 3)


def _announce_all(connection: Connection, rounds: int) -> Announced:
    """Every text ``rounds`` times, stopped once it is heard; then twice as many sentences to their ends."""
    connection.ask({"op": "subscribe"})
    announced, names = Announced(), (f"bench-{number}" for number in itertools.count())
    until = time.monotonic() + STOPPED_S
    for text in TEXTS * rounds:
        if announced.heard and time.monotonic() > until:
            break
        announced.heard.append(_announce(connection, next(names), text, whole=False))
    until = time.monotonic() + WHOLE_S
    for text in (SENTENCES * rounds)[: 2 * rounds]:
        if announced.whole and time.monotonic() > until:
            break
        announced.heard.append(_announce(connection, next(names), text, whole=True))
        announced.whole += 1
    return announced


def _announce(connection: Connection, name: str, text: str, *, whole: bool) -> Heard:
    began = time.monotonic()
    connection.ask({"op": "say", "text": text, "id": name})
    told = _wait(connection, name, "queued").get("wait_s")
    started = _wait(connection, name, "started")
    onset_ms = 1000 * (time.monotonic() - began)
    if not whole:
        connection.ask({"op": "stop", "what": name})
    _wait(connection, name, "finished", *([] if whole else ["cancelled"]))  # a stop may come too late for a short one
    time.sleep(PAUSE_S)
    return Heard(text, started["ttfa_ms"], onset_ms, told)


def _wait(connection: Connection, name: str, *kinds: str) -> dict[str, Any]:
    """The next event of one of these kinds of the request.

    Raises:
        EngineError: another one ended it.
    """
    for event in connection.events():
        if event["id"] != name:
            continue
        if event["event_type"] in kinds:
            return event
        if event["event_type"] in _FINAL:
            reason = f" ({event['reason']})" if event.get("reason") else ""
            raise EngineError(f"an announcement of the bench was {event['event_type']}{reason}, not {kinds[0]}")
    raise AssertionError("events only end with an error")
