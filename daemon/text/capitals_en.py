"""English rules for words in capitals: letters to spell, acronyms to speak, or just loud."""

import re
from re import Match

from daemon.text.rule import Rule
from daemon.text.units_en import CURRENCIES

SPOKEN_ACRONYMS = frozenset(
    {
        *(
            "NASA",
            "NATO",
            "UNICEF",
            "UNESCO",
            "LASER",
            "RADAR",
            "COVID",
            "PIN",
            "SIM",
            "RAM",
            "ROM",
            "WIFI",
            "FAQ",
            "VAT",
        ),
        *("LAN", "WAN", "BIOS", "NAS", "MAC", "GIF", "SCUBA", "FIFA", "UEFA", "OPEC", "SWAT", "IKEA", "LEGO", "ASCII"),
    }
)
"""Read as words."""

SPELLED_ACRONYMS = frozenset(
    {
        *("AC", "AI", "API", "ASAP", "ATA", "ATM", "CEO", "CIA", "CO", "CPU", "DIY", "DIN", "EPA", "ETA", "EU"),
        *("EV", "FBI", "GPU", "HVAC", "IBM", "ID", "IMAX", "IO", "IP", "IQ", "ISO", "IT", "LED", "OLED", "PA"),
        *("PIR", "RGB", "SOS", "SUV", "TBA", "UFO", "UK", "UN", "UPS", "URL", "US", "USA", "USB", "UV", "VIP", "OS"),
        *("AQI", "ESP", "HDMI", "IOT", "EEPROM", "FYI", "OTA", "SSID", "UPC", "UTC", "VOC", "RSVP", "NYE", "AKA"),
        *("IVR", "AUX", "BMI", "EST", "ICE", "ICU", "MIA", "PTA", "RIP", "UI", "UDP", "UTF", "YMCA", "NY", "LA"),
        *("ESPN", "IEEE", "UEFI", "OBD", "ADHD", "EOF", "AAA", "AM", "FM"),
    }
)
"""Read letter by letter though they could be words."""

_SHORT_WORDS = (
    "A I AM AN AS AT BE BY DO GO HE HI IF IN IS IT ME MY NO OF OH OK ON OR OX SO TO UP US WE ALL AND ANY ARE ASK "
    "BAD BAG BAR BED BIG BOX BOY BUS BUT BUY CAN CAR CAT CUP CUT DAD DAY DID DOG DRY DUE EAR EAT EGG END EYE FAN "
    "FAR FEW FIX FOR FUN GAS GET GOT HAD HAS HER HEY HIM HIS HOT HOW ICE INN ITS JOB KEY KID LEG LET LOT LOW MAN "
    "MAP MAY MEN MOM MUM NEW NOT NOW ODD OFF OIL OLD ONE OUR OUT OWN PAY PEN PET PUT RED RUN SAD SAY SEE SHE SIT "
    "SIX SKY SON SUN TEA TEN THE TIP TOO TOP TRY TWO USE VAN WAR WAS WAY WET WHO WHY WIN YES YET YOU ZIP ZOO ADD "
    "AGO AID AIR ACT ART ACE AGE APE ARM ASH ATE AXE BAT BAY BEE BET BID BIN BIT BOW BUD BUG CAB CAP COW CRY CUB "
    "CUE DAM DEN DEW DIE DIG DIM DIP DOT DUG EEL EGO ELF ELM EVE FAD FED FEE FIG FIT FLU FLY FOG FOX FRY FUR GAP GEM "
    "GOD GUM GUN GUY GYM HAM HAT HAY HEN HID HIP HIT HOP HUB HUG HUT INK IVY JAM JAR JAW JET JOG JOY JUG KIT LAB LAD "
    "LAP LAW LAY LIE LIP LOG MAD MAT MET MIX MOB MOP MUD MUG NAP NET NIL NOD NOR NUT OAK OAT OWL OWE PAD PAN PAW PEA "
    "PEG PIE PIG POT PUB PUP RAG RAT RAW RAY RIB RID RIG ROB ROD ROT ROW RUB RUG RYE SAW SEA SET SEW SHY SIN SIR SKI "
    "SOB SOW SPY SUM TAB TAG TAP TAR TAX TIE TIN TOE TON TOW TOY TUB TUG VAN VET WEB WED WIG WOW ZAP "
)
SHORT_WORDS = frozenset(_SHORT_WORDS.split())
"""Capitalised for stress, not because they are letters (IT and US: only where the whole text is in capitals)."""


_SOUNDS = r"h+m+|m+h?m*|p?s+h*t*|b?r+|gr+|t+sk|z+|pf+t*|nth|st|nd|rd|th|mm|hm|km|cm|kg|vs"
"""Without a vowel, and yet not letters."""


def calm_capitals(text: str) -> str:
    """A text all in capitals is loud, not a list of acronyms: words in it go to lower case."""
    words = re.findall(r"[^\W\d_]{2,}+", text)
    if len(words) < 2 or any(not word.isupper() for word in words):
        return text
    text = re.sub(r"(?<=[0-9])(?:ST|ND|RD|TH)\b", lambda match: match[0].lower(), text)
    return re.sub(r"[^\W\d_]{2,}+", lambda match: _calm_word(match[0]), text)


def _calm_word(word: str) -> str:
    if word in CURRENCIES or re.fullmatch("X{0,3}(?:IX|IV|V?I{1,3})", word):
        return word  # 20 EUR, WORLD WAR II
    spelled = word in SPELLED_ACRONYMS and word not in SHORT_WORDS
    return word if spelled or not re.search("[AEIOUY]", word) else word.lower()


def _acronym(match: Match[str]) -> str:
    word, tail = match[1], match[2]
    if word in SPOKEN_ACRONYMS or (word not in SPELLED_ACRONYMS and not _is_letters(word)):
        return match[0]
    return " ".join(word) + ("'s" if tail else "")


def _is_letters(word: str) -> bool:
    return not re.search("[AEIOUY]", word) or (len(word) <= 3 and word not in SHORT_WORDS)


def _letters(match: Match[str]) -> str:
    return " ".join(match[0].replace(".", "").upper())


def _letters_and(match: Match[str]) -> str:
    return f"{' '.join(match[1])} and {' '.join(match[2])}"


INITIAL_RULES: list[Rule] = [
    (r"(?<![\w&])([A-Z]{1,3})&([A-Z]{1,3})(?![\w&])", _letters_and),
    (r"(?<![A-Za-z])([A-Z]{2,5})(?=[A-Z][a-z]{2})", r"\1 "),  # ESPHome
    (r"\b(i|iPad|mac|tv|watch)OS\b", r"\1 OS"),
]
"""Letters next to words; before numbers are looked at."""

DOTTED_RULES: list[Rule] = [(r"(?<![\w.])(?:[a-z]\.){2,5}(?!\w)", _letters)]
"""b.i.d., where it is no known abbreviation."""

CAPITAL_RULES: list[Rule] = [
    (r"\b(?:[A-Z]\.){2,6}", _letters),
    (r"(?<![\w'])([A-Z]{2,6})('?s)?(?![\w])", _acronym),
    (rf"(?<![\w'])(?!(?:{_SOUNDS})\b)([b-df-hj-np-tv-xz]{{2,5}})(?![\w'])", _letters),
]
