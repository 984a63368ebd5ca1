"""English rules for amounts: ranges, money, measures, fractions and shares."""

import re
from re import Match

from daemon.text.numbers_en import LOOSE_NUMBER, NUMBER, UNIT, cardinal, fraction, is_one, number, split_number
from daemon.text.rule import Rule
from daemon.text.units_en import CURRENCIES, SCALES, UNITS

_EXACT = frozenset({"ha", "kn", "kt"})
"""Units that in capitals are something else (HA is Home Assistant)."""
_FOLDED_UNITS = {
    symbol.lower(): words for symbol, words in reversed(UNITS.items()) if len(symbol) > 1 and symbol not in _EXACT
}
_WORDLIKE = [symbol for symbol in UNITS if len(symbol) > 1 and symbol.isalpha()]
_SIGNS = rf"(?:{'|'.join(re.escape(sign) for sign in sorted(CURRENCIES, key=len, reverse=True) if not sign.isalpha())})"
_CODES = rf"(?:{'|'.join(code for code in CURRENCIES if code.isupper() and code.isalpha())})"
_AFTER = rf"(?:{_SIGNS}|(?:{_CODES}|kr|zł|Kč)\b)"
_SCALE = r"(?:(k|K|m|M|bn|B|tn|mn)\b|\s(thousand|million|billion|trillion)\b)?"
_SCALED = r"(?:k|K|m|M|bn|B|tn|mn|\s[mbtr]{1,2}illion)\b"
_CLOCK = r"(?<![\w:.,])([01]?[0-9]|2[0-4]):([0-5][0-9])"
_SHORT = r"[0-9]{1,7}(?:[:.,][0-9]{1,3})?"
_PER_UNIT = r"kWh|MWh|h|hr|kg|lb|oz|gal|bbl|l|L|mo|min|s|d|m\^2|m\^3|GB"
_PER_WORD = "second|minute|hour|day|night|week|month|year|person"
_EQUALS = r"(?=[0-9.]{1,15}(?:\s?[-+*/x\u2013\u00d7]\s?[0-9.]{1,15}){0,5}\s?=)"
_SIGNED = rf"((?<![\w)])-)?({NUMBER})"
_OF = (
    "page|step|part|level|disk|disc|task|chapter|episode|lesson|item|file|lap|round|stage|phase|day|week|question|"
    "slide|zone"
)
_OUT_OF = "rated|rating|score|scored|review"
_TEMPERATURE_CUE = (
    "is|at|to|of|below|above|under|over|about|around|outside|inside|than|like|low|high|min|max|temp|temperature"
)
_THINGS = (
    "adapter|battery|bulb|charger|clock|delay|display|forecast|format|meeting|monitor|outlet|screen|session|shift|timer|"
    "trial|TV|video|warning"
)
"""A unit before one of these is in the singular, as in the names of things."""
_PLAIN_FRACTIONS = frozenset({2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 32, 64})


def _money(match: Match[str]) -> str:
    minus, sign, amount, letter, word = match.groups()
    below = minus or sign.endswith("-")
    words = _amount(sign.rstrip("- "), amount, SCALES.get(letter or word or ""))
    following = match.string[match.end() : match.end() + 2]
    if re.match("-[a-z]", following):
        words = words.removesuffix("s")  # a $5-a-day plan
    words += " " * following[:1].isalpha()
    return ("minus " if below else "") + words


def _money_after(match: Match[str]) -> str:
    return ("minus " if match[1] else "") + _amount(match[4], match[2], SCALES.get(match[3] or ""))


def _amount(sign: str, amount: str, scale: str | None) -> str:
    one, many, cent, cents = CURRENCIES[sign]
    whole, decimals = split_number(amount)
    if scale:
        return f"{number(amount)} {scale} {many}"
    if len(decimals) not in (1, 2) or not cent:
        return f"{number(amount)} {one if is_one(amount) else many}"
    parts = decimals.ljust(2, "0").lstrip("0")
    units = [f"{cardinal(whole)} {one if is_one(whole) else many}"] if whole.strip("0") or not parts else []
    units += [f"{cardinal(parts)} {cent if is_one(parts) else cents}"] if parts else []
    return " and ".join(units)


def _measure(match: Match[str]) -> str:
    minus, amount, gap, symbol = match.groups()
    if (len(symbol) == 1 and gap == "-") or (symbol in "CF" and not gap and not _is_temperature(match)):
        return match[0]  # a code such as 5-A
    words = UNITS.get(symbol) or _FOLDED_UNITS.get(symbol.lower())
    if words is None:
        return match[0]
    one = is_one(amount) or gap == "-" or _before_a_thing(match)  # a 5-km run
    return f"{'minus ' if minus else ''}{number(amount)} {words[0] if one else words[1]}"


