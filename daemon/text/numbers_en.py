"""Numbers to English words. Every function is total over ASCII digits and linear in their count."""

import re
from typing import Any

from daemon.submodule import import_submodule
from daemon.text.units_en import UNITS

MAX_DIGITS = 15
"""Longer runs are read digit by digit: nobody follows "quadrillion", and num2words ends at 10 ** 306."""
NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,4}(?![0-9])|[0-9]{1,15})(?:\.[0-9]{1,15})?"
"""Regex of an unsigned number with optional thousands separators and decimals."""
LOOSE_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,4}(?![0-9])|[0-9]{1,15})(?:\.[0-9]{1,15}|,[0-9]{1,2}(?![0-9]))?"
"""The same, where a decimal comma is safe (21,5 °C; 3,50 €)."""
UNIT = r"(?:" + "|".join(re.escape(symbol) for symbol in sorted(UNITS, key=len, reverse=True)) + ")"
"""Regex of a unit's symbol."""

_ENGLISH: Any = import_submodule("num2words", "lang_EN").Num2Word_EN()  # the package has 40 languages: 10 ms
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def _plain(words: Any) -> str:
    return str(words).replace(",", "").replace("-", " ").replace(" and ", " ")


def spell(digits: str) -> str:
    """Digit by digit: "007" is zero zero seven."""
    return " ".join(_DIGITS[int(digit)] for digit in digits)


def cardinal(digits: str) -> str:
    """A whole number; one with leading zeros, or too long to be followed, is spelled."""
    if len(digits) > MAX_DIGITS or (len(digits) > 1 and digits[0] == "0"):
        return spell(digits)
    return _plain(_ENGLISH.to_cardinal(int(digits)))


def ordinal(digits: str) -> str:
    """22 is twenty second."""
    return _plain(_ENGLISH.to_ordinal(int(digits[:MAX_DIGITS])))


def year(digits: str) -> str:
    """1999 is nineteen ninety nine, 2005 two thousand five, 1905 nineteen oh five."""
    return _plain(_ENGLISH.to_year(int(digits)))


def short_code(digits: str) -> str:
    """Digits of a code such as A320 (three twenty), B12 (twelve) or 1080 (ten eighty)."""
    if len(digits) == 4 and digits[0] != "0" and digits[1:] != "000":
        return f"{cardinal(digits[:2])} {_tail(digits[2:])}"
    if len(digits) == 3 and digits[0] != "0":
        return f"{cardinal(digits[0])} {_tail(digits[1:])}"
    return cardinal(digits) if len(digits) <= 2 or digits[1:] == "000" else spell(digits)


def _tail(digits: str) -> str:
    if digits == "00":
        return "hundred"
    return f"oh {cardinal(digits[1])}" if digits[0] == "0" else cardinal(digits)


def split_number(text: str) -> tuple[str, str]:
    """The whole and the decimal digits of a ``LOOSE_NUMBER``."""
    if re.fullmatch(r"[0-9]+,[0-9]{1,2}", text):
        text = text.replace(",", ".")
    whole, _, decimals = text.replace(",", "").partition(".")
    return whole, decimals


def number(text: str) -> str:
    """Any ``LOOSE_NUMBER``: 1,234.5 is one thousand two hundred thirty four point five."""
    whole, decimals = split_number(text)
    return f"{cardinal(whole)} point {spell(decimals)}" if decimals else cardinal(whole)


def is_one(text: str) -> bool:
    """Whether the unit after this number is in the singular."""
    return text.lstrip("-") == "1"


def looks_like_year(digits: str) -> bool:
    """Whether four digits are more likely a year than a count."""
    return len(digits) == 4 and 1100 <= int(digits) <= 2099


def fraction(numerator: str, denominator: str) -> str:
    """3/4 is three quarters."""
    if denominator == "2":
        part = "half" if numerator == "1" else "halves"
    else:
        part = "quarter" if denominator == "4" else ordinal(denominator)
        part += "" if numerator == "1" else "s"
    return f"{cardinal(numerator)} {part}"
