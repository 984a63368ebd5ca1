"""English: the ordered table of rules (pattern -> words). Another language is one more such module.

Every rule works on what the earlier ones left, so that the order is part of the meaning: what is most specific comes
first. No pattern may take more than a bounded number of characters per start, or backtrack over an unbounded run.
"""

import re
from collections.abc import Iterable
from re import Match

from daemon.text.amounts_en import AMOUNT_RULES, GROUP_RULES, RANGE_RULES, WRITING_RULES
from daemon.text.capitals_en import CAPITAL_RULES, DOTTED_RULES, INITIAL_RULES
from daemon.text.dates_en import DATE_RULES, TIME_RULES, YEAR_RULES
from daemon.text.language import compile_rules
from daemon.text.names_en import ADDRESS_RULES, CODE_RULES
from daemon.text.numbers_en import NUMBER, cardinal, number, ordinal, short_code, spell
from daemon.text.roman_en import ROMAN_RULES
from daemon.text.rule import Rule
from daemon.text.tables_en import (
    ABBREVIATIONS,
    BEFORE_NUMBER,
    CALENDAR,
    COMPASS,
    DRIVE,
    MAY_END,
    RANKS,
    ROADS,
    SHORT_FORMS,
    STREET,
    SYMBOLS,
    TITLES,
    UNDOTTED,
)