def _before_a_thing(match: Match[str]) -> bool:
    """Whether it says what something is like: a 10 min delay, a 12V battery."""
    return bool(re.match(rf"\s(?:{_THINGS})s?\b", match.string[match.end() : match.end() + 12]))


def _is_temperature(match: Match[str]) -> bool:
    """Whether 21C is one, and not a code: it has decimals, a sign, two or three digits, or words that say so."""
    before = match.string[max(0, match.start() - 14) : match.start()]
    after = match.string[match.end() : match.end() + 10]
    cued = re.search(rf"(?i)\b(?:{_TEMPERATURE_CUE}):?\s$", before) or re.match(r"\s(?:out|in)side\b", after)
    return bool(match[1] or cued or not match[2].isdigit() or len(match[2]) in (2, 3))


def _hours_minutes(match: Match[str]) -> str:
    names = ("hour", "minute") if match[2].lower() == "h" else ("minute", "second")
    first, second = (cardinal(str(int(digits))) for digits in (match[1], match[3]))
    return f"{first} {names[0]}{'' if first == 'one' else 's'} {second} {names[1]}{'' if second == 'one' else 's'}"


def _days(match: Match[str]) -> str:
    return f"{cardinal(match[1])} day{'s' * (match[1] != '1')}"


def _feet_inches(match: Match[str]) -> str:
    return f"{cardinal(match[1])} {UNITS['ft'][match[1] != '1']} {cardinal(match[2])} inch{'es' * (match[2] != '1')}"


def _signed(match: Match[str]) -> str:
    return f"{'minus ' if match[1] else ''}{number(match[2])}"


def _inches(match: Match[str]) -> str:
    return f"{_signed(match)} inch{'es' * (not (is_one(match[2]) or _before_a_thing(match)))}"


def _inch_mark(match: Match[str]) -> str:
    before = match.string[max(0, match.start() - 200) : match.start()]
    num_open = len(re.findall(r'(?<!\S)"(?=\S)', before)) - len(re.findall(r'(?<=[^\s0-9])"', before))
    return match[0] if num_open > 0 else _inches(match)  # "the code is 12" has no inches


def _pence(match: Match[str]) -> str:
    return f"{_signed(match)} {'penny' if is_one(match[2]) else 'pence'}"


def _noon(match: Match[str]) -> str:
    return f"{match[1]} to " if match[1] else f" to {match[2]}"


def _scaled(match: Match[str]) -> str:
    return f"{_signed(match)} {SCALES[match[3]]}"


def _share(match: Match[str]) -> str:
    """3 of 12, 4 out of 5 stars; or the fraction it is. The second number is left for its unit."""
    cue, first, second, stars = match.groups()
    whole = first.isdigit() and second.isdigit()
    if float(first) > float(second) or (not cue and not stars and whole and _is_fraction(int(first), int(second))):
        return match[0]
    out_of = stars or re.match(f"(?i){_OUT_OF}", cue or "") or (not cue and (not whole or first == second))
    return f"{cue or ''}{number(first)} {'out ' if out_of else ''}of {second}"


def _is_fraction(numerator: int, denominator: int) -> bool:
    if denominator > 10 and numerator % 2 == 0:
        return False
    return 0 < numerator < denominator and (denominator in _PLAIN_FRACTIONS or (numerator, denominator) == (1, 100))


def _fraction(match: Match[str]) -> str:
    whole, numerator, denominator, symbol = match.groups()
    words = _parts(whole, numerator, denominator)
    if symbol is None:
        return words
    one, many = UNITS[symbol]
    if not _is_fraction(int(numerator), int(denominator)):
        return f"{words} {many}"
    if whole or numerator == "1":
        return f"{words} {many if whole else one}"
    return f"{words} of {'an' if one[0] in 'aeiou' or one == 'hour' else 'a'} {one}"


def _parts(whole: str | None, numerator: str, denominator: str) -> str:
    if not _is_fraction(int(numerator), int(denominator)):
        words = f"{cardinal(numerator)} over {cardinal(denominator)}"
        return f"{cardinal(whole)}, {words}" if whole else words
    return f"{cardinal(whole)} and {fraction(numerator, denominator)}" if whole else fraction(numerator, denominator)


def _clocks(match: Match[str]) -> str:
    """Two times on the clock of 24 hours: where one shows that, both say which half of the day they are in."""
    hours = [int(match[1]), int(match[3])]
    if all(0 < hour < 13 for hour in hours):
        return f"{match[1]}:{match[2]} to {match[3]}:{match[4]}"
    halves = ["PM" if 12 <= hour < 24 else "AM" for hour in hours]
    first, second = (str((hour - 1) % 12 + 1) for hour in hours)
    return f"{first}:{match[2]} {halves[0]} to {second}:{match[4]} {halves[1]}"


