"""Operations of the wire: lines to operations, operations to replies, the same for both doors (PROTOCOL.md).

Pure: no I/O and no clock. Whatever the bytes are, the parsers return an operation or raise BadRequestError.
"""

import codecs
import difflib
import json
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import from_json

from daemon.errors import BadRequestError
from daemon.ports import Speaker
from daemon.values import Accepted, Reason, RequestId, SettingsChange, SpeakRequest

_Model = TypeVar("_Model", bound=BaseModel)
_VOLUME = re.compile(r"([+-]?)([0-9]{1,3})")
_REQUEST_ID = TypeAdapter[str](RequestId)


MAX_MESSAGE_BYTES = 65_536
"""Longer messages are refused before anything in them is looked at. (The text's own limit is the speaker's matter.)"""


class _Op(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Say(_Op):
    """Speak; ``more`` leaves the text open for Append."""

    request: SpeakRequest
    more: bool = False
    expiry_s: float | None = None
    """What is left of the message's expiry (MQTT 5)."""


class Append(_Op):
    """More text for an open request."""

    id: RequestId
    text: str


class End(_Op):
    """Close an open request's text."""

    id: RequestId


class Stop(_Op):
    """Silence: all, current or an id."""

    what: RequestId = "all"


class Set(_Op):
    """Change settings."""

    change: SettingsChange


class Command(_Op):
    """An operation without arguments."""

    name: Literal["pause", "resume", "repeat", "status", "voices", "subscribe"]


Op = Say | Append | End | Stop | Set | Command


def make_id() -> str:
    """An id for a request that came without one."""
    return os.urandom(8).hex()


def to_json(value: Mapping[str, Any]) -> bytes:
    """One line of UTF-8 JSON without its newline; encodes whatever text is in it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def parse_line(line: bytes) -> Op:
    """Parse one line of the Unix socket, without its newline.

    Raises:
        BadRequestError: always and only this, with the wire's code.
    """
    check_size(line)
    if not looks_like_json(line):
        return Say(request=build_request({"text": decode_text(line).strip()}))
    data = parse_object(line)
    name = data.pop("op", None)
    if not isinstance(name, str) or name not in _PARSERS:
        raise BadRequestError("unknown_op", f"op must be one of {', '.join(_PARSERS)}, got {ascii(name)[:80]}")
    return _PARSERS[name](data)


def _parse_say(data: dict[str, Any]) -> Say:
    more = data.pop("more", False)
    if not isinstance(more, bool):
        raise BadRequestError("bad_request", "more must be true or false", given_id(data))
    return Say(request=build_request(data, more=more), more=more)


def _parse_set(data: dict[str, Any]) -> Set:
    """Keys: volume (a number, or a step as text), mute, voice, speed."""
    if "volume_step" in data:
        raise BadRequestError("bad_request", 'unknown key "volume_step"; write "volume": "+5"')
    if isinstance(data.get("volume"), str):
        data |= parse_volume(data.pop("volume")).model_dump(exclude_none=True)
    change = validate(SettingsChange, data)
    if change == SettingsChange():
        raise BadRequestError("bad_request", "set needs volume, mute, voice or speed")
    return Set(change=change)


def _parse_plain(name: str, data: dict[str, Any]) -> Command:
    if data:
        raise BadRequestError("bad_request", f"{name} takes no other keys, got {ascii(next(iter(data)))[:80]}")
    return validate(Command, {"name": name})


_PARSERS: dict[str, Callable[[dict[str, Any]], Op]] = {
    "say": _parse_say,
    "append": lambda data: validate(Append, data),
    "end": lambda data: validate(End, data),
    "stop": lambda data: validate(Stop, data),
    "set": _parse_set,
    **{name: partial(_parse_plain, name) for name in ("pause", "resume", "repeat", "status", "voices", "subscribe")},
}


def parse_volume(text: str) -> SettingsChange:
    """``35`` sets, ``+5`` and ``-10`` step."""
    match = _VOLUME.fullmatch(text.strip())
    if match is None or int(match[2]) > 100:
        raise BadRequestError("bad_request", "volume must be 0..100, or a step such as +5 or -10")
    if match[1]:
        return SettingsChange(volume_step=int(match[0]))
    return SettingsChange(volume=int(match[0]))


def execute(op: Op, speaker: Speaker) -> dict[str, Any]:
    """Do it; the reply both doors give."""
    try:
        return {"ok": True, **_perform(op, speaker)}
    except BadRequestError as err:
        return failure(err)


def failure(err: BadRequestError) -> dict[str, Any]:
    """The reply to a request that is refused."""
    return {"ok": False, "error": {"code": err.code, "message": str(err)}}


def rejection(err: BadRequestError) -> Reason:
    """The reason of the ``rejected`` event for what could not be parsed."""
    return Reason(err.code) if err.code in (Reason.TOO_LONG, Reason.EMPTY) else Reason.BAD_JSON


def _perform(op: Op, speaker: Speaker) -> dict[str, Any]:
    match op:
        case Say(request=request, more=more, expiry_s=expiry_s):
            return _accepted(speaker.say(request, more=more, expiry_s=expiry_s))
        case Append(id=request_id, text=text):
            speaker.append(request_id, text)
            return {"id": request_id}
        case End(id=request_id):
            speaker.end(request_id)
            return {"id": request_id}
        case Stop(what=what):
            speaker.stop(what)
        case Set(change=change):
            speaker.set(change)
        case Command(name=name):
            return _command(name, speaker)
    return {}


def _accepted(accepted: Accepted) -> dict[str, Any]:
    wait = {} if accepted.wait_s is None else {"wait_s": accepted.wait_s}
    return {"id": accepted.id, "queue": accepted.queue, **wait}


def _command(name: str, speaker: Speaker) -> dict[str, Any]:
    if name == "repeat":
        return _accepted(speaker.repeat())
    if name == "status":
        return {"status": speaker.status()}
    if name == "voices":
        return {"voices": [voice.model_dump() for voice in speaker.voices()]}
    if name == "pause":
        speaker.pause()
    if name == "resume":
        speaker.resume()
    return {}


def check_size(message: bytes) -> None:
    """Refuse what is too long, before anything is parsed."""
    if len(message) > MAX_MESSAGE_BYTES:
        raise BadRequestError("too_long", f"a message is limited to {MAX_MESSAGE_BYTES} bytes")


def looks_like_json(payload: bytes) -> bool:
    """Whether it is meant as an object: such a payload is never read aloud."""
    return payload.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{")


def decode_text(payload: bytes) -> str:
    """UTF-8 (a byte order mark is dropped) or a refusal."""
    try:
        return payload.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise BadRequestError("bad_request", f"not valid UTF-8 at byte {err.start}") from None


def parse_object(payload: bytes) -> dict[str, Any]:
    """A JSON object or a refusal."""
    try:
        data = from_json(payload.removeprefix(codecs.BOM_UTF8), allow_inf_nan=False)
    except ValueError as err:
        raise BadRequestError("bad_json", f"not valid JSON: {err}") from None
    if not isinstance(data, dict):
        raise BadRequestError("bad_json", "a JSON object is expected")
    return data


def given_id(data: Mapping[str, Any]) -> str | None:
    """The id that a request gave itself, if it is usable."""
    try:
        return _REQUEST_ID.validate_python(data.get("id"), strict=True)
    except ValidationError:
        return None


def build_request(data: dict[str, Any], *, more: bool = False) -> SpeakRequest:
    """A request of these keys, with an id; ``more`` lets its text be empty."""
    if data.get("id") is None:
        data["id"] = make_id()
    if more:
        data.setdefault("text", "")
    return validate(SpeakRequest, data)


def validate(model: type[_Model], data: dict[str, Any]) -> _Model:
    """The model of these keys, or a refusal that names the wrong ones."""
    try:
        return model.model_validate(data)
    except ValidationError as err:
        _refuse(model, err, given_id(data))


def _refuse(model: type[BaseModel], err: ValidationError, request_id: str | None) -> NoReturn:
    """Name every key that is wrong; the first three suffice."""
    parts = []
    for item in err.errors(include_url=False, include_input=False)[:3]:
        where = item["loc"]
        if where[:1] == ("context",):  # then comes which kind of entry pydantic took it for
            where = where[:2] + where[3:]
        key = ascii(".".join(str(part) for part in where))[1:-1][:80]
        if item["type"] == "extra_forbidden":
            close = difflib.get_close_matches(key, model.model_fields, n=1)
            parts.append(f'unknown key "{key}"' + (f" (did you mean {close[0]}?)" if close else ""))
        elif item["type"] == "missing":
            parts.append(f'"{key}" is missing')
        else:
            parts.append(f"{key}: {item['msg'].removeprefix('Value error, ')}")
    raise BadRequestError("bad_request", "; ".join(parts), request_id) from None
