"""Text as people write it -> text as it is read aloud. Pure, linear in the length, never raises."""

import re
from functools import lru_cache

from anyascii import anyascii

from daemon.text.language import Language
from daemon.text.languages import find_language
from daemon.text.lexicon import Lexicon
from daemon.text.markup import EmojiStyle, clean_characters, name_emoji, strip_markup

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


class Normalizer:
    """Text as people write it -> text as it is read aloud. Immutable and thread-safe.

    Args:
        language: code of the text's language; what languages.py has no module for is read without its rules.
        alphabet: the characters the model knows; None for a model that takes any text. With an alphabet the result
            has only its characters.
        lexicon: words the user wants read in another way.
        emoji: leave them out, or read their names.
    """

    def __init__(
        self,
        *,
        language: str = "en",
        alphabet: str | None = None,
        lexicon: Lexicon | None = None,
        emoji: EmojiStyle = "drop",
    ) -> None:
        self._language: Language = find_language(language)
        self._known = None if alphabet is None else frozenset(alphabet)
        self._lexicon = lexicon
        self._names_emoji = emoji == "name"

    def __call__(self, text: str) -> str:
        """Spell out numbers, units, dates and the like; drop markup and whatever cannot be read.

        Returns:
            Speakable text that ends with a full stop, question or exclamation mark (where the alphabet has them), at
            most ``MAX_GROWTH * (len(text) + 1)`` characters (with a lexicon: of what it made of the text); "" if
            nothing can be spoken.
        """
        if self._names_emoji:
            text = name_emoji(text, self._language.code)
        spoken = self._language.calm(strip_markup(clean_characters(text)))
        if self._lexicon:
            spoken = self._lexicon.apply(spoken)
        max_length = MAX_GROWTH * (max(len(text), len(spoken)) + 1)
        for pattern, words in self._language.rules:
            spoken = pattern.sub(words, spoken)
        return _finish(spoken, self._known)[:max_length]


def normalize(text: str, *, alphabet: str | None = None) -> str:
    """English text, read without lexicon or emoji (see ``Normalizer``)."""
    return _normalizer(alphabet)(text)


@lru_cache(maxsize=16)
def _normalizer(alphabet: str | None) -> Normalizer:
    return Normalizer(alphabet=alphabet)


def _finish(text: str, known: frozenset[str] | None) -> str:
    """Words and marks in a form that the model can read; "" if there is nothing."""
    text = re.sub(r"([^\W\d_])\1{3,}+", r"\1\1", text)
    text = _punctuate(text if known is None else _transliterate(text, known))
    text = re.sub(rf"[^\W\d_]{{{_MAX_WORD}}}(?=[^\W\d_])", r"\g<0> ", text)
    if known is not None:
        text = "".join(char for char in text if char in known).strip()
    return text if any(char.isalnum() for char in text) else ""


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
    text = re.sub(r"(?<!\.)\.{2,}+(?=\s{0,3}[a-z])", ",", text)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r" ?[,.?!](?: ?[,.?!])*+", lambda match: _strongest(match[0]) + " ", text)
    text = re.sub(r"(?<=[(\[{]) ", "", text)
    text = re.sub(r"\s+(?=[\s;:)\]}])", "", text).lstrip(" ,.?!;:)]}-\u2013").rstrip(" ,;:-\u2013")
    return text if not text or text[-1] in ".?!" else text + "."


def _strongest(marks: str) -> str:
    return next(mark for mark in "?!.," if mark in marks)