WRITING_RULES: list[Rule] = [
    # other ways to write the same number
    (
        r"(?<![\w.,])([0-9]{1,3}(?:\.[0-9]{3}){1,4}),([0-9]{1,2})(?![0-9])",
        lambda match: f"{match[1].replace('.', '')}.{match[2]}",
    ),
    (rf"({_SIGNS})\.(?=[0-9])", r"\g<1>0."),
]

GROUP_RULES: list[Rule] = [
    (
        (
            r"(?<![\w.,:/])(?<![0-9]\s)(?:[1-9][0-9]{0,2}(?:\s[0-9]{3}){0,3}\s000|[1-9][0-9]?(?:\s[0-9]{3}){2,4})"
            r"(?!\s?[0-9])"
        ),
        lambda match: re.sub(r"\s", "", match[0]),
    ),
]

RANGE_RULES: list[Rule] = [
    (rf"(?<=[0-9])\s?[-\u2013]\s?{_EQUALS}", " minus "),
    (rf"(?<=[0-9])\s?/\s?{_EQUALS}", " divided by "),
    (rf"(?i)\b(between\s{_SIGNS}?{_SHORT})\s?[-\u2013]\s?(?={_SIGNS}?{_SHORT})", r"\1 and "),
    # $20-$30: the sign goes with the second
    (rf"({_SIGNS})([0-9]{{1,7}})\s?[-\u2013]\s?(?:\1\s?)?(?=[0-9])", r"\2 to \1"),
    (rf"({_SIGNS})({_SHORT})\s?[-\u2013]\s?(?:\1\s?)?(?={_SHORT}{_SCALED})", r"\2 to \1"),
    (rf"({_SIGNS})({_SHORT})\s?[-\u2013]\s?(?:\1\s?)?(?=[0-9])", r"\1\2 to \1"),
    (
        r"(?i)\b(noon|midnight)\s?[-\u2013]\s?(?=[0-9])|(?:(?<=[0-9])|(?<=[ap]m)|(?<=m\.))\s?[-\u2013]\s?(noon|midnight)\b",
        _noon,
    ),
    (rf"{_CLOCK}\s?(?:[-\u2013]|\b(?:to|until|till)\b)\s?{_CLOCK}(?!\s?[AaPp]\.?[Mm]|[:\w])", _clocks),
    # the second half keeps its unit
    (
        (rf"(?<![\w.,:/-])(-?{_SHORT})\s?({UNIT}|{_SIGNS})\s?[-\u2013]\s?(?=-?{_SHORT}\s?\2(?!\w))"),
        r"\1 to ",
    ),
    (
        (
            rf"(?<![\w.,:/-])(-?{_SIGNS}?{_SHORT}(?:\s?(?:[ap]\.?m\.?|%|°[CF]?))?)\s?[-\u2013]\s?"
            rf"(?=(?:(?<=\u2013)-|(?<=\u2013\s)-)?{_SIGNS}?{_SHORT}(?!\w{{0,20}}[-\u2013]\w|/))"
        ),
        r"\1 to ",
    ),
    (rf"(?<=[0-9])\s?[x\u00d7]\s?{_EQUALS}", " times "),
    (r"(?<=[0-9])\s?[x\u00d7]\s?(?=[0-9.,]{1,7}\s?(?:mc?g|g|kg|m[lL]|[lL]|oz)\b)", " times "),  # not a size
    (r"(?<![\w.,])([0-9]{1,3})'\s?[x\u00d7]\s?([0-9]{1,3})'(?!\w)", r"\1 by \2 ft"),
    (r"(?<=[0-9])(\s?(?:[cm]?m|ft|in\.?))\s?[x\u00d7]\s?(?=[0-9])", r"\1 by "),
    (r"(?<=[0-9])[x\u00d7]\s(?=[0-9])", " times "),
    (r"(?<=[0-9])\s?[x\u00d7]\s?(?=[0-9])", " by "),
]

