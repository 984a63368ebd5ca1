"""English rules for words in capitals: letters to spell, acronyms to speak, or just loud."""

import re
from re import Match

from daemon.text.tables_en import SHORT_WORDS, SPELLED_ACRONYMS, SPOKEN_ACRONYMS


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
