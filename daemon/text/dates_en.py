"""English rules for dates and clock times.

Times are read on the twelve-hour clock: 7:30 is "seven thirty", 07:05 "seven oh five", 7:00 "seven o'clock", 19:30 and
7:30 pm "seven thirty P M", 00:00 "midnight". Hours below thirteen without a.m. or p.m. get neither.
"""

from re import Match

from daemon.text.numbers_en import UNIT, cardinal, looks_like_year, number, ordinal, year
from daemon.text.rule import Rule
from daemon.text.tables_en import MONTHS, WEEKDAYS, ZONES

_MONTH = (
    r"(?:(?i:jan(?:uary)?|feb(?:ruary)?|apr(?:il)?|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?"
    r"|dec(?:ember)?)|M(?:ay|AY|ar|AR|arch|ARCH))\b"  # in lower case, may and march are rather verbs
)
_ST = r"(?:st|nd|rd|th)?"
_YEAR_CUE = (
    r"in|since|of|by|from|until|till|before|after|during|year|circa|through|around|early|late|mid|spring|summer|autumn|"
    r"fall|winter|Christmas|Easter|copyright|Q[1-4]|H[12]|FY|Cup|Olympics|Expo"
)


_DAY = r"(?i:Mon|Tue(?:s)?|Wed(?:nes)?|Thu(?:rs?)?|Fri|Sat(?:ur)?|Sun)(?i:day)?\b"
_AM_PM = rf"(?:\s?([AaPp])(?:\.\s?[Mm](?:\.(?!\s{{1,3}}(?!(?:{ZONES})\b|{_DAY}|{_MONTH})[A-Z]))?|[Mm])(?![A-Za-z]))"
_HMS = r"([0-9]{1,3}):([0-5][0-9]):([0-5][0-9])(?![\w:]|\.[0-9])"


def _month(name: str) -> str:
    return MONTHS[name[:3].lower()]


def _date(month: int, day: str, year_digits: str | None) -> str | None:
    if not (1 <= month <= 12 and 1 <= int(day) <= 31):
        return None
    words = f"{list(MONTHS.values())[month - 1]} {ordinal(day)}"
    return f"{words}, {year(year_digits)}" if year_digits else words


def _whole_year(digits: str) -> str:
    """The year 99 is over, 26 is not."""
    return ("19" if digits >= "70" else "20") + digits if len(digits) == 2 else digits


def say_date(*, y: str = "", m: str = "", d: str = "") -> str:
    """A date of which the parts are known.

    Raises:
        ValueError: there is no such month or day.
    """
    if (m and not 1 <= int(m) <= 12) or (d and not 1 <= int(d) <= 31):
        raise ValueError("there is no such date")
    month = list(MONTHS.values())[int(m) - 1] if m else ""
    y = _whole_year(y)
    words = f"{month} {ordinal(d)}".strip() if d else month
    return f"{words}{', ' if d and words else ' '}{year(y)}".strip() if y else words


def _iso_date(match: Match[str]) -> str:
    words = _date(int(match[2]), match[3], match[1])
    if words is None:
        return match[0]
    return f" {words}, {match[4]} " if match[4] else f" {words} "


def _slash_date(match: Match[str]) -> str:
    first, second, digits = match.groups()
    digits = _whole_year(digits)
    # the American order, unless it cannot be
    month, day = (second, first) if int(first) > 12 else (first, second)
    return _date(int(month), day, digits) or match[0]


def _dotted_date(match: Match[str]) -> str:
    return _date(int(match[2]), match[1], match[3]) or match[0]


def _cued_date(match: Match[str]) -> str:
    words = _date(int(match[2]), match[3], None)
    return f"{match[1]} {words}" if words else match[0]


def _two_dates(match: Match[str]) -> str:
    """11/24-11/30; two fractions are none, and two small numbers without a word before them need not be."""
    cue, *numbers = match[1] or "", *match.group(2, 3, 5, 6)
    first, second = (_date(int(month), day, None) for month, day in (numbers[:2], numbers[2:]))
    if not (first and second) or not (cue or max(int(numbers[1]), int(numbers[3])) > 12):
        return match[0]
    if {int(numbers[1]), int(numbers[3])} <= {2, 3, 4, 8, 16}:
        return match[0]
    return f"{cue}{first} {match[4].strip() if match[4].strip().isalpha() else 'to'} {second}"


def _month_day(match: Match[str]) -> str:
    name, first, last, digits = match.groups()
    words = _date(list(MONTHS).index(name[:3].lower()) + 1, first, None)
    if words is None or (last and not 1 <= int(last) <= 31):
        return match[0]
    words += f" to {ordinal(last)}" if last else ""
    return f"{words}, {year(digits)}" if digits else words


def _day_month(match: Match[str]) -> str:
    day, name, digits = match.groups()
    if not 1 <= int(day) <= 31:
        return match[0]
    words = f"the {ordinal(day)} of {_month(name)}"
    return f"{words}, {year(digits)}" if digits else words


def _month_year(match: Match[str]) -> str:
    return f"{_month(match[1])} {year(match[2])}"


