"""English rules for addresses, and for digits that are names and not amounts: telephones, codes, rooms, versions."""

import re
from re import Match

from daemon.text.numbers_en import UNIT, cardinal, looks_like_year, number, short_code, spell, year
from daemon.text.rule import Rule
from daemon.text.tables_en import CODE_WORDS, ENTITIES, PROGRAMS, TOP_LEVEL_DOMAINS

_IP = r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}"
_PORT = r"(?::([0-9]{1,5})(?!\w))?"
_NOT_NAMED = "".join(
    f"(?<!{name} )" for name in ("living", "dining", "family", "laundry", "guest", "play", "utility", "server")
)
"""The living room 21 C is warm, while room 21 C is far down the corridor."""
_SPELLED_DOMAINS = frozenset(domain for domain in TOP_LEVEL_DOMAINS.split("|") if len(domain) == 2 and domain != "me")
_KEYS = {"*": "star", "#": "pound"}
_LETTERED = r"(?:[0-9]{1,2}\s?[A-Z]|[0-9]{3}[A-UX-Z]|[0-9]{1,2}[a-z])(?![\w'/-])"


def _url(match: Match[str]) -> str:
    return f" {_host(match[1].lower())}{_port(match[2])} "


def _host(name: str) -> str:
    if re.fullmatch(_IP, name):
        return " dot ".join(spell(part) for part in name.split("."))
    return " dot ".join(_label(label) for label in name.split("."))


def _label(label: str) -> str:
    """Read as a word where it could be one: bbc and uk are spelled."""
    spelled = label in _SPELLED_DOMAINS or (len(label) <= 5 and label.isalpha() and not re.search("[aeiouy]", label))
    return " ".join(label.upper()) if spelled else label.replace("-", " dash ").replace("_", " underscore ")


def _port(digits: str | None) -> str:
    return f" port {spell(digits)}" if digits else ""


def _address(match: Match[str]) -> str:
    return _host(match[1]) + _port(match[2])


def _email(match: Match[str]) -> str:
    name = match[1].replace(".", " dot ").replace("_", " underscore ").replace("-", " dash ").replace("+", " plus ")
    return f" {name} at {_host(match[2].lower())} "


def _long_digits(match: Match[str]) -> str:
    before = f"{number(match[1][:-1])} point " if match[1] else ""
    return f" {before}{spell(match[2])} "


def _digit_groups(match: Match[str]) -> str:
    if match[0].startswith("+") and sum(char.isdigit() for char in match[0]) < 8:
        return match[0]
    number, _, extension = match[0].partition("x")
    return _number_groups(number, extension)


def _number_groups(number: str, extension: str) -> str:
    words = ("plus " if number.startswith("+") else "") + _groups(number)
    digits = extension.strip()
    if not digits:
        return words
    return f"{words} extension {cardinal(digits) if len(digits) < 3 else spell(digits)}"


def _groups(text: str) -> str:
    return ", ".join(spell(group) for group in re.findall("[0-9]+", text))


def _spelled_code(match: Match[str]) -> str:
    return match[1] + _groups(match[2])


def _spell_characters(code: str) -> str:
    return " ".join(spell(char) if char.isdigit() else char.upper() for char in code)


def _pairs(match: Match[str]) -> str:
    return ", ".join(_spell_characters(pair) for pair in match[0].split(":"))


def _lettered_codes(match: Match[str]) -> str:
    return re.sub(r"([0-9]+)\s?([A-Za-z])\b", lambda code: f"{short_code(code[1])} {code[2].upper()}", match[0])


def _points(version: str) -> str:
    first, *parts = version.split(".")
    words = [year(first) if looks_like_year(first) else cardinal(first), *(cardinal(part) for part in parts)]
    return " point ".join(words)


def _version(match: Match[str]) -> str:
    return _points(match[0].rstrip("-")) + " "


def _flight(match: Match[str]) -> str:
    return f"{match[1]}{' '.join(match[2])} {short_code(match[3])}"


def say_telephone(text: str) -> str:
    """A telephone number, whatever stands between its groups."""
    number, _, extension = text.lower().replace("ext.", "x").replace("ext", "x").partition("x")
    return _number_groups(number, extension)


ADDRESS_RULES: list[Rule] = [
    (rf"(?<![\w.@/-])({ENTITIES})\.(?=[a-z0-9_]{{1,64}}\b(?!\.\w))", r"\1 "),
    (
        (
            r"(?i)(?:\bhttps?|\bftp|\bmqtts?|\bwss?)://(?:www\.)?([a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){0,8})"
            rf"{_PORT}(?:[/?#](?:[^\s<>()]{{0,2000}}[^\s<>().,;:!?'\"])?)?"
        ),
        _url,
    ),
    (r"(?<![\w.+-])([\w.+-]{1,64})@([A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,6})", _email),
    (
        (
            rf"(?i)(?<![\w.@/-])(?:www\.)?([a-z0-9-]{{1,63}}(?:\.[a-z0-9-]{{1,63}}){{0,6}}\.(?:{TOP_LEVEL_DOMAINS}))"
            rf"(?![\w-]|\.\w){_PORT}(?:/[\w/.%?=&#-]{{0,2000}}(?<![.?]))?"
        ),
        _url,
    ),
    (r"(?<![0-9])([0-9]{1,15}\.)?([0-9]{16,}+)", _long_digits),
]

