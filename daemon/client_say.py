"""``crier say``: one text, or stdin as it arrives, with or without waiting for the end of the speech."""

import argparse
import codecs
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from daemon.client_socket import Connection, find_socket
from daemon.errors import BadRequestError, SpeechError

_PIECE_BYTES = 1000
_BURST_PIECES = 20
_PACE_S = 0.1
"""Between pieces after a burst, well within the rate the daemon allows a client."""
_EXIT_CODES = {"finished": 0, "rejected": 65, "failed": 70, "cancelled": 75, "expired": 75}
_INTERRUPTED = 130


def run(args: argparse.Namespace) -> int:
    """Say it; with ``--wait`` the exit code tells how it ended.

    Raises:
        SpeechError: refused, or no daemon.
    """
    path = find_socket(args.socket, args.config, os.environ)
    options = ("priority", "voice", "key", "volume", "speed", "chime", "seed", "context")
    request: dict[str, Any] = {name: getattr(args, name) for name in options if getattr(args, name) is not None}
    if args.ttl is not None:
        request["ttl_s"] = args.ttl
    request |= {"op": "say", "id": os.urandom(8).hex()}
    try:
        with Connection(path) as connection:
            return _say(connection, request, " ".join(args.text), wait=args.wait)
    except KeyboardInterrupt:
        _stop(path, request["id"])
        return _INTERRUPTED


def _say(connection: Connection, request: dict[str, Any], text: str, *, wait: bool) -> int:
    if wait:
        connection.ask({"op": "subscribe"})
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")  # the shell may give any bytes
    whole = {**request, "text": text}
    reply = _stream(connection, request, sys.stdin.buffer) if text == "-" else connection.ask(whole)
    if wait:
        return _follow(connection, request["id"], reply["queue"])
    print(request["id"])
    return 0


def _stream(connection: Connection, request: dict[str, Any], source: BinaryIO) -> dict[str, Any]:
    """Send the text in pieces as it arrives, so that speech starts before it ends."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    reply: dict[str, Any] = {}
    pieces = 0
    while data := source.read1(_PIECE_BYTES):  # type: ignore[attr-defined] # every buffered stream has it
        text = decoder.decode(data)
        if not reply and not text.strip():
            continue  # nothing to say yet
        if not reply:
            reply = connection.ask({**request, "text": text, "more": True})
        else:
            connection.ask({"op": "append", "id": request["id"], "text": text})
        pieces += 1
        if pieces > _BURST_PIECES:
            time.sleep(_PACE_S)
    if not reply:
        raise BadRequestError("empty", "nothing to say")
    connection.ask({"op": "end", "id": request["id"]})
    return reply


def _follow(connection: Connection, request_id: str, before: int) -> int:
    """Show what becomes of the request until its final event."""
    with _status_line() as show:
        show(f"queued, {before} before it" if before else "queued")
        for event in connection.events():
            if event["id"] != request_id:
                continue
            kind, reason = event["event_type"], event.get("reason")
            if kind in _EXIT_CODES:
                break
            wait_s = event.get("wait_s")
            show("speaking" if kind == "started" else kind + (f", starts in {wait_s:.0f} s" if wait_s else ""))
    if kind != "finished" or reason:
        print(f"crier: {kind}" + (f" ({reason})" if reason else ""), file=sys.stderr)
    return 74 if kind == "failed" and reason == "audio" else _EXIT_CODES[kind]


@contextlib.contextmanager
def _status_line() -> Iterator[Callable[[str], None]]:
    """A line that changes, on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _text: None
        return
    from rich.console import Console  # noqa: PLC0415 slow to import, and seldom needed

    with Console(stderr=True).status("") as status:
        yield status.update


def _stop(path: Path, request_id: str) -> None:
    """Over a connection of its own: the other may be in the middle of a line."""
    with contextlib.suppress(SpeechError), Connection(path) as connection:
        connection.ask({"op": "stop", "what": request_id})
