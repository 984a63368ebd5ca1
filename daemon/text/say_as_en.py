"""English: how the text in SSML's say-as is read.

What the rules for plain text read as it is meant (a time, an amount of money) is only checked here, and read by them.
"""

import re
from collections.abc import Callable

from daemon.text.dates_en import say_date
from daemon.text.names_en import say_telephone
from daemon.text.numbers_en import NUMBER, cardinal, fraction, number, ordinal, spell
from daemon.text.tables_en import SYMBOLS

_MARKS = SYMBOLS | {
    ".": "dot",
    ",": "comma",
    "-": "dash",
    "_": "underscore",
    "/": "slash",
    "\\": "backslash",
    ":": "colon",
    "#": "hash",
    "*": "star",
    "!": "exclamation mark",
    "?": "question mark",
    "'": "apostrophe",
    '"': "quote",
    ";": "semicolon",
    "(": "bracket",
    ")": "close bracket",
    "~": "tilde",
    "|": "bar",
}
_ORDERS = ("mdy", "dmy", "ymd", "ydm", "md", "dm", "ym", "my", "yyyymmdd", "y", "m", "d")


def _characters(text: str, _format: str) -> str:
    names = [spell(char) if char in "0123456789" else _MARKS.get(char, char.upper()) for char in text]
    return " ".join(name for name in names if not name.isspace())


def _digits(text: str, _format: str) -> str:
    digits = re.sub(r"[ .,()-]", "", text)
    if not re.fullmatch("[0-9]+", digits):
        raise ValueError("digits only")
    return spell(digits)


def _cardinal(text: str, _format: str) -> str:
    match = re.fullmatch(rf"([+-]?)\s?({NUMBER})", text)
    if not match:
        raise ValueError("a number such as -1,234.5")
    return {"": "", "+": "plus ", "-": "minus "}[match[1]] + number(match[2])


def _ordinal(text: str, _format: str) -> str:
    match = re.fullmatch(r"([0-9]{1,15}|[0-9]{1,3}(?:,[0-9]{3}){1,4})(?:st|nd|rd|th)?", text)
    if not match:
        raise ValueError("a whole number")
    return ordinal(match[1].replace(",", ""))


def _fraction(text: str, _format: str) -> str:
    match = re.fullmatch(r"(?:([0-9]{1,9})\s?[+\s]\s?)?([0-9]{1,9})\s?/\s?([0-9]{1,9})", text)
    if not match or int(match[3]) < 2:
        raise ValueError("a fraction such as 3/4 or 1 1/2")
    return (f"{cardinal(match[1])} and " if match[1] else "") + fraction(match[2], match[3])


def _number(text: str, kind: str) -> str:
    """By its format (ordinal, digits, telephone); without one, or with another, a cardinal."""
    return {"ordinal": _ordinal, "digits": _digits, "telephone": _telephone}.get(kind, _cardinal)(text, "")


def _date(text: str, order: str) -> str:
    """By its format (mdy, dmy, ...); without one as plain text is read."""
    if not order:
        return _with_a_number(text, order)
    order = order.lower()
    if order not in _ORDERS:
        raise ValueError(f"the format must be one of {', '.join(_ORDERS)}")
    whole = re.fullmatch("([0-9]{4})([0-9]{2})([0-9]{2})", text)
    no_year = order == "yyyymmdd" and re.fullmatch(r"\?{4}([0-9]{2})([0-9]{2})", text)
    if no_year:
        return say_date(m=no_year[1], d=no_year[2])
    parts = list(whole.groups()) if whole else re.findall("[0-9]{1,4}", text)
    order = "ymd" if order == "yyyymmdd" else order
    if len(parts) != len(order) or not re.fullmatch(r"[0-9 ./-]+", text):
        raise ValueError(f"a date of the format {order}")
    return say_date(**dict(zip(order, parts, strict=True)))


def _telephone(text: str, _format: str) -> str:
    if not re.fullmatch(r"\+?[0-9 ().-]{2,30}(?:(?:x|ext\.?) ?[0-9]{1,6})?", text):
        raise ValueError("digits, blanks, brackets and dashes")
    return say_telephone(text)


def _with_a_number(text: str, _format: str) -> str:
    if not re.search("[0-9]", text):
        raise ValueError("it needs a number")
    return text


def _time(text: str, _format: str) -> str:
    lasting = re.fullmatch("([0-9]{1,2})'([0-9]{1,2})\"", text)
    return f"{lasting[1]} min {lasting[2]} s" if lasting else _with_a_number(text, "")


def _plain(text: str, _format: str) -> str:
    return text


def _beep(_text: str, _format: str) -> str:
    return "beep"


SAY_AS: dict[str, Callable[[str, str], str]] = {
    "characters": _characters,
    "spell-out": _characters,
    "verbatim": _characters,
    "digits": _digits,
    "cardinal": _cardinal,
    "number": _number,
    "ordinal": _ordinal,
    "fraction": _fraction,
    "date": _date,
    "time": _time,
    "telephone": _telephone,
    "currency": _with_a_number,
    "unit": _with_a_number,
    "address": _plain,
    "name": _plain,
    "expletive": _beep,
    "bleep": _beep,
}
