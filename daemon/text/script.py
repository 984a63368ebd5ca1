"""What a request's text may hold beside words: pauses in brackets, or SSML. Both become segments."""

import re
from bisect import bisect_right
from collections.abc import Callable

from daemon.errors import BadRequestError
from daemon.text.languages import find_language
from daemon.text.segment import TextSegmenter
from daemon.values import Segment

MAX_PAUSE_S = 10.0
"""Longer pauses are cut to this."""
MAX_PAUSES_S = 60.0
"""All pauses of a text together; what goes beyond is left out."""
MAX_SSML_CHARS = 65_536
"""SSML is kept until it has come whole."""
_BLANKS = " \t\r\n\ufeff"
_BEGINNINGS = ("<speak", "<?xml", "<!DOCTYPE speak")
_SSML = re.compile(rf"(?:{'|'.join(map(re.escape, _BEGINNINGS))})(?![\w.:-])")
_PAUSE = re.compile(r"\[ ?pause ([0-9]{1,6}(?:\.[0-9]{1,3})?|\.[0-9]{1,3}) ?(ms|s) ?\]", re.IGNORECASE | re.ASCII)
_MAX_MARK = 32
"""No mark of a pause is longer."""


def is_ssml(text: str) -> bool:
    """Whether a text, after blanks, begins as SSML does: with <speak, or the lines that XML may have before it."""
    return bool(_SSML.match(text.lstrip(_BLANKS)))


def may_be_ssml(text: str) -> bool:
    """Whether a text is SSML, or so little of one that what follows decides."""
    head = text.lstrip(_BLANKS)
    return is_ssml(head) or any(beginning.startswith(head) for beginning in _BEGINNINGS)


class ScriptSegmenter:
    """Text with ``[pause 500ms]`` in it, or SSML, to segments; what has no such thing as TextSegmenter makes it.

    SSML is read when it has come whole; other text as it comes.

    Args:
        normalize: raw sentence -> speakable text, "" if there is none.
        count_tokens: how many tokens the model makes of a text.
        max_tokens: no segment has more; at least 8.
        language: code of the text's language.
    """

    def __init__(
        self,
        normalize: Callable[[str], str],
        count_tokens: Callable[[str], int],
        max_tokens: int,
        *,
        language: str = "en",
    ) -> None:
        self._say_as = find_language(language).say_as
        self._plain = _PauseSegmenter(TextSegmenter(normalize, count_tokens, max_tokens, language=language))
        self._reset()

    def _reset(self) -> None:
        self._is_ssml: bool | None = None  # not known yet
        self._head = ""  # what has come while that is so
        self._ssml: list[str] = []
        self._num_blanks = 0
        self._num_chars = 0

    def push(self, text: str) -> list[Segment]:
        """Take more text; return the segments that are now complete."""
        if self._is_ssml is None:
            if not self._head:
                head = text.lstrip(_BLANKS)
                self._num_blanks += len(text) - len(head)
                self._plain.push(text[: len(text) - len(head)])
                text = head
            self._head += text
            text = self._decide(ended=False)
        return self._take(text)

    def flush(self) -> list[Segment]:
        """The text has ended; return what is left. The next push starts a new text.

        Raises:
            BadRequestError: it is SSML, and bad.
        """
        try:
            segments = self._take(self._decide(ended=True))
            if self._is_ssml:
                segments += self._read_ssml()
        finally:
            rest = self._plain.flush()
            self._reset()
        return segments + rest

    def _decide(self, *, ended: bool) -> str:
        """Find out what the text is; return what has waited for that."""
        if not ended and any(beginning.startswith(self._head) for beginning in _BEGINNINGS):
            return ""  # what follows decides
        if self._is_ssml is None:
            self._is_ssml = is_ssml(self._head)
        waited, self._head = self._head, ""
        return waited

    def _take(self, text: str) -> list[Segment]:
        if not self._is_ssml:
            return self._plain.push(text)
        self._num_chars += len(text)
        if self._num_chars <= MAX_SSML_CHARS:
            self._ssml.append(text)
        return []

    def _read_ssml(self) -> list[Segment]:
        if self._num_chars > MAX_SSML_CHARS:
            raise BadRequestError("too_long", f"SSML: more than {MAX_SSML_CHARS} characters")
        text = "".join(self._ssml)
        places = _Places()
        segments: list[Segment] = []
        style = Segment("", 0)
        from daemon.text.ssml import parse_ssml  # noqa: PLC0415 (an XML parser, which most texts need not)

        for piece in parse_ssml(text, self._say_as):
            places.add(self._plain.position, self._num_blanks + piece.offset)
            if piece.text.strip() and (piece.rate, piece.volume) != (style.rate, style.volume):
                segments += _styled(self._plain.interrupt(), style)
                style = piece
            found = self._plain.push(piece.text) if piece.text else self._plain.pause(piece.pause_s)
            segments += _styled(found, style)
        segments += _styled(self._plain.interrupt(), style)
        return [segment._replace(offset=places.find(segment.offset)) for segment in segments]