def _days(match: Match[str]) -> str:
    return f"{WEEKDAYS[match[1][:3].lower()]} to {WEEKDAYS[match[2][:3].lower()]}"


def _weekend(match: Match[str]) -> str:
    return f"Saturday{match[2]}Sunday"


def _months(match: Match[str]) -> str:
    return f"{_month(match[1])} to {_month(match[2])}"


def _cued_year(match: Match[str]) -> str:
    return match[1] + (year(match[2]) if looks_like_year(match[2]) else match[2])


def _decade(match: Match[str]) -> str:
    words = year(match[1]) if len(match[1]) == 4 else cardinal(match[1])
    return words[:-1] + "ies" if words.endswith("y") else words + "s"


def _cued_decade(match: Match[str]) -> str:
    return match[1].replace("-", " ") + cardinal(match[2])[:-1] + "ies"


def _years(match: Match[str]) -> str:
    first, last = match.groups()
    if not (looks_like_year(first) and looks_like_year(last) and first < last):
        return match[0]
    return f"{year(first)} to {year(last)}"


def _two_years(match: Match[str]) -> str:
    cue, first, word, last = match.groups()
    return f"{cue}{year(first)}{word}{year(last)}" if looks_like_year(first) and looks_like_year(last) else match[0]


def _short_years(match: Match[str]) -> str:
    cue, first, last = match.groups()
    ends_later = looks_like_year(first) and first[2:] < last
    return (
        f"{cue}{year(first)} to {cardinal(last) if last[0] != '0' else 'oh ' + cardinal(last[1])}"
        if ends_later
        else match[0]
    )


def _era(match: Match[str]) -> str:
    words = year(match[1]) if len(match[1]) == 4 else cardinal(match[1])
    return f"{words} {' '.join(match[2])}"


def _number_month(match: Match[str]) -> str:
    return f"{list(MONTHS.values())[int(match[1]) - 1]} {year(match[2])}"


def _clock(match: Match[str]) -> str:
    hour, minute, second, half = int(match[1]), match[2], match[3], match[4]
    if hour in (0, 24) and minute == "00" and not (half or (second or "00") != "00"):
        return "midnight"
    mark = f" {half.upper()} M" if half else " P M" if 13 <= hour < 24 else " A M" if hour in (0, 24) else ""
    words = cardinal(str((hour - 1) % 12 + 1))
    if minute != "00":
        words += f" oh {cardinal(minute[1])}" if minute[0] == "0" else f" {cardinal(minute)}"
    elif not mark:
        words += " o'clock"
    if second and second != "00":
        seconds = cardinal(str(int(second)))
        words += f" and {seconds} second" + ("" if seconds == "one" else "s")
    return words + mark


def _duration(match: Match[str]) -> str:
    counts = zip(match.groups()[1:], ("hour", "minute", "second"), strict=True)
    parts = [f"{cardinal(str(int(count)))} {name}{'s' * (int(count) != 1)}" for count, name in counts if int(count)]
    return match[1] + (" ".join(parts) or "zero seconds")


def _lap(match: Match[str]) -> str:
    minutes = cardinal(str(int(match[1])))
    return f"{minutes} minute{'s' * (minutes != 'one')} {number(match[2].removeprefix('0'))} seconds"


def _hour(match: Match[str]) -> str:
    return f"{cardinal(str(int(match[1])))} {match[2].upper()} M"


def _days_month(match: Match[str]) -> str:
    first, last, name = match.groups()
    if not 1 <= int(first) < int(last) <= 31:
        return match[0]
    return f"the {ordinal(first)} to the {ordinal(last)} of {_month(name)}"