AMOUNT_RULES: list[Rule] = [
    (rf"(?<![\w)])(-)?({_SIGNS}-?|\b{_CODES}\s)\s?({LOOSE_NUMBER}){_SCALE}(?:(?<=[0-9])p\b)?", _money),
    (rf"(?<![\w.,])((?<![\w)])-)?({LOOSE_NUMBER})(?:\s?(k|M|bn))?\s?({_AFTER})", _money_after),
    (r"(?<![\w.,])((?<![\w)])-)?([0-9]{1,2}(?:\.[0-9]{1,3})?)p\b", _pence),
    (
        rf"(?<![\w.,]){_SIGNED}\s?(?:¢|ct(?=/[kM]Wh))",
        lambda match: f"{_signed(match)} cent{'s' * (not is_one(match[2]))}",
    ),
    (r"(?<![\w.,])([0-9]{1,2})(?:\s?ft\.?|')\s?([0-9]{1,2})\s?(?:in\b\.?|\")", _feet_inches),
    (rf"(?<![\w.,/]){_SIGNED}\"(?!\w)", _inch_mark),
    (rf"(?<![\w.,/]){_SIGNED}in\b", _inches),
    (rf"(?<![\w.,/]){_SIGNED}\s(?:in\.(?=\s(?:[a-z]|\Z))|in\b(?=\sof\b|\.?\s?\Z))", _inches),
    (r"(?<=[0-9]/[0-9])\"(?!\w)|(?<=[0-9]/[0-9]{2})\"(?!\w)", " inch"),
    (r"(?<![\w.,])([0-9]{1,2})\s?m(?=\s(?:ago|left|remaining)\b)", r"\1 min"),
    (r"(?<![\w.,])([0-9]{1,4})\s?d(?=\s(?:[0-9]{1,2}\s?h|ago\b|left\b|remaining\b))", _days),
    (r"(?i)(?<![\w.,:])([0-9]{1,4})\s?(h)\s?([0-9]{1,2})\s?m(?:in)?\b", _hours_minutes),
    (r"(?i)(?<![\w.,:])([0-9]{1,4})\s?(m)(?:in)?\s?([0-9]{1,2})\s?s(?:ec)?\b", _hours_minutes),
    (
        (
            rf"(?<![\w.,/])((?i:(?:{_OF}|{_OUT_OF})(?:\sis)?[\s:]\s?))?([0-9]{{1,5}}(?:\.[0-9]{{1,2}})?)/"
            r"([0-9]{1,5}(?:\.[0-9]{1,2})?)(?![0-9/]|[.,][0-9])(?=(\s(?:stars?|points?)\b)?)"
        ),
        _share,
    ),
    (r"(?<![\w.,/-])([0-9]{1,3})-(?=(?:1/(?:[2-9]|16)|2/[35]|3/[458]|4/5|5/[68]|7/8)(?![\w/]))", r"\1 "),
    (
        rf"(?<![\w.,/])(?:([0-9]{{1,4}})\s)?([0-9]{{1,3}})/([0-9]{{1,3}})(?![\w/]|\.[0-9])(?:\s?({UNIT})(?![\w/]))?",
        _fraction,
    ),
    (r"(?<=[A-Za-z])/(?=[0-9]{1,3}\s?(?:km|m[lL]|[lL]|k?g)\b)", " per "),
    (r"(?:(?<=[0-9°][CF])|(?<=[°%]))\s?/\s?(?=-?[0-9])", ", "),
    (
        (
            rf"(?<![\w.,])((?<![\w)])-)?({LOOSE_NUMBER})([\s-]?)((?i:{UNIT}))"
            rf"(?![\w^]|'s|/(?!(?:{_PER_UNIT}|{_PER_WORD})\b)[a-z])(?:\.(?=\s{{1,3}}(?:[a-z]|[0-9]{{1,2}}\s(?:min|sec|oz)\b)))?"
        ),
        _measure,
    ),
    (r"(?<![\w.,])((?<![\w)])-)?([0-9]{1,15}\.[0-9]{1,15}|[0-9]{2,3})(M|bn)\b", _scaled),
    (r"(?<![\w.,])((?<![\w)])-)?([0-9]{1,15}\.[0-9]{1,15})(k|K|B)\b", _scaled),
    (r"(?<![\w.,])(-)?([1-9][0-9]{0,2})(k)(?=\s(?!runs|races)(?:[a-z]{2,20}s|people)\b)", _scaled),
    (r"(?<![\w.,])([1-9][0-9]{3,4})\s?K(?![\w-])", lambda match: f"{cardinal(match[1])} kelvin"),  # of a lamp
    (rf"(?<![\w.,]){_SIGNED}x(?![\w-])", lambda match: f"{_signed(match)} times"),
    (
        rf"(?<=[a-z0-9])/({_PER_UNIT})(?!\w)",
        lambda match: " per " + ("day" if match[1] == "d" else UNITS[match[1]][0]),
    ),
    (rf"(?<=[a-z0-9])/(?=(?:{_PER_WORD})\b)", " per "),
    (rf"(?<=\bper\s)({'|'.join(_WORDLIKE)})\b", lambda match: UNITS[match[1]][0]),
    (
        r"(\bdegrees?|°)\s?([CF])\b",
        lambda match: f"{match[1].replace('°', ' degrees')} {'Celsius' if match[2] == 'C' else 'Fahrenheit'}",
    ),
]
