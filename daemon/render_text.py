"""What ``crier render`` is given to read, and how it says how that is read."""

import io
import json
import sys
from collections.abc import Iterator

from daemon.errors import BadRequestError
from daemon.values import Segment, Segmenter


class WholeText:
    """The segmenter of ``--raw``: everything is one segment, as it is."""

    def __init__(self) -> None:
        self._text = ""

    def push(self, text: str) -> list[Segment]:
        """Nothing yet."""
        self._text += text
        return []

    def flush(self) -> list[Segment]:
        """All of it."""
        return [Segment(self._text, 0)] if self._text else []


def print_segments(text: Iterator[str], segmenter: Segmenter, *, as_json: bool) -> None:
    """Print how a text is read, a segment a line.

    Raises:
        BadRequestError: bad SSML, or nothing to say.
    """
    segments = [segment for piece in text for segment in segmenter.push(piece)] + segmenter.flush()
    if not any(segment.text for segment in segments):
        raise BadRequestError("empty", "nothing in the text can be spoken")
    if as_json:
        print(json.dumps({"segments": [segment._asdict() for segment in segments]}))
        return
    for segment in segments:
        print(segment.text or f"[pause {segment.pause_s:g} s]")


def pieces(text: str) -> Iterator[str]:
    """The text of the command line; for "-" stdin, in lines as they come, so that speech starts before the text ends.

    Raises:
        BadRequestError: not UTF-8.
    """
    if text != "-":
        yield text
        return
    stream = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8")  # sys.stdin itself is lenient in the C locale
    try:
        yield from stream
    except UnicodeDecodeError as err:
        raise BadRequestError("bad_request", f"stdin is not UTF-8: {err.reason} at byte {err.start}") from err
