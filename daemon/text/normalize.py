"""Text as people write it -> text as it is read aloud. Pure, linear in the length, never raises."""

import re
from functools import lru_cache

from anyascii import anyascii

from daemon.text.capitals_en import calm_capitals
from daemon.text.markup import clean_characters, strip_markup
from daemon.text.rules_en import RULES

MAX_GROWTH = 40
"""The result is at most ``MAX_GROWTH * (len(text) + 1)`` characters long."""
_MAX_WORD = 30

_MARKS = {
    **dict.fromkeys(";:\u2013()[]{}|\u3001\uff0c\u060c", ","),
    **dict.fromkeys("\u3002\u0964", "."),
    **dict.fromkeys("\u061f", "?"),
    '"': "",
    "`": "'",
}
"""Punctuation an alphabet may lack -> the nearest it has."""


def normalize(text: str, *, alphabet: str | None = None) -> str:
    """Spell out numbers, units, dates and the like; drop markup, emoji and whatever cannot be read.

    Args:
        text: anything, English.
        alphabet: the characters the model knows; None for a model that takes any text. With an alphabet the result
            has only its characters.

    Returns:
        Speakable text that ends with a full stop, question or exclamation mark (where the alphabet has them), at most
        ``MAX_GROWTH * (len(text) + 1)`` characters; "" if nothing can be spoken.
    """
    spoken = calm_capitals(strip_markup(clean_characters(text)))
    for pattern, words in RULES:
        spoken = pattern.sub(words, spoken)
    spoken = re.sub(r"([^\W\d_])\1{3,}+", r"\1\1", spoken)
    known = None if alphabet is None else frozenset(alphabet)
    spoken = _punctuate(spoken if known is None else _transliterate(spoken, known))
    spoken = re.sub(rf"[^\W\d_]{{{_MAX_WORD}}}(?=[^\W\d_])", r"\g<0> ", spoken)
    if known is not None:
        spoken = "".join(char for char in spoken if char in known).strip()
    spoken = spoken[: MAX_GROWTH * (len(text) + 1)]
    return spoken if any(char.isalnum() for char in spoken) else ""


def _transliterate(text: str, known: frozenset[str]) -> str:
    """Only known characters, and the marks that ``_punctuate`` needs."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", text)
    text = re.sub(r"(?<=\w)-(?=\w)", " ", text)
    text = re.sub(r"\s--?\s|--+", ", ", text)
    return "".join(_known_form(char, known) for char in text)


@lru_cache(maxsize=4096)
def _known_form(char: str, known: frozenset[str]) -> str:
    for form in (char, char.lower(), char.upper()):
        if len(form) == 1 and form in known:
            return form
    if char in _MARKS or char in ",.?!'":
        return _MARKS.get(char, char)
    ascii_form = anyascii(char) if char.isalpha() and not char.isascii() else ""
    return "".join(_known_form(part, known) for part in ascii_form if part.isalpha()) if ascii_form else " "


def _punctuate(text: str) -> str:
    """One space or mark between words, no space before a mark, a full stop at the end."""
    text = re.sub(r"(?<![^\W_])'|'(?![^\W_])", "", text)
    text = re.sub(r"(?<!\.)\.{2,}+(?=\s?[a-z])", ",", text)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r" ?[,.?!](?: ?[,.?!])*+", lambda match: _strongest(match[0]) + " ", text)
    text = re.sub(r"(?<=[(\[{]) ", "", text)
    text = re.sub(r"\s+(?=[\s;:)\]}])", "", text).lstrip(" ,.?!;:)]}-\u2013").rstrip(" ,;:-\u2013")
    return text if not text or text[-1] in ".?!" else text + "."


def _strongest(marks: str) -> str:
    return next(mark for mark in "?!.," if mark in marks)
