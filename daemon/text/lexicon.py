"""The user's lexicon: words and how they are to be read."""

import re
from collections.abc import Mapping
from pathlib import Path

from daemon.config import read_toml
from daemon.errors import ConfigError
from daemon.text.markup import clean_characters

MAX_ENTRIES = 5000
MAX_WORD = 80
"""Characters of a word or phrase."""
MAX_SPELLING = 200
_TOKEN = re.compile(r"\s+|[^\W_]+|.")


class Lexicon:
    """Words and phrases -> spellings. Immutable and thread-safe.

    A word is found as a whole, in its own case before any other; of several that begin at the same place the longest.

    Args:
        words: word or phrase -> how it is spelled; "" leaves it out.
    """

    def __init__(self, words: Mapping[str, str]) -> None:
        self._exact: dict[str, str] = {}
        self._folded: dict[str, str] = {}
        self._lengths: dict[str, list[int]] = {}
        for word, spelling in words.items():
            tokens = _tokens(word)
            self._exact["".join(tokens)] = spelling
            self._folded.setdefault("".join(tokens).lower(), spelling)
            lengths = self._lengths.setdefault(tokens[0].lower(), [])
            if len(tokens) not in lengths:
                lengths.append(len(tokens))
                lengths.sort(reverse=True)

    def apply(self, text: str) -> str:
        """The text with its known words spelled as they are to be read. Takes time linear in its length."""
        if not self._exact:
            return text
        tokens = _TOKEN.findall(text)
        spelled: list[str] = []
        at = 0
        while at < len(tokens):
            length, spelling = self._find(tokens, at)
            spelled.append(spelling)
            at += length
        return "".join(spelled)

    def _find(self, tokens: list[str], at: int) -> tuple[int, str]:
        """How many tokens from ``at`` on are read as what."""
        for length in self._lengths.get(tokens[at].lower(), ()):
            found = "".join(" " if token.isspace() else token for token in tokens[at : at + length])
            spelling = self._exact.get(found, self._folded.get(found.lower()))
            if spelling is not None:
                return length, spelling
        return 1, tokens[at]


def _tokens(word: str) -> list[str]:
    return _TOKEN.findall(" ".join(word.split()))


def load_lexicon(path: Path) -> Lexicon:
    """Read a lexicon.toml: a table [words].

    Raises:
        ConfigError: unreadable, not TOML, or an entry that cannot be one.
    """
    table = read_toml(path)
    if unknown := [key for key in table if key != "words"]:
        raise ConfigError(f"{path}: unknown key {unknown[0]!r}: a lexicon has one table, [words]")
    words = table.get("words", {})
    if not isinstance(words, dict):
        raise ConfigError(f"{path}: words must be a table: [words]")
    if len(words) > MAX_ENTRIES:
        raise ConfigError(f"{path}: at most {MAX_ENTRIES} words, got {len(words)}")
    for word, spelling in words.items():
        _check(f"{path}: words.{word[:MAX_WORD]!r}", word, spelling)
    return Lexicon({clean_characters(word): spelling for word, spelling in words.items()})  # as texts are


def _check(where: str, word: str, spelling: object) -> None:
    if not any(char.isalnum() for char in clean_characters(word)):
        raise ConfigError(f"{where}: a word needs a letter or a digit")
    if len(word) > MAX_WORD:
        raise ConfigError(f"{where}: a word has at most {MAX_WORD} characters, got {len(word)}")
    if not isinstance(spelling, str):
        raise ConfigError(f'{where}: the spelling must be a string ("" leaves the word out), got {spelling!r}')
    if len(spelling) > MAX_SPELLING:
        raise ConfigError(f"{where}: a spelling has at most {MAX_SPELLING} characters, got {len(spelling)}")
