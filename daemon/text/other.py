"""A language without a module of its own: markup goes, numbers become words where num2words knows the language."""

from functools import lru_cache
from re import Match

from num2words import CONVERTER_CLASSES, num2words

from daemon.text.language import Language, Sentences, compile_rules
from daemon.text.numbers_en import spell

_WHOLE = r"(?:0|[1-9][0-9]{0,11})"
"""Longer numbers are read digit by digit."""


def other_language(code: str) -> Language:
    """What can be done for any language. ``code`` is plain: "de"."""

    def number(match: Match[str]) -> str:
        words = _words(match[0].replace(",", "."), code)
        return f" {words} " if words else match[0]

    def digits(match: Match[str]) -> str:
        return f" {_digits(match[0], code)} "

    return Language(
        code=code,
        calm=str,
        rules=compile_rules(
            [
                (rf"(?<![\w.,]){_WHOLE}(?:[.,][0-9]{{1,2}})?(?![0-9]|[.,][0-9])", number),
                (r"[0-9]+", digits),
                (r"[*^~<>#|\\/_]", " "),
            ]
        ),
        sentences=Sentences(),
        say_as=dict.fromkeys(("characters", "spell-out", "digits"), _spaced),
    )


def _spaced(text: str, _format: str) -> str:
    return " ".join(text)


def _digits(text: str, code: str) -> str:
    """Digit by digit; in English where there is no other way."""
    return " ".join(_words(char, code) or spell(char) for char in text if char.isdigit())


@lru_cache(maxsize=4096)
def _words(number: str, code: str) -> str | None:
    if code not in CONVERTER_CLASSES:
        return None
    try:
        words = str(num2words(float(number) if "." in number else int(number), lang=code))
    except Exception:  # noqa: BLE001  what a converter cannot say it answers with any exception
        return None
    return None if any(char.isdigit() for char in words) else words