def _styled(segments: list[Segment], style: Segment) -> list[Segment]:
    return [each._replace(rate=style.rate, volume=style.volume) if each.text else each for each in segments]


class _Places:
    """Where the pieces of SSML's text begin in the document."""

    def __init__(self) -> None:
        self._starts = [0]
        self._offsets = [0]

    def add(self, start: int, offset: int) -> None:
        """A piece; both numbers never decrease."""
        self._starts.append(start)
        self._offsets.append(max(offset, self._offsets[-1]))

    def find(self, position: int) -> int:
        """The place in the document of a position in the text; within what was put in place of it, an estimate."""
        at = bisect_right(self._starts, position) - 1
        offset = self._offsets[at] + position - self._starts[at]
        return min(offset, *self._offsets[at + 1 : at + 2]) if at + 1 < len(self._offsets) else offset


class _PauseSegmenter:
    """Text with ``[pause 500ms]`` in it."""

    def __init__(self, segmenter: TextSegmenter) -> None:
        self._text = segmenter
        self._reset()

    def _reset(self) -> None:
        self._held = ""  # the end of the text, where it may be the beginning of a mark
        self._left_s = MAX_PAUSES_S
        self.position = 0
        """Characters that were pushed."""

    def push(self, text: str) -> list[Segment]:
        """Take more text; return the segments that are now complete."""
        self.position += len(text)
        self._held += text
        segments: list[Segment] = []
        start = 0
        for match in _PAUSE.finditer(self._held):
            segments += self._text.push(self._held[start : match.start()])
            at = self.position - len(self._held) + match.start()
            segments += self._end(len(match[0]), float(match[1]) / (1000 if match[2].lower() == "ms" else 1), at)
            start = match.end()
        bracket = self._held.rfind("[", max(start, len(self._held) - _MAX_MARK))
        end = len(self._held) if bracket < 0 or "]" in self._held[bracket:] else bracket
        segments += self._text.push(self._held[start:end])
        self._held = self._held[end:]
        return segments

    def interrupt(self) -> list[Segment]:
        """What waits ends here, though the text goes on."""
        held, self._held = self._held, ""
        return self._text.push(held) + self._text.interrupt()

    def pause(self, pause_s: float) -> list[Segment]:
        """The same, and a pause."""
        return self.interrupt() + self._end(0, pause_s, self.position)

    def flush(self) -> list[Segment]:
        """The text has ended; return what is left. The next push starts a new text."""
        segments = self._text.push(self._held) + self._text.flush()
        self._reset()
        return segments

    def _end(self, num_skipped: int, pause_s: float, offset: int) -> list[Segment]:
        pause_s = min(pause_s, MAX_PAUSE_S, self._left_s)
        self._left_s -= pause_s
        pause = [Segment("", offset, pause_s)] if pause_s else []
        return self._text.interrupt(num_skipped) + pause
