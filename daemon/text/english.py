"""English: the value that the other modules of this language make up."""

import re

from daemon.text.capitals_en import calm_capitals
from daemon.text.language import Language, Sentences
from daemon.text.rules_en import RULES
from daemon.text.say_as_en import SAY_AS
from daemon.text.tables_en import ABBREVIATIONS, BEFORE_NUMBER, CALENDAR, DRIVE, MAY_END, NEVER_END, STREET

ENGLISH = Language(
    code="en",
    calm=calm_capitals,
    rules=RULES,
    sentences=Sentences(
        never_end=NEVER_END,
        may_end=MAY_END,
        before_number=frozenset(BEFORE_NUMBER),
        names=frozenset(word for word, words in ABBREVIATIONS.items() if words[0].isupper()),
        calendar=CALENDAR,
        street=re.compile(rf"(?:{STREET}|{DRIVE})\Z"),
        conjunctions=re.compile(r" (?=(?:and|or|but|because|so|that|which|who|when|while|if|then|with|to|for)\b)"),
    ),
    say_as=SAY_AS,
)
