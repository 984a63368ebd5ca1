"""Text in pieces -> segments. The segments depend on the text alone, never on how it was cut into pieces.

sentence-stream was looked at and does not serve: it gives no offsets, strips characters, holds unlimited text, takes
"Yes." for an abbreviation and does not end a sentence at a line's end.
"""

import re
from collections.abc import Callable, Sequence

from daemon.text.language import Sentences
from daemon.text.languages import find_language
from daemon.values import Segment

MAX_RAW_CHARS = 1000
"""Text without a sentence's end is cut here at the latest, so that endless text takes bounded memory."""
_LONG_FIRST_CHARS = 60
"""A first sentence longer than this is cut at an early comma, so that speech starts sooner."""
_MIN_WORDS = 3
_MIN_TOKENS = 8
"""Enough for one character of any script, a comma and the marks some tokenizers add."""

_WIDE_MARKS = "\u3002\uff01\uff1f"
_MARKS = ".!?\u2026" + _WIDE_MARKS
_CANDIDATE = re.compile(rf"\n|[{_MARKS}]+[\"')\]}}\u2019\u201d\u00bb]{{0,4}}")
_SPACES = re.compile(r"\s*")
_BLANKS = re.compile(r"[^\S\n]*")
_DOTTED = re.compile(r"(?:[a-z]{1,2}\.)+[a-z]")
_LAST_WORD = re.compile(r"(?:^|[\s(\"'\u201c\u2018])([^\s(\"'\u201c\u2018]{1,12})$")
_NEXT_WORD = re.compile(r"[^\W\d_]{1,10}|.?", re.DOTALL)
_WRITTEN_COMMA = re.compile("[,;:(\u2013\u2014\uff0c\u3001\uff1b\uff1a\u060c]")
"""Without one of these the commas of a text are those between the digits of a telephone, or in a date."""
_BREAKS = (re.compile(r"(?<=[.!?]) "), re.compile(r"(?<=[,;:]) "))
"""Where a sentence is best cut, best first."""
_ANY_SPACE = re.compile(" ")


