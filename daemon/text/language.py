"""What the reading of texts knows of a language. One module makes one value; languages.py knows them all."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from daemon.text.rule import Rule

CompiledRule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentences:
    """What tells a sentence's end from another dot, and where a long sentence is best cut."""

    never_end: frozenset[str] = frozenset()
    """Abbreviations, in lower case and without their dot, after which the sentence goes on, whatever follows."""
    may_end: frozenset[str] = frozenset()
    """Those whose dot ends the sentence only where a capital follows."""
    before_number: frozenset[str] = frozenset()
    """Those that are abbreviations only before a number: No. 5."""
    names: frozenset[str] = frozenset()
    """Those that a number or a capital may follow within the sentence: Mon. 9 to 5."""
    calendar: frozenset[str] = frozenset()
    """Names of days and months, whole and cut: one may follow another."""
    street: re.Pattern[str] | None = None
    """Text before a dot that ends the sentence where a capital follows: Elm St., which else is in never_end."""
    conjunctions: re.Pattern[str] | None = None
    """A space before which a long sentence may be cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """How texts of one language are read."""

    code: str
    """ISO 639-1: "en"."""
    calm: Callable[[str], str]
    """A text all in capitals -> one that is not."""
    rules: tuple[CompiledRule, ...]
    """What is written -> what is said, in this order; each is linear in the text."""
    sentences: Sentences
    say_as: Mapping[str, Callable[[str, str], str]]
    """SSML's interpret-as -> (text, format) -> words; ValueError where it is not such a thing."""


def compile_rules(rules: list[Rule]) -> tuple[CompiledRule, ...]:
    """A table of rules, ready for use."""
    return tuple((re.compile(pattern), words) for pattern, words in rules)