def _any_of(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


_CASED = rf"(?i:{_any_of(word for word in BEFORE_NUMBER if len(word) > 1)})"


_ROAD_NAMES = {"St": "street", "Dr": "drive"}


def _code(match: Match[str]) -> str:
    words = []
    for part in re.findall(r"[A-Za-z]+|[0-9]+", match[0]):
        if part.isdigit():
            a_word_follows = re.search(r"[a-z]{3}$", match[0])  # 100-meter, but not 100b
            words.append(cardinal(part) if a_word_follows else short_code(part))
        else:
            plain = len(part) > 2 and re.search("[aeiouyAEIOUY]", part)
            words.append(part if plain else " ".join(part.upper()))
    return " ".join(words)


def _number(match: Match[str]) -> str:
    return f" {'minus ' if match[1] else ''}{number(match[2])} "


def _title(match: Match[str]) -> str:
    return TITLES[match[1].lower()]


def _before_number(match: Match[str]) -> str:
    return BEFORE_NUMBER[match[1].lower()] + " "


def _undotted(match: Match[str]) -> str:
    word = match[1].lower()
    return (BEFORE_NUMBER.get(word) or ABBREVIATIONS[word]) + " "


def _road(match: Match[str]) -> str:
    return ABBREVIATIONS[match[1].lower()]


def _abbreviation(match: Match[str]) -> str:
    """The dot stays where it may have ended a sentence too."""
    words = ABBREVIATIONS[match[1].lower()]
    following = re.match(r"\s([A-Z][a-z]{0,9})", match.string[match.end() : match.end() + 12])
    ends = match[1].lower() in MAY_END and following and (words.islower() or following[1].lower() not in CALENDAR)
    return words + ("." if ends else "")


def _symbol(match: Match[str]) -> str:
    if len(match[0]) > 2:
        return " "  # ===== is a line, not arithmetic
    return f" {' '.join(SYMBOLS[char] for char in match[0])} "


COMPARISON_RULES: list[Rule] = [
    (r"!=", " not equal to "),
    (r"(?<=[\w)])\s?[-=]>\s?(?=[\w(])", " to "),
    (r"(?<![<>=])(?:<=|\u2264)(?![<>=])", " at most "),
    (r"(?<![<>=])(?:>=|\u2265)(?![<>=])", " at least "),
    (r"(?<=\w)\s>\s(?=[A-Z][a-z])", ", "),  # Settings > System
    (r"(?<![<>=-])<(?![<>=])(?=\s?[-$£€.]?[0-9])|(?<=\w)\s?<\s?(?=\w)", " less than "),
    (r"(?<![<>=-])>(?![<>=])(?=\s?[-$£€.]?[0-9])|(?<=\w)\s?>\s?(?=\w)", " more than "),
]

PLACE_RULES: list[Rule] = [
    (rf"{DRIVE}\b(\.?)(?=\s[A-Z]|\s?$)", r"\1drive\2"),
    (rf"{DRIVE}\b\.?", r"\1drive"),
    (
        rf"(?<![\w.])([NSEW])\.(?=\s\w{{1,30}}\s(?:St|Dr|Street|Avenue|Road|Drive|{ROADS})\b)",
        lambda match: COMPASS[match[1]],
    ),
    (
        rf"(?<=[0-9]\s)([NSEW]{{1,2}})\b\.?(?=\s\w{{1,30}}\s(?:St|Dr|Street|Avenue|Road|Drive|{ROADS})\b)",
        lambda match: COMPASS.get(match[1], match[0]),
    ),
    (
        r"\b((?i:winds?|gusts?|heading|blowing)(?:\sis|\sare)?(?:\sfrom)?(?:\sthe)?:?\s)([NESW]{1,3})\b",
        lambda match: match[1] + COMPASS.get(match[2], match[2]),
    ),
    (
        r"\b(from\s(?:the\s)?)([NS][EW]|[NS]N[EW]|[NS]S[EW]|[EW][NS][EW])\b",
        lambda match: match[1] + COMPASS.get(match[2], match[2]),
    ),
    (
        rf"(?<=\w\s)(St|Dr|Street|Avenue|Road|Drive|{ROADS})\b\.?\s([NS][EW]?|[EW])\b(?!'|\.(?!\s?\Z))",
        lambda match: f"{ABBREVIATIONS.get(match[1].lower(), _ROAD_NAMES.get(match[1], match[1]))} {COMPASS[match[2]]}",
    ),
    (r"(?<=[0-9](?:st|nd|rd|th)\s)[Ff]l\b\.?", "floor"),
    (r"\bMt\b\.?(?=\s[A-Z])", "Mount"),
    (r"\bFt\b\.?(?=\s[A-Z])", "Fort"),
]

_TABLE: list[Rule] = [
    *ADDRESS_RULES,
    (rf"(?<![\w.])(?<![0-9]\s)({_CASED}|[cp])\.\s?(?=[0-9])", _before_number),
    (rf"(?<![\w.])({UNDOTTED})\s(?=[0-9])", _undotted),
    *PLACE_RULES,
    *ROMAN_RULES,
    *INITIAL_RULES,
    *COMPARISON_RULES,
    *WRITING_RULES,
    *DATE_RULES,
    *CODE_RULES,
    *GROUP_RULES,
    *YEAR_RULES,
    # ranges before what they are ranges of
    *RANGE_RULES,
    *TIME_RULES,
    *AMOUNT_RULES,
    (rf"{STREET}\b(\.?)(?=\s[A-Z])", r"\1street\2"),
    (
        r"(?<![\w.])([0-9]{1,3}(?:,[0-9]{3}){1,4}|[0-9]{1,15})(?:st|nd|rd|th)\b",
        lambda m: ordinal(m[1].replace(",", "")),
    ),
    # abbreviations
    (r"(?:#\s?(?=[0-9]|(?:zero|one|two|three|four|five|six|seven|eight|nine)\b))", "number "),
    (rf"(?i)(?<![\w.])({_any_of(TITLES)})\b(?:\.|(?-i:(?=\s[A-Z])))", _title),
    (rf"(?<![\w.])({_any_of(rank.title() for rank in RANKS)})\.(?=\s[A-Z])", lambda match: RANKS[match[1].lower()]),
    (r"\bSt\b\.?(?=\s[A-Z])", "saint"),
    (r"\bSt\b\.?", "street"),
    (rf"(?i)(?<![\w.])({_any_of(ABBREVIATIONS)})\.(?!\w)", _abbreviation),
    (rf"(?<=\w\s)({ROADS})\b(?!\.)", _road),
    (r"(?i)(?<![\w.])vs(?![\w.])", "versus"),
    (r"\bPh\.?D\b\.?", "P H D"),
    (r"\bpH\b", "P H"),
    (rf"\b({_any_of(SHORT_FORMS)})\b", lambda match: SHORT_FORMS[match[1]]),
    (r"(?i)\bw/o\b", "without"),
    (r"(?i)\bw/(?=\s?[a-z])", "with "),
    (r"(?<!\w)\$(?=[A-Z]{2,5}\b)", ""),  # $GME is a share
    (r"(?i)\b(?:ok\b|o\.k\b\.?)", "okay"),
    (r"\b([A-G])#(?!\w)", r"\1 sharp"),
    # what is left of digits
    (r"\bPM(?=[0-9])", "P M "),
    (r"((?<![\w)])-)?(?<![\w.,])([0-9]{1,15}\.[0-9]{1,15})-?(?=[A-Za-z])", _number),
    (
        r"(?<!\w)(?:[0-9]{1,6}-(?=[0-9]))?(?:[A-Za-z]{1,10}-?[0-9]{1,15}|[0-9]{1,15}-?[A-Za-z]{1,12})(?:-?[A-Za-z0-9]{1,12}){0,2}(?![\w-])",
        _code,
    ),
    (r"(?<=[0-9])\s?\*\s?(?=[0-9])", " times "),
    (r"(?<=[0-9]):(?=[0-9])", " to "),
    (r"(?<=[0-9])/(?=[0-9])", " slash "),
    (r"(?<![\w.])\.([0-9]{1,15})", lambda match: f"point {spell(match[1])}"),
    (rf"((?<![\w)])-)?(?<![0-9])({NUMBER})", _number),
    # signs and capitals
    (r"\^\s(two)\b", " squared"),
    (r"\^\s(three)\b", " cubed"),
    (r"(?<=[a-z])\s?\^\s?(?=[a-z])", " to the power of "),
    (r"~\s?(?=[a-z])", "about "),
    (rf"[{re.escape(''.join(SYMBOLS))}]++", _symbol),
    *DOTTED_RULES,
    (r"(?<=[a-z])\.(?=[a-z])", " dot "),
    *CAPITAL_RULES,
    (r"\s/\s", ", "),
    (r"[*^~<>#|\\/_]", " "),
]

RULES = compile_rules(_TABLE)
