"""Stage 1: the texts that the voice learns from, and those it is judged by and never learns from."""

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from training import sources
from training.config import Config, CorpusConfig
from training.templates import SINGLE, Filler
from training.text import ALPHABET, spoken
from training.workspace import Workspace

_SEED_HELD = 7
NUM_HELD = {"announcements": 200, "sentences": 300, "words": 500, "single": 100, "paragraphs": 50}
"""How many utterances of each kind are held out."""
_MARKS = ".!?"
_FREQUENT = 2000
_SPELLINGS = ("{l}", "{d}", "{l} {d}", "Press {l}.", "It is spelled {l}.", "Gate {l}, seat {d}.", "Code {d}.")


_NUM_DRAWN = 400
"""Announcements from which the held-out ones are chosen."""
_READ_ALOUD = {"announcements": 350, "sentences": 600, "numbers": 50}
"""Sentences for those who record their own voice."""
_READ_ALOUD_LONGEST = 90
"""Characters."""


def run(config: Config) -> None:
    """Write the workspace's corpus.json and to-read.csv; the same configuration and machine give the same files.

    Raises:
        ModelError: a Debian package with text is missing.
    """
    work = Workspace(config.paths.work)
    corpus = Corpus(config.corpus)
    kept_back = corpus.kept_back()
    train = corpus.train({text for text, _ in kept_back})
    held = corpus.held(kept_back, [text for text, _ in train])
    work.corpus.parent.mkdir(parents=True, exist_ok=True)
    content = {"origins": sources.ORIGINS, "held": held, "train": train}
    work.corpus.write_text(json.dumps(content, indent=0), encoding="utf-8")
    to_read = corpus.to_read({text for text, _ in train + held})
    lines = (f"{number:04}|{text}\n" for number, text in enumerate(to_read, 1))
    work.to_read.write_text("".join(lines), encoding="utf-8")
    for name, texts in (("training", train), ("held out", held)):
        counts = ", ".join(f"{count} {source}" for source, count in Counter(source for _, source in texts).items())
        print(f"{name}: {len(texts)} texts, {sum(len(text) for text, _ in texts)} characters ({counts})")