DATE_RULES: list[Rule] = [
    (rf"\b({_MONTH}\.?\s[0-9]{{1,2}}{_ST})\s?[-\u2013]\s?(?={_MONTH}\.?\s[0-9])", r"\1 to "),
    (rf"(?<![\w:.,/-])([0-9]{{1,2}}){_ST}\s?[-\u2013]\s?([0-9]{{1,2}}){_ST}\s({_MONTH})\.?", _days_month),
    (rf"\b({_DAY})\.?\s?[-\u2013]\s?({_DAY})(?:\.(?=\s[0-9a-z]))?", _days),
    (r"\b(Sat)\.?(\s?(?:and|or|&|/)\s?)(Sun)\b(?:\.(?!\s[A-Z]))?", _weekend),
    (rf"\b({_MONTH})\.?\s?[-\u2013]\s?({_MONTH})(?:\.(?=\s[0-9a-z]))?", _months),
    (
        rf"\b(Mon|Tues?|Wed|Thu(?:rs)?|Fri|Sat|Sun)\b\.?(,)?(?=\s(?:[0-9]|{_MONTH}))",
        lambda match: WEEKDAYS[match[1][:3].lower()] + (match[2] or ""),
    ),
    (
        (
            r"(?<![\w.-])([0-9]{4})-([0-9]{2})-([0-9]{2})(?:[T\s]([0-9]{2}:[0-9]{2})(?::[0-9]{2}(?:\.[0-9]{1,9})?)?"
            r"(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?(?![\w-])"
        ),
        _iso_date,
    ),
    (r"(?<![\w/.])([0-9]{1,2})/([0-9]{1,2})/([0-9]{4}|[0-9]{2})(?![\w/])", _slash_date),
    (r"(?<![\w/.])([0-9]{1,2})\.([0-9]{1,2})\.([0-9]{4})(?![\w/]|\.[0-9])", _dotted_date),
    (
        (
            r"(?i)(?<![\w/.])((?:from|between)\s)?([0-9]{1,2})/([0-9]{1,2})(\s?[-\u2013]\s?|\s(?:to|and|until|through)\s)"
            r"([0-9]{1,2})/([0-9]{1,2})(?![\w/\"]|\sinch)"
        ),
        _two_dates,
    ),
    (
        (
            rf"(?i)\b(on|by|since|until|before|after|from|due|expires|arriving|{'|'.join(WEEKDAYS.values())}),?\s"
            r"([0-9]{1,2})/([0-9]{1,2})(?![\w/])"
        ),
        _cued_date,
    ),
    (r"\bM\s?[-\u2013]\s?F\b(?=[:,]?\s[0-9])", "Monday to Friday"),
    (
        (
            rf"\b({_MONTH})\.?\s{{0,2}}([0-9]{{1,2}}){_ST}(?:\s?[-\u2013]\s?([0-9]{{1,2}}){_ST})?"
            r"(?:,?\s{1,2}([0-9]{4})\b)?(?![\w%°]|[:.,/][0-9])"
        ),
        _month_day,
    ),
    (
        rf"\b(?:[Tt]he\s)?(?<![\w:.,/-])([0-9]{{1,2}}){_ST}(?:\sof)?\s({_MONTH})\.?(?:,?\s([0-9]{{4}})\b)?",
        _day_month,
    ),
    (rf"\b({_MONTH})\.?,?\s([0-9]{{4}})\b(?![:.,][0-9])", _month_year),
]

YEAR_RULES: list[Rule] = [
    (r"(?<![\w.,])([12][0-9]{2}0'?s)\s?[-\u2013]\s?(?=[12][0-9]{2}0'?s\b)", r"\1 to "),
    (rf"(?<![\w:.,])([01]?[0-9]|2[0-4])\.(?=[0-5][0-9](?:\s?[-\u2013]\s?[0-9]{{1,2}}[.:][0-5][0-9])?{_AM_PM})", r"\1:"),
    (
        rf"(?<![\w.,/-])([0-9]{{4}})(?:\s?[-\u2013]\s?|\sto\s)([0-9]{{4}})(?![\w/-]|[.,][0-9]|\s?{UNIT}(?!\w))",
        _years,
    ),
    (r"(?<![\w.,:/-])([0-9]{1,4})\s(AD|BCE?|CE)\b", _era),
    (r"(?<![\w.,:/-])(0[1-9]|1[0-2])/((?:19|20)[0-9]{2})(?![\w/-]|[.,][0-9])", _number_month),
    (r"(?<![\w.,:/-])(0[1-9])\.((?:19|20)[0-9]{2})(?![\w/-]|[.,][0-9])", _number_month),
    (rf"\b((?i:{_YEAR_CUE})\s)([0-9]{{4}})[-\u2013]([0-9]{{2}})(?![\w/-]|[.,:][0-9])", _short_years),
    (
        rf"\b((?i:{_YEAR_CUE})\s)([0-9]{{4}})(,\s|\s(?:and|or)\s)([0-9]{{4}})(?![\w]|[.,:/-][0-9]|\s?{UNIT}(?!\w))",
        _two_years,
    ),
    (rf"\b((?i:{_YEAR_CUE})\s)([0-9]{{4}})(?![\w]|[.,:/-][0-9]|\s?{UNIT}(?!\w))", _cued_year),
    (r"(?<![\w.,])([12][0-9]{2}0)'?s\b", _decade),
    (r"(?i)\b((?:low|lower|mid|upper|high|early|late|their|his|her)[\s-])([2-9]0)'?s\b", _cued_decade),
    (r"(?:(?<=\b[Tt]he )'?|(?<!\w)')([2-9]0)'?s\b", _decade),
]

TIME_RULES: list[Rule] = [
    (
        rf"(?i)\b((?:timer|countdown|in|for|within|every|elapsed|lasts|lasted|takes|took|uptime|duration|remaining|after(?=\s00:))(?:\sis)?:?\s){_HMS}",
        _duration,
    ),
    (r"(?<![\w:.])([0-9]{1,2}):([0-5][0-9]\.[0-9]{1,3})(?![\w:]|\.[0-9])", _lap),
    (rf"(?i)(?<![\w:.])(){_HMS}(?=\s(?:left|remaining|remain|elapsed|ago|to\sgo)\b)", _duration),
    (
        (
            r"(?<![\w:.])([01]?[0-9]|2[0-4]):([0-5][0-9])(?::([0-5][0-9])(?:\.[0-9]{1,6})?)?"
            rf"{_AM_PM}?(?![0-9]|:[0-9])"
        ),
        _clock,
    ),
    (rf"(?<![\w:.])(0?[1-9]|1[0-2]){_AM_PM}", _hour),
]