class TextSegmenter:
    """One segment per sentence, or several where a sentence is too long for the model.

    Args:
        normalize: raw sentence -> speakable text, "" if there is none.
        count_tokens: how many tokens the model makes of a text.
        max_tokens: no segment has more; at least 8.
        language: of the text.
    """

    def __init__(
        self,
        normalize: Callable[[str], str],
        count_tokens: Callable[[str], int],
        max_tokens: int,
        *,
        language: str = "en",
    ) -> None:
        if max_tokens < _MIN_TOKENS:
            raise ValueError(f"max_tokens must be at least {_MIN_TOKENS}, got {max_tokens}")
        self._normalize = normalize
        self._count_tokens = count_tokens
        self._max_tokens = max_tokens
        self._sentences = find_language(language).sentences
        more = self._sentences.conjunctions
        self._breaks = (*_BREAKS, more) if more else _BREAKS
        self._reset()

    def push(self, text: str) -> list[Segment]:
        """Take more text; return the segments that are now complete."""
        self._waiting += text
        return self._take(ended=False)

    def interrupt(self, num_skipped: int = 0) -> list[Segment]:
        """What waits ends here, though the text goes on, after characters that are not read."""
        segments = self._take(ended=True)
        self._offset += num_skipped
        return segments

    def flush(self) -> list[Segment]:
        """The text has ended; return what is left. The next push starts a new text, at offset 0."""
        segments = self._take(ended=True)
        self._reset()
        return segments

    def _reset(self) -> None:
        self._waiting = ""
        self._offset = 0  # of _waiting in the text
        self._first = True

    def _take(self, *, ended: bool) -> list[Segment]:
        segments: list[Segment] = []
        start = 0
        while True:
            start = _skip(_SPACES, self._waiting, start)
            window = self._waiting[start : start + MAX_RAW_CHARS]
            end = find_sentence_end(window, self._sentences, ended=ended)
            if end is None:
                break
            segments += self._segments(window[:end], self._offset + start)
            start += end
        self._waiting = self._waiting[start:]
        self._offset += start
        return segments

    def _segments(self, raw: str, offset: int) -> list[Segment]:
        """The segments of one raw sentence; the offsets of all but the first are estimates, never decreasing."""
        spoken = self._normalize(raw)
        if not spoken:
            return []
        parts = self._parts(spoken, may_cut=self._first and bool(_WRITTEN_COMMA.search(raw)))
        self._first = False
        lengths = [0]
        for part in parts:
            lengths.append(lengths[-1] + len(part))
        return [
            Segment(part, offset + done * len(raw) // lengths[-1]) for part, done in zip(parts, lengths, strict=False)
        ]

    def _parts(self, spoken: str, *, may_cut: bool) -> list[str]:
        cut = _early_comma(spoken) if may_cut else None
        pieces = [spoken] if cut is None else [spoken[:cut], spoken[cut + 1 :]]
        return [part for piece in pieces for part in self._fit(piece)]

    def _fit(self, text: str) -> list[str]:
        """Parts of similar length that each fit; a part cut within a clause ends with a comma."""
        parts: list[str] = []
        rest = [text]
        while rest:
            piece = rest.pop()
            closed = _close(piece)
            tokens = self._count_tokens(closed)
            if tokens <= self._max_tokens or len(piece) <= 1:
                parts.append(closed if tokens <= self._max_tokens else piece)
                continue
            left, right = _halve(piece, -(-tokens // self._max_tokens), self._breaks)
            rest += [part for part in (right, left) if part]
        return parts


def find_sentence_end(window: str, sentences: Sentences, *, ended: bool) -> int | None:
    """Where the first sentence of ``window`` ends; None if only more text can tell.

    Args:
        window: starts with the sentence; at most MAX_RAW_CHARS characters. A full window is always cut.
        sentences: what the language knows of them.
        ended: no text follows the window.
    """
    final = ended or len(window) == MAX_RAW_CHARS
    for match in _CANDIDATE.finditer(window):
        if match[0] == "\n":
            return match.end()
        at = _skip(_BLANKS, window, match.end())
        following = window[at : _skip(_NEXT_WORD, window, at)]
        separated = at > match.end() or following in ("", "\n") or match[0][0] in _WIDE_MARKS
        is_cut = not final and at + len(following) == len(window)
        ends = separated and _ends(window, match, following, sentences, is_cut=is_cut)
        if ends is None or not (following or final):
            return None  # the marks may go on, and what follows decides
        if ends:
            return match.end()
    if not final or not window:
        return None
    if len(window) < MAX_RAW_CHARS:
        return len(window)
    space = window.rfind(" ")
    return space + 1 if space > MAX_RAW_CHARS // 2 else len(window)


def _skip(pattern: re.Pattern[str], text: str, start: int) -> int:
    match = pattern.match(text, start)
    return match.end() if match else start


def _ends(window: str, match: re.Match[str], following: str, sentences: Sentences, *, is_cut: bool) -> bool | None:
    """Whether the marks end a sentence, given the word or character after the blanks that follow ("" at the end).

    None if the word is cut and the whole of it can tell.
    """
    marks, first = match[0], following[:1]
    closed = marks[-1] not in _MARKS
    if following in ("", "\n"):
        return True
    if marks[0] != ".":
        return not (closed and first.islower())  # "Stop!" he said
    if len(marks) > 1 and not closed:
        return not first.islower()  # Wait... what
    before = window[max(0, match.start() - 45) : match.start()]
    if sentences.street and sentences.street.search(before):
        return first.isupper()  # on Elm St. Dinner
    word = _LAST_WORD.search(before[-13:])
    if word and word[1].lower() in sentences.calendar & sentences.may_end and first.isupper():
        return _day_ends(following.lower(), sentences, is_cut=is_cut)
    return _dot_ends(word[1], first, sentences, is_all=match.start() == len(word[1])) if word else True


def _day_ends(following: str, sentences: Sentences, *, is_cut: bool) -> bool | None:
    """The same for the dot of Mon. or Nov. and a word with a capital: Mon. Nov. 20 goes on, Mon. Dinner does not."""
    if is_cut and any(name.startswith(following) for name in sentences.calendar):
        return None
    return following not in sentences.calendar


def _dot_ends(word: str, following: str, sentences: Sentences, *, is_all: bool) -> bool:
    """The same for another dot after ``word``, which may be all there is before it, and the next character."""
    key = word.lower()
    if {key, word} & sentences.never_end or (len(word) == 1 and word.isalpha() and word.isupper()):
        return False  # Dr. Smith, J. Smith
    if is_all and word.isdigit():
        return False  # 1. Wash the car
    if key in sentences.before_number:
        return not following.isdigit()
    if key in sentences.names:
        return False  # Mon. 9 to 5
    if key in sentences.may_end or _DOTTED.fullmatch(key):
        return not (following.islower() or following.isdigit())  # 7 a.m. tomorrow
    return True


def _early_comma(text: str) -> int | None:
    """The space after the first comma of a long text with at least three words on both sides."""
    if len(text) <= _LONG_FIRST_CHARS:
        return None
    for match in _BREAKS[1].finditer(text):
        if text.count(" ", 0, match.start()) + 1 >= _MIN_WORDS:
            return match.start() if text.count(" ", match.end()) + 1 >= _MIN_WORDS else None
    return None


def _close(text: str) -> str:
    return text + "," if text[-1].isalnum() else text


def _halve(text: str, num_parts: int, breaks: Sequence[re.Pattern[str]]) -> tuple[str, str]:
    """Cut once, so that both sides can become parts of similar length: at a mark, before a conjunction, a word."""
    target = len(text) * (num_parts // 2) // num_parts
    slack = len(text) / (2 * num_parts)
    for pattern in breaks:
        near = _positions(pattern, text, target, slack)
        if near:
            at = min(near, key=lambda position: abs(position - target))
            return text[:at], text[at + 1 :]
    spaces = _positions(_ANY_SPACE, text, target, len(text))
    if spaces:
        at = min(spaces, key=lambda position: abs(position - target))
        return text[:at], text[at + 1 :]
    at = max(1, target)
    return text[:at], text[at:]


def _positions(pattern: re.Pattern[str], text: str, target: int, slack: float) -> list[int]:
    return [match.start() for match in pattern.finditer(text) if abs(match.start() - target) <= slack]
