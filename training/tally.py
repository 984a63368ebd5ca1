"""From single utterances to figures: word error rates with intervals, faults counted, and the bars."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from training.judge import Interval, Tally, ratio
from training.measures import Measures
from training.shelf import Made


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One utterance with everything that was found out about it."""

    number: int
    """Of the teacher's utterance."""
    text: str
    source: str
    """The set of texts it is from."""
    speaker: int
    words: int
    wrong: int
    """Words that the recogniser got wrong."""
    teacher_wrong: int
    """The same of the teacher's."""
    heard: str
    made: Made
    measures: Measures


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A group of utterances."""

    number: int
    rate: Interval
    """Word error rate."""
    teacher_rate: Interval
    ratio: Interval
    """Of the two."""
    runaways: int
    early_ends: int
    skips: int
    """Utterances in which something was left out."""
    repeats: int
    distortion_db: float
    """Mean."""
    duration: float
    """Speech without silence over the teacher's, mean; above 1 is slower."""
    duration_deviation: float
    before_s: float
    """Silence before the first sound, less the teacher's, mean."""
    after_s: float
    pauses_s: float
    clicks: int
    num_edges: int
    largest_step: float
    """At an edge of a frame, times the largest step nearby."""
    clicks_elsewhere: int
    num_elsewhere: int


@dataclass(frozen=True, slots=True)
class Bar:
    """What a voice has to reach."""

    name: str
    limit: float
    found: Interval

    @property
    def verdict(self) -> str:
        """In words."""
        if np.isnan(self.found.value):
            return "not measured"
        met = self.found.value <= self.limit
        certain = self.found.high <= self.limit if met else self.found.low > self.limit
        return ("met" if met else "missed") + ("" if certain else ", not certain")


def row(judged: Sequence[Judged], resamples: int) -> Row:
    """The figures of a group of at least one utterance; what several speakers said of a text is drawn together."""
    wrong, words, teacher = (_by_text(judged, name) for name in ("wrong", "words", "teacher_wrong"))
    measures = [item.measures for item in judged]
    durations = [found.timing.speech_s / max(found.teacher.speech_s, 0.01) for found in measures]
    clicks = [found.clicks for found in measures]

    def later(name: str) -> float:
        return _mean(getattr(found.timing, name) - getattr(found.teacher, name) for found in measures)

    return Row(
        number=len(judged),
        rate=ratio(wrong, words, resamples),
        teacher_rate=ratio(teacher, words, resamples),
        ratio=ratio(wrong, teacher, resamples),
        runaways=sum(item.made.truncated for item in judged),
        early_ends=sum(found.faults.early_end for found in measures),
        skips=sum(bool(found.faults.skips) for found in measures),
        repeats=sum(bool(found.faults.repeats) for found in measures),
        distortion_db=_mean(found.distortion_db for found in measures),
        duration=_mean(durations),
        duration_deviation=float(np.std(durations)),
        before_s=later("before_s"),
        after_s=later("after_s"),
        pauses_s=later("pauses_s"),
        clicks=sum(found.at_edges for found in clicks),
        num_edges=sum(found.num_edges for found in clicks),
        largest_step=max(found.largest for found in clicks),
        clicks_elsewhere=sum(found.elsewhere for found in clicks),
        num_elsewhere=sum(found.num_elsewhere for found in clicks),
    )


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _by_text(judged: Sequence[Judged], name: str) -> Tally:
    """A count summed over what the speakers said of each text, int64 [N]."""
    sums: dict[str, int] = {}
    for item in judged:
        sums[item.text] = sums.get(item.text, 0) + getattr(item, name)
    return np.array(list(sums.values()), np.int64)


def bars(results: dict[str, list[Judged]], resamples: int) -> list[Bar]:
    """The bars of the starter voice: each source's utterances are compared with what is asked of it."""
    q8 = results.get("q8_0", [])
    return [
        Bar("announcements, q8_0: word errors over the teacher's", 1.2, _ratio(q8, ("announcements",), resamples)),
        Bar("open vocabulary, q8_0: word errors over the teacher's", 1.4, _ratio(q8, ("sentences",), resamples)),
        Bar("codec alone: word errors over the teacher's", 1.1, _ratio(results.get("codec", []), _MAIN, resamples)),
        Bar("q4_0 beside q8_0: difference of the ratios", 0.15, _difference(results, resamples)),
        Bar("runaways, q8_0", 0, _number(q8, lambda item: item.made.truncated)),
        Bar("early ends, q8_0", 0, _number(q8, lambda item: item.measures.faults.early_end)),
        Bar("clicks at the edges of frames, q8_0", 0, _number(q8, lambda item: item.measures.clicks.at_edges)),
    ]


_MAIN = ("announcements", "sentences")
_UNKNOWN = Interval(np.nan, np.nan, np.nan)


def _ratio(judged: Sequence[Judged], sources: tuple[str, ...], resamples: int) -> Interval:
    chosen = [item for item in judged if item.source in sources]
    if not chosen:
        return _UNKNOWN
    return ratio(_by_text(chosen, "wrong"), _by_text(chosen, "teacher_wrong"), resamples)


def _difference(results: dict[str, list[Judged]], resamples: int) -> Interval:
    """How much larger q4_0's ratio is than q8_0's, either way, on the texts that both have spoken."""
    spoken = [{(item.text, item.speaker): item for item in results.get(name, [])} for name in ("q4_0", "q8_0")]
    both = [key for key in spoken[0] if key in spoken[1] and spoken[0][key].source in _MAIN]
    if not both:
        return _UNKNOWN
    wrong = [_by_text([items[key] for key in both], "wrong") for items in spoken]
    teacher = _by_text([spoken[0][key] for key in both], "teacher_wrong")
    found = ratio(wrong[0] - wrong[1], teacher, resamples)
    if found.value < 0:
        found = Interval(-found.value, -found.high, -found.low)
    return Interval(found.value, found.low, max(found.high, -found.low))


def _number(judged: Sequence[Judged], count: Callable[[Judged], int]) -> Interval:
    if not judged:
        return _UNKNOWN
    number = float(sum(count(item) for item in judged))
    return Interval(number, number, number)
