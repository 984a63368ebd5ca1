"""English: the ordered table of rules (pattern -> words). Another language is one more such module.

Every rule works on what the earlier ones left, so that the order is part of the meaning: what is most specific comes
first. No pattern may take more than a bounded number of characters per start, or backtrack over an unbounded run.
"""

import re
from collections.abc import Callable, Iterable
from re import Match

from daemon.text.capitals_en import CAPITAL_RULES
from daemon.text.dates_en import DATE_RULES, TIME_RULES, YEAR_RULES
from daemon.text.numbers_en import (
    LOOSE_NUMBER,
    NUMBER,
    UNIT,
    cardinal,
    fraction,
    is_one,
    number,
    ordinal,
    short_code,
    spell,
    split_number,
)
from daemon.text.tables_en import (
    ABBREVIATIONS,
    CURRENCIES,
    MAY_END,
    SCALES,
    SYMBOLS,
    TITLES,
    TOP_LEVEL_DOMAINS,
    UNITS,
)

Rule = tuple[str, str | Callable[[Match[str]], str]]

_FOLDED_UNITS = {symbol.lower(): words for symbol, words in reversed(UNITS.items()) if len(symbol) > 1}


def _any_of(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


_SIGNS = r"[$£€¥₹]"
_SCALE = r"(?:(k|K|m|M|bn|B)\b|\s(thousand|million|billion|trillion)\b)?"


def _url(match: Match[str]) -> str:
    return " " + match[1].lower().replace(".", " dot ").replace("-", " dash ") + " "


def _email(match: Match[str]) -> str:
    return f" {re.sub('[_+-]', ' ', match[1]).replace('.', ' dot ')} at {match[2].replace('.', ' dot ')} "


def _long_digits(match: Match[str]) -> str:
    before = f"{number(match[1][:-1])} point " if match[1] else ""
    return f" {before}{spell(match[2])} "


def _digit_groups(match: Match[str]) -> str:
    groups = [spell(group) for group in re.findall("[0-9]+", match[0])]
    if match[0].startswith("+") and sum(char.isdigit() for char in match[0]) < 8:
        return match[0]
    return ("plus " if match[0].startswith("+") else "") + ", ".join(groups)


def _spelled_code(match: Match[str]) -> str:
    return match[1] + spell(match[2])


def _address(match: Match[str]) -> str:
    return " dot ".join(spell(part) for part in match[0].split("."))


def _version(match: Match[str]) -> str:
    return " point ".join(cardinal(part) for part in match[0].split("."))


def _money(match: Match[str]) -> str:
    minus, sign, amount, letter, word = match.groups()
    return ("minus " if minus else "") + _amount(sign, amount, SCALES.get(letter or word or ""))


def _money_after(match: Match[str]) -> str:
    return _amount(match[2], match[1], None)


def _amount(sign: str, amount: str, scale: str | None) -> str:
    one, many, cent, cents = CURRENCIES[sign]
    whole, decimals = split_number(amount)
    if scale:
        return f"{number(amount)} {scale} {many}"
    if len(decimals) not in (1, 2):
        return f"{number(amount)} {one if is_one(amount) else many}"
    parts = decimals.ljust(2, "0").lstrip("0")
    units = [f"{cardinal(whole)} {one if is_one(whole) else many}"] if whole.strip("0") or not parts else []
    units += [f"{cardinal(parts)} {cent if is_one(parts) else cents}"] if parts else []
    return " and ".join(units)


def _measure(match: Match[str]) -> str:
    minus, amount, gap, symbol = match.groups()
    if (len(symbol) == 1 and gap == "-") or (symbol in "CF" and gap != " "):
        return match[0]  # a code such as 5-A or seat 12C
    words = UNITS.get(symbol) or _FOLDED_UNITS.get(symbol.lower())
    if words is None:
        return match[0]
    one = is_one(amount) or gap == "-"  # a 5-km run
    return f"{'minus ' if minus else ''}{number(amount)} {words[0] if one else words[1]}"


def _hours_minutes(match: Match[str]) -> str:
    names = ("hour", "minute") if match[2].lower() == "h" else ("minute", "second")
    first, second = (cardinal(str(int(digits))) for digits in (match[1], match[3]))
    return f"{first} {names[0]}{'' if first == 'one' else 's'} {second} {names[1]}{'' if second == 'one' else 's'}"


def _feet_inches(match: Match[str]) -> str:
    return f"{cardinal(match[1])} {UNITS['ft'][match[1] != '1']} {cardinal(match[2])} inch{'es' * (match[2] != '1')}"


def _fraction(match: Match[str]) -> str:
    whole, numerator, denominator, symbol = match.groups()
    words = _parts(whole, numerator, denominator)
    if symbol is None:
        return words
    one, many = UNITS[symbol]
    if whole or numerator == "1":
        return f"{words} {many if whole else one}"
    return f"{words} of {'an' if one[0] in 'aeiou' or one == 'hour' else 'a'} {one}"


def _parts(whole: str | None, numerator: str, denominator: str) -> str:
    if int(denominator) not in {2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 32, 64, 100} or int(numerator) >= int(denominator):
        joint = "out of" if int(numerator) <= int(denominator) else "over"
        words = f"{cardinal(numerator)} {joint} {cardinal(denominator)}"
        return f"{cardinal(whole)}, {words}" if whole else words
    return f"{cardinal(whole)} and {fraction(numerator, denominator)}" if whole else fraction(numerator, denominator)


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


def _abbreviation(match: Match[str]) -> str:
    """The dot stays where it may have ended a sentence too."""
    words = ABBREVIATIONS[match[1].lower()]
    following = match.string[match.end() : match.end() + 2]
    ends = match[1].lower() in MAY_END and words.islower() and re.match(r"\s[A-Z]", following)
    return words + ("." if ends else "")


def _symbol(match: Match[str]) -> str:
    if len(match[0]) > 2:
        return " "  # ===== is a line, not arithmetic
    return f" {' '.join(SYMBOLS[char] for char in match[0])} "


def _hashtag(match: Match[str]) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", match[1])


_TABLE: list[Rule] = [
    # addresses
    (
        (
            r"(?i)(?:\bhttps?|\bftp|\bmqtts?|\bwss?)://(?:www\.)?([a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){0,8})(?::[0-9]{1,5})?"
            r"(?:[/?#](?:[^\s<>()]{0,2000}[^\s<>().,;:!?'\"])?)?"
        ),
        _url,
    ),
    (r"(?<![\w.+-])([\w.+-]{1,64})@([A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,6})", _email),
    (
        (
            rf"(?i)(?<![\w.@/-])(?:www\.)?([a-z0-9-]{{1,63}}(?:\.[a-z0-9-]{{1,63}}){{0,6}}\.(?:{TOP_LEVEL_DOMAINS}))"
            r"(?![\w-]|\.\w)(?:/[\w/.%?=&#-]{0,2000}(?<![.?]))?"
        ),
        _url,
    ),
    (r"(?<![0-9])([0-9]{1,15}\.)?([0-9]{16,}+)", _long_digits),
    *DATE_RULES,
    # digits that are names, not amounts
    (
        (
            r"(?i)\b((?:call|dial|phone|ring|text|code|pin|otp|extension|ext\.?|zip)\s(?:is\s)?)([0-9]{3,10})"
            r"(?![\w:-]|[.,][0-9])"
        ),
        _spelled_code,
    ),
    (
        r"(?i)((?:#|\b(?:number|order|account|ticket|parcel|tracking)\s)#?)([0-9]{5,15})(?![\w:-]|[.,][0-9])",
        _spelled_code,
    ),
    (
        r"(?i)\b((?:room|suite|flight|gate|apartment|route|highway)\s)([0-9]{3})(?![\w:-]|[.,][0-9])",
        lambda match: match[1] + short_code(match[2]),
    ),
    (r"(?<![\w.+-])\+[0-9]{1,3}(?:[ .-]?\(?[0-9]{2,4}\)?){2,5}(?![\w-])", _digit_groups),
    (r"(?<![\w.-])(?:1[ -])?\(?[2-9][0-9]{2}\)?[ .-][0-9]{3}[.-][0-9]{4}(?![\w-])", _digit_groups),
    (rf"(?<![\w.,-])[2-9][0-9]{{2}}-[0-9]{{4}}(?![\w-]|[.,][0-9]|\s?{UNIT}(?!\w))", _digit_groups),
    (r"(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w]|\.[0-9])", _address),
    (r"\b[vV](?:er\.\s?)?(?=[0-9])", "version "),
    (r"(?<![\w.])[0-9]{1,5}(?:\.[0-9]{1,5}){2,4}(?![\w]|\.[0-9])", _version),
    (r"\b24/7\b", "twenty four seven"),
    (r"\b50/50\b", "fifty fifty"),
    (r"\b(?:US|AU|CA|NZ)(?=\$)", ""),
    # ranges before what they are ranges of; the second half keeps its unit
    *YEAR_RULES,
    (
        (
            rf"(?<![\w.,:/-])({_SIGNS}?[0-9]{{1,7}}(?:[:.,][0-9]{{1,3}})?(?:\s?(?:[ap]\.?m\.?|%|°[CF]?))?)\s?[-\u2013]\s?"
            rf"(?={_SIGNS}?[0-9]{{1,7}}(?:[:.,][0-9]{{1,3}})?(?!\w{{0,20}}[-\u2013]\w|/))"
        ),
        r"\1 to ",
    ),
    (r"(?<=[0-9])\s?[x\u00d7]\s?(?=[0-9])", " by "),
    *TIME_RULES,
    (rf"(?<![\w)])(-)?({_SIGNS})\s?({LOOSE_NUMBER}){_SCALE}", _money),
    (rf"(?<![\w.,])({LOOSE_NUMBER})\s?([$£€¥₹]|(?:USD|EUR|GBP|JPY|CHF)\b)", _money_after),
    (r"(?<![\w.,])([0-9]{1,5})\s?¢", lambda match: f"{cardinal(match[1])} cent{'' if match[1] == '1' else 's'}"),
    (r"(?<![\w.,])([0-9]{1,2})(?:\s?ft\.?|')\s?([0-9]{1,2})\s?(?:in\b\.?|\")", _feet_inches),
    (r"(?i)(?<![\w.,:])([0-9]{1,4})\s?(h)\s?([0-9]{1,2})\s?m(?:in)?\b", _hours_minutes),
    (r"(?i)(?<![\w.,:])([0-9]{1,4})\s?(m)(?:in)?\s?([0-9]{1,2})\s?s(?:ec)?\b", _hours_minutes),
    (
        rf"(?<![\w.,/])(?:([0-9]{{1,4}})\s)?([0-9]{{1,3}})/([0-9]{{1,3}})(?![\w/]|\.[0-9])(?:\s?({UNIT})(?![\w/]))?",
        _fraction,
    ),
    (
        rf"(?<![\w.,])((?<![\w)])-)?({LOOSE_NUMBER})([\s-]?)((?i:{UNIT}))(?![\w^]|/[a-z])(?:\.(?=\s{{1,3}}[a-z]))?",
        _measure,
    ),
    (r"(?<![\w.,])([0-9]{1,4})in(?=[.,;:!?)]|$)", lambda match: f"{cardinal(match[1])} inches"),
    (
        r"(?<=[a-z0-9])/(kWh|h|hr|kg|lb|l|mo|min|s)(?!\w)",
        lambda match: " per " + ("month" if match[1] == "mo" else UNITS[match[1]][0]),
    ),
    (r"(?<=[a-z0-9])/(?=(?:second|minute|hour|day|night|week|month|year|person)\b)", " per "),
    (
        r"(?<![\w.])([0-9]{1,3}(?:,[0-9]{3}){1,4}|[0-9]{1,15})(?:st|nd|rd|th)\b",
        lambda m: ordinal(m[1].replace(",", "")),
    ),
    # abbreviations
    (r"(?:#\s?(?=[0-9]|(?:zero|one|two|three|four|five|six|seven|eight|nine)\b)|\b[Nn][or]\.\s?(?=[0-9]))", "number "),
    (rf"(?i)(?<![\w.])({_any_of(TITLES)})\b(?:\.|(?-i:(?=\s[A-Z])))", _title),
    (r"\bSt\b\.?(?=\s[A-Z])", "saint"),
    (r"\bSt\b\.?", "street"),
    (rf"(?i)(?<![\w.])({_any_of(ABBREVIATIONS)})\.(?!\w)", _abbreviation),
    (r"(?i)(?<![\w.])vs(?![\w.])", "versus"),
    (r"(?i)(?<![\w.])([ap])\.m\b\.?", lambda match: f"{match[1].upper()} M"),
    (r"(?i)\bw/o\b", "without"),
    (r"(?i)\bw/(?=\s?[a-z])", "with "),
    (r"#([A-Za-z_]\w{0,100})", _hashtag),
    (r"(?i)\bok\b", "okay"),
    # what is left of digits
    (r"\bPM(?=[0-9])", "P M "),
    (
        r"(?<!\w)(?:[A-Za-z]{1,10}-?[0-9]{1,15}|[0-9]{1,15}-?[A-Za-z]{1,12})(?:-?[A-Za-z0-9]{1,12}){0,2}(?![\w-])",
        _code,
    ),
    (r"(?<=[0-9])\s\*\s(?=[0-9])", " times "),
    (r"(?<=[0-9]):(?=[0-9])", " to "),
    (r"(?<=[0-9])/(?=[0-9])", " slash "),
    (r"(?<![\w.])\.([0-9]{1,15})", lambda match: f"point {spell(match[1])}"),
    (rf"((?<![\w)])-)?(?<![0-9])({NUMBER})", _number),
    # signs and capitals
    (r"\^\s(two)\b", " squared"),
    (r"\^\s(three)\b", " cubed"),
    (r"~\s?(?=[a-z])", "about "),
    (r"(?<=\s)<(?=\s)", "is less than"),
    (r"(?<=\s)>(?=\s)", "is greater than"),
    (rf"[{re.escape(''.join(SYMBOLS))}]++", _symbol),
    *CAPITAL_RULES,
    (r"(?<=[a-z])\.(?=[a-z])", " dot "),
    (r"\s/\s", ", "),
    (r"[*^~<>#|\\/_]", " "),
]

RULES: list[tuple[re.Pattern[str], str | Callable[[Match[str]], str]]] = [
    (re.compile(pattern), words) for pattern, words in _TABLE
]
