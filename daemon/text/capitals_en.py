"""English rules for words in capitals: letters to spell, acronyms to speak, or just loud."""

import re
from re import Match

SPOKEN_ACRONYMS = frozenset(
    {"NASA", "NATO", "UNICEF", "UNESCO", "LASER", "RADAR", "COVID", "PIN", "SIM", "RAM", "ROM", "WIFI", "FAQ", "VAT"}
)
"""Read as words."""

SPELLED_ACRONYMS = frozenset(
    {
        *("AC", "AI", "API", "ASAP", "ATA", "ATM", "CEO", "CIA", "CO", "CPU", "DIY", "DIN", "EPA", "ETA", "EU"),
        *("EV", "FBI", "GPU", "HVAC", "IBM", "ID", "IMAX", "IO", "IP", "IQ", "ISO", "IT", "LAN", "LED", "OLED", "PA"),
        *("PIR", "RGB", "SOS", "SUV", "TBA", "UFO", "UK", "UN", "UPS", "URL", "US", "USA", "USB", "UV", "VIP", "WAN"),
        *("AQI", "BIOS", "HDMI", "IOT", "EEPROM", "FYI", "OTA", "SSID", "UPC", "UTC", "VOC", "RSVP", "NYE", "AKA"),
        *("IVR", "AUX", "BMI", "EST", "ICE", "ICU", "MIA", "PTA", "RIP", "UI", "UDP", "UTF", "YMCA", "NY", "LA"),
    }
)
"""Read letter by letter though they could be words."""

_SHORT_WORDS = (
    "A I AM AN AS AT BE BY DO GO HE HI IF IN IS IT ME MY NO OF OH OK ON OR OX SO TO UP US WE ALL AND ANY ARE ASK "
    "BAD BAG BAR BED BIG BOX BOY BUS BUT BUY CAN CAR CAT CUP CUT DAD DAY DID DOG DRY DUE EAR EAT EGG END EYE FAN "
    "FAR FEW FIX FOR FUN GAS GET GOT HAD HAS HER HEY HIM HIS HOT HOW ICE INN ITS JOB KEY KID LEG LET LOT LOW MAN "
    "MAP MAY MEN MOM MUM NEW NOT NOW ODD OFF OIL OLD ONE OUR OUT OWN PAY PEN PET PUT RED RUN SAD SAY SEE SHE SIT "
    "SIX SKY SON SUN TEA TEN THE TIP TOO TOP TRY TWO USE VAN WAR WAS WAY WET WHO WHY WIN YES YET YOU ZIP ZOO ADD "
    "AGO AID AIR ACT ART "
)
SHORT_WORDS = frozenset(_SHORT_WORDS.split())
"""Capitalised for stress, not because they are letters (IT and US: only where the whole text is in capitals)."""


def calm_capitals(text: str) -> str:
    """A text all in capitals is loud, not a list of acronyms: words in it go to lower case."""
    words = re.findall(r"[^\W\d_]{2,}+", text)
    if len(words) < 2 or any(not word.isupper() for word in words):
        return text
    return re.sub(r"[^\W\d_]{2,}+", lambda match: _calm_word(match[0]), text)


def _calm_word(word: str) -> str:
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
    return " ".join(match[0].replace(".", ""))


CAPITAL_RULES = [
    (r"\b(?:[A-Z]\.){2,6}", _letters),
    (r"(?<![\w'])([A-Z]{2,6})('?s)?(?![\w])", _acronym),
]