CODE_RULES: list[Rule] = [
    (
        (
            r"(?i)\b((?:call|dial|phone|ring|text|code|pin|otp|id|passcode|extension|ext\.?|zip)(?:\sis)?:?\s)"
            r"([0-9]{3,4}(?:[ -][0-9]{3,4}){1,3}|[0-9]{3,10})(?![\w:-]|[.,][0-9])"
        ),
        _spelled_code,
    ),
    (
        (
            r"(?i)((?:#|\b(?:number|order|account|ticket|parcel|tracking|invoice|s/n|po)\s)#?)"
            r"([0-9]{3,9}(?:-[0-9]{1,8}){1,3}|[0-9]{5,15})(?![\w:-]|[.,][0-9])"
        ),
        _spelled_code,
    ),
    (
        (
            rf"\b(?:(?i:{_NOT_NAMED}(?:{CODE_WORDS})s?)\s{_LETTERED}"
            rf"(?:(?:,|\sand|\sor|\sto|\s?&)\s{_LETTERED}){{0,5}}|[Ll]evel\s[0-9]{{1,2}}[A-F]\b(?!/))"
        ),
        _lettered_codes,
    ),
    (r"\b([Ff]light\s)([A-Z]{2}|[A-Z][0-9]|[0-9][A-Z])\s?([0-9]{1,4})(?![\w:-]|[.,][0-9])", _flight),
    (
        r"(?i)\b((?:room|suite|flight|gate|apartment|route|highway|boeing|airbus|http|error)\s)([0-9]{3,4})(?![\w:-]|[.,][0-9])",
        lambda match: match[1] + short_code(match[2]),
    ),
    (r"(?<=\+[0-9]{2})\s?\(0\)\s?(?=[0-9])", " "),
    (r"(?<![\w.+-])\+[0-9]{1,3}(?:[ .-]?\(?[0-9]{2,4}\)?){2,5}(?:\sx\s?[0-9]{1,5})?(?![\w-])", _digit_groups),
    (
        r"(?<![\w.-])(?:1[ -])?\(?[2-9][0-9]{2}\)?[ .-][0-9]{3}[ .-][0-9]{4}(?:\sx\s?[0-9]{1,5})?(?![\w-])",
        _digit_groups,
    ),
    (rf"(?<![\w.,-])[2-9][0-9]{{2}}-[0-9]{{4}}(?![\w-]|[.,][0-9]|\s?{UNIT}(?!\w))", _digit_groups),
    (
        (
            r"(?<![\w.,:/-])(?<![0-9]\s)(?:0[0-9]{2,4}(?:[\s-][0-9]{2,8}){1,4}|0[0-9](?:\s[0-9]{2,4}){3,4})"
            rf"(?![\w-]|\s[0-9]|[.,:/][0-9]|\s?{UNIT}(?!\w))"
        ),
        _digit_groups,
    ),
    (r"(?<![\w.,-])[0-9]{4}(?:[ -][0-9]{4}){2,4}(?:[ -][0-9]{1,4})?(?![\w.-])", _digit_groups),
    (rf"(?<![\w.])({_IP})(?![\w]|\.[0-9]){_PORT}", _address),
    (r"\b[vV](?:er\.\s?)?(?=[0-9])", "version "),
    (
        rf"(?i)\b((?:{PROGRAMS})\s)([0-9]{{1,4}}\.[0-9]{{1,3}})(?![\w%°]|\.[0-9]|\s?{UNIT}(?!\w))",
        lambda match: match[1] + _points(match[2]),
    ),
    (r"(?<![\w.])[0-9]{1,5}(?:\.[0-9]{1,5}){2,4}(?![0-9_]|\.[0-9])(?:-?(?=[A-Za-z]))?", _version),
    (r"(?<![\w-])[0-9](?:-[0-9]){2,9}(?![\w-])", lambda match: spell(match[0].replace("-", ""))),
    (r"\b0x([0-9A-Fa-f]{1,16})\b", lambda match: f"zero X {_spell_characters(match[1])}"),
    (r"(?<![\w:])(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}(?![\w:])", _pairs),
    (r"(,\s[A-Z]{2}\s)([0-9]{5}(?:-[0-9]{4})?)(?![\w-]|[.,:/][0-9])", _spelled_code),
    (r"\b([A-Z])\.([0-9]{1,3})(?!\w|\.\w|-[0-9])", lambda match: f"{match[1]} {short_code(match[2])}"),
    (r"(?i)\b((?:press|dial|hit)\s(?:the\s)?)(\*(?![a-z*])|#(?!\w))", lambda match: f"{match[1]}{_KEYS[match[2]]} "),
    (r"\b24/7\b", "twenty four seven"),
    (r"\b50/50\b", "fifty fifty"),
]
