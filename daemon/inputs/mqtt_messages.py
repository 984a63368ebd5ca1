"""Payloads of the MQTT command topics to operations (PROTOCOL.md); pure, like messages."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from daemon.errors import BadRequestError
from daemon.inputs.messages import (
    Command,
    Op,
    Say,
    Set,
    Stop,
    build_request,
    check_size,
    decode_text,
    given_id,
    looks_like_json,
    parse_object,
    parse_volume,
    to_json,
    validate,
)
from daemon.values import Priority, SettingsChange, SpeakRequest, State

_SPEED = re.compile(r"[0-9]{1,2}(\.[0-9]{1,9})?")
_SWITCH = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}
_HOME_ASSISTANT_NOISE = "clear_notification"
"""What Home Assistant's notify groups send to take a message back; never to be read aloud."""
_SAY_PRIORITY = {
    "say": Priority.NORMAL,
    "say/json": Priority.NORMAL,
    "say/critical": Priority.CRITICAL,
    "say/low": Priority.LOW,
}
COMMANDS = (
    *_SAY_PRIORITY,
    *("stop", "pause", "resume", "repeat", "get"),
    *("volume/set", "mute/set", "voice/set", "speed/set"),
)
"""The topics below crier/NODE/ and crier/all/ that are listened to."""

RETAINED = ("availability", "state", "volume", "mute", "voice", "speed")
"""What the broker keeps of a speaker."""


@dataclass(frozen=True, slots=True)
class Hints:
    """What MQTT 5 says beside the payload."""

    user: Mapping[str, str] = field(default_factory=dict)
    """User properties; id, priority, ttl_s and voice serve plain text."""
    expiry_s: float | None = None
    """What is left of the message expiry."""


def parse_command(command: str, payload: bytes, hints: Hints | None = None) -> Op | None:
    """Parse the payload of an MQTT command topic (one of COMMANDS); None is nothing to do.

    Raises:
        BadRequestError: always and only this, with the wire's code.
    """
    if not payload and (command in _SAY_PRIORITY or command.endswith("/set")):
        return None  # how a retained message is cleared
    check_size(payload)
    if command in _SAY_PRIORITY:
        hints = hints or Hints()
        request = _parse_say(command, payload, hints)
        noise = request.text.strip() == _HOME_ASSISTANT_NOISE
        return None if noise else Say(request=request, expiry_s=hints.expiry_s)
    if command == "stop":
        return parse_stop(payload)
    if command.endswith("/set"):
        return _parse_setting(command.removesuffix("/set"), decode_text(payload).strip())
    return validate(Command, {"name": "status" if command == "get" else command})


def _parse_setting(name: str, text: str) -> Set:
    if name == "volume":
        return Set(change=parse_volume(text))
    if name == "mute":
        return Set(change=SettingsChange(mute=parse_switch(text)))
    if name == "voice":
        return Set(change=validate(SettingsChange, {"voice": text}))
    if _SPEED.fullmatch(text) is None:
        raise BadRequestError("bad_request", "speed must be a number from 0.5 to 2")
    return Set(change=validate(SettingsChange, {"speed": float(text)}))


def _parse_say(command: str, payload: bytes, hints: Hints) -> SpeakRequest:
    data: dict[str, Any] = {"priority": _SAY_PRIORITY[command]}
    if command == "say/json" or looks_like_json(payload):
        return build_request({**data, **parse_object(payload)})
    data |= {key: hints.user[key] for key in ("id", "priority", "voice") if key in hints.user}
    if "ttl_s" in hints.user:
        try:
            data["ttl_s"] = float(hints.user["ttl_s"])
        except ValueError:
            raise BadRequestError("bad_request", "ttl_s must be a number", given_id(data)) from None
    return build_request({**data, "text": decode_text(payload).strip()})


def parse_switch(text: str) -> bool:
    """``ON`` and ``OFF`` in any case; true, false, 1 and 0 too."""
    value = _SWITCH.get(text.strip().lower())
    if value is None:
        raise BadRequestError("bad_request", "mute must be ON or OFF")
    return value


def parse_stop(payload: bytes) -> Stop:
    """Nothing, ``all`` and ``PRESS`` (Home Assistant's button) are everything; ``current``; else an id."""
    what = decode_text(payload).strip()
    return validate(Stop, {"what": "all" if what in ("", "all", "PRESS") else what})


def state_payloads(state: State, *, with_text: bool) -> dict[str, bytes]:
    """The retained topics below crier/NODE/ and what they hold."""
    wire = state.to_wire()
    if not with_text:
        wire["last_text"] = None
    return {
        "state": to_json(wire),
        "volume": b"%d" % state.volume,
        "mute": b"ON" if state.mute else b"OFF",
        "voice": state.voice.encode(),
        "speed": b"%g" % state.speed,
    }