class Corpus:
    """Draws the texts; every list is shuffled with the configuration's seed, held-out texts first.

    Args:
        config: how many of each kind.
    """

    def __init__(self, config: CorpusConfig) -> None:
        self._config = config
        self._rng = random.Random(config.seed)  # noqa: S311  # texts, not secrets
        examples, definitions, frequency = sources.wordnet()
        common, names = sources.words()
        self._examples = self._shuffled(examples)
        self._definitions = self._shuffled(definitions)
        self._documents = self._shuffled(sources.docstrings())
        self._names = self._shuffled(names)
        ranked = [word for word, _ in frequency.most_common() if word in common and 1 < len(word) <= 14]
        self._vocabulary = ranked[: config.vocabulary]
        rare = ranked[config.vocabulary :] or ranked[len(ranked) // 2 :]
        self._unseen = self._shuffled(rare)[: NUM_HELD["words"] // 2]
        """Words that no training text has."""
        self._drawn: list[str] = []
        """Announcements that may be held out."""

    def _shuffled(self, texts: Iterable[str]) -> list[str]:
        ordered = sorted(set(texts))
        self._rng.shuffle(ordered)
        return ordered

    def _speakable(self, texts: Iterable[str], low: int = 1, high: int | None = None) -> Iterator[str]:
        """Texts that are one sentence of letters and marks, ``low`` to ``high`` words, as the daemon would say them."""
        for raw in texts:
            if re.search(r"[^A-Za-z0-9' ,.?!$%:;£€°-]|\d{5}", raw):
                continue
            text = spoken(raw)
            if (
                text
                and len(text) <= self._config.max_characters
                and low <= text.count(" ") + 1 <= (high or 99)
                and not re.search(r"[.?!].", text)
                and not set(text) - set(ALPHABET)
            ):
                yield text

    def kept_back(self) -> list[tuple[str, str]]:
        """(text, set) of what must not be learned from.

        Of the announcements that is half of those drawn: all of them would keep the likeliest ones from being learned.
        """
        rng = random.Random(_SEED_HELD)  # noqa: S311  # texts, not secrets
        filler = Filler(rng)
        quoted = _take(self._speakable(self._examples, 4, 14), 200)
        documents = _take(self._speakable(self._documents, 5, 16), NUM_HELD["sentences"] - len(quoted))
        known = [word for word in self._shuffled(self._vocabulary) if word not in SINGLE]
        words = [*self._unseen, *known[: NUM_HELD["words"] - len(self._unseen)]]
        parts = [*_take(self._speakable(self._examples[::-1], 6, 16), 100), *(filler.sentence() for _ in range(100))]
        rng.shuffle(parts)
        paragraphs = [" ".join(map(spoken, parts[4 * n : 4 * n + 4])) for n in range(NUM_HELD["paragraphs"])]
        self._drawn = _take(self._speakable(_forever(filler.sentence)), _NUM_DRAWN)
        sets = {
            "announcements": sorted(set(self._drawn))[: _NUM_DRAWN // 2],
            "sentences": quoted + documents,
            "words": [f"{word}." for word in words],
            "single": [word + rng.choice(_MARKS) for word in SINGLE[: NUM_HELD["single"]]],
            "paragraphs": paragraphs,
        }
        return [(text, name) for name, texts in sets.items() for text in texts]

    def held(self, kept_back: list[tuple[str, str]], train: list[str]) -> list[tuple[str, str]]:
        """(text, set) of everything that is judged.

        Announcements are the first of those drawn that are no training text nor part of one.
        """
        learned = "\n".join(train)
        announcements = [text for text in dict.fromkeys(self._drawn) if text not in learned]
        others = [(text, name) for text, name in kept_back if name != "announcements"]
        return [(text, "announcements") for text in announcements[: NUM_HELD["announcements"]]] + others

    def to_read(self, known: set[str]) -> list[str]:
        """Sentences to record: none of those known, so that what is held out of them is new to every voice."""
        filler = Filler(self._rng)
        kinds = {
            "announcements": self._speakable(_forever(filler.sentence), 2),
            "sentences": self._speakable(self._examples, 3, 24),
            "numbers": self._speakable(_forever(lambda: self._number(filler))),
        }
        seen = set(known)

        def new(texts: Iterable[str]) -> Iterator[str]:
            for text in texts:
                if len(text) <= _READ_ALOUD_LONGEST and text not in seen:
                    seen.add(text)
                    yield text

        return self._shuffled(text for name, count in _READ_ALOUD.items() for text in _take(new(kinds[name]), count))

    def train(self, held: set[str]) -> list[tuple[str, str]]:
        """(text, source) of everything that is learned from, shuffled; nothing of ``held``, no unseen word."""
        config, filler = self._config, Filler(self._rng)
        held = held | {part.strip() for text in held for part in re.split(r"(?<=[.?!])", text)}
        bare = {text.strip(_MARKS) for text in held}
        unseen = set(self._unseen)
        seen: set[str] = set()

        def new(texts: Iterable[str]) -> Iterator[str]:
            for text in texts:
                known = text in seen or text.strip(_MARKS) in bare
                if not known and unseen.isdisjoint(re.findall(r"[a-z']+", text)):
                    seen.add(text)
                    yield text

        kinds: dict[str, tuple[int, Iterator[str]]] = {
            "announcements": (config.announcements, self._speakable(_forever(filler.sentence), 2)),
            "sentences": (config.sentences, self._speakable(self._examples, 3, 24)),
            "definitions": (config.definitions, self._speakable(self._definitions, 3, 24)),
            "docstrings": (config.docstrings, self._speakable(self._documents, 3, 24)),
            "vocabulary": (10**9, self._covering(self._vocabulary, config.repeats)),
            "names": (config.names, self._covering(self._names[: config.names], 1)),
            "words": (config.words, self._single_words()),
            "spellings": (config.spellings, self._speakable(_forever(self._spelling))),
            "numbers": (config.numbers, self._speakable(_forever(lambda: self._number(filler)))),
        }
        chosen = [(text, name) for name, (count, texts) in kinds.items() for text in _take(new(texts), count)]
        chosen += [(text, "long") for text in _take(new(self._joined(chosen)), config.long)]
        self._rng.shuffle(chosen)
        return chosen + [(text, "short") for text in _take(new(self._short()), config.short)]

    def _short(self) -> Iterator[str]:
        """The most frequent words with every mark, alone and in pairs."""
        for word in self._vocabulary:
            for mark in _MARKS:
                yield word + mark
                yield f"{word} {self._rng.choice(self._vocabulary[:_FREQUENT])}{mark}"

    def _covering(self, words: list[str], repeats: int) -> Iterator[str]:
        """Every word ``repeats`` times, three to seven at once."""
        for _ in range(repeats):
            order = list(words)
            self._rng.shuffle(order)
            start = 0
            while start < len(order):
                count = self._rng.randint(3, 7)
                text = " ".join(order[start : start + count])
                start += count
                yield from self._speakable([text.replace(" ", ", ", 1) if self._rng.random() < 0.2 else text])

    def _single_words(self) -> Iterator[str]:
        for number in range(50 * len(self._vocabulary)):  # all may be held out where there are few
            word = self._vocabulary[int(len(self._vocabulary) * self._rng.random() ** 2)]
            yield from self._speakable([word + _MARKS[number % 7 if number % 7 < len(_MARKS) else 0]])

    def _spelling(self) -> str:
        letters = "".join(self._rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=self._rng.randint(1, 6)))
        digits = "".join(self._rng.choices("0123456789", k=self._rng.randint(1, 6)))
        form = self._rng.choice(_SPELLINGS)
        return form.format(l=" ".join(letters), d=" ".join(digits))

    def _number(self, filler: Filler) -> str:
        pick = self._rng.choice
        parts = [pick([filler.number, filler.money, filler.degrees, filler.duration, filler.clock, filler.date])()]
        if self._rng.random() < 0.5:
            parts = [filler.number() for _ in range(self._rng.randint(2, 6))]
        return pick([", ", ", ", " and "]).join(parts)

    def _joined(self, chosen: list[tuple[str, str]]) -> Iterator[str]:
        """Two sentences in one breath, as far as the longest text allows."""
        plain = [text for text, source in chosen if source in {"announcements", "sentences", "definitions"}]
        while True:
            first, second = self._rng.choice(plain), self._rng.choice(plain)
            text = f"{first} {second}"
            if len(text) <= self._config.max_characters:
                yield text


def _take(texts: Iterable[str], count: int) -> list[str]:
    taken: list[str] = []
    if count:
        for text in texts:
            taken.append(text)
            if len(taken) == count:
                break
    return taken


def _forever(make: Callable[[], str]) -> Iterator[str]:
    while True:
        yield make()
