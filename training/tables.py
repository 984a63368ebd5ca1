"""The figures of an evaluation as Markdown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from training.evaluate_config import SETS
from training.judge import Interval
from training.tally import Judged, Row, bars, row

_NAMES = {"codec": "codec alone", "f32": "F32", "q8_0": "Q8_0", "q4_0": "Q4_0"}
_SETS = {
    "announcements": "announcements",
    "sentences": "sentences, open vocabulary",
    "words": "isolated words",
    "single": "one-word utterances",
    "paragraphs": "paragraphs",
    "recordings": "recorded sentences",
}
_ABOUT_WORDS = """\
Words that pocketsphinx (en-us) gets wrong, and in brackets the ratio to the teacher's on the same texts with its 95 %
bootstrap interval. All voices together:"""
_ABOUT_FAULTS = """\
Utterances that ran away, ended early, left something out or said something twice (found by laying them along the
teacher's); mel-cepstral distortion; length of the speech over the teacher's; silence less the teacher's; samples at the
edges of frames that stand out by half or more from all within 20 ms, and how many of as many samples elsewhere do:"""


@dataclass(frozen=True, slots=True)
class BundleInfo:
    """A bundle that was evaluated."""

    digest: str
    """sha256 of its manifest."""
    num_bytes: int


@dataclass
class Findings:
    """Everything that was found out."""

    speakers: list[str]
    """Names by number."""
    resamples: int
    judged: dict[str, list[Judged]] = field(default_factory=dict)
    """By what was judged: codec, or a recipe."""
    bundles: dict[str, BundleInfo] = field(default_factory=dict)
    """By recipe."""

    def row(self, name: str, source: str | None = None, speaker: int | None = None) -> Row | None:
        """The figures of one set of texts or all, by one speaker or all; None where there are none."""
        chosen = [
            item
            for item in self.judged.get(name, [])
            if source in (None, item.source) and speaker in (None, item.speaker)
        ]
        return row(chosen, self.resamples) if chosen else None


def markdown(found: Findings, pictures: Sequence[str]) -> str:
    """All tables, and the pictures by their paths."""
    names = [name for name in _NAMES if name in found.judged]
    parts = [_table(("asked for", "at most", "found", "95 % interval", ""), _bar_rows(found)), _ABOUT_WORDS]
    parts.append(
        _table(("texts", "number", "teacher", *(_NAMES[name] for name in names)), _word_rows(found, names, None))
    )
    if len(found.speakers) > 1:
        for speaker, voice in enumerate(found.speakers):
            columns = (f"texts, voice {voice}", "number", "teacher", *(_NAMES[name] for name in names))
            parts.append(_table(columns, _word_rows(found, names, speaker)))
    parts += [_ABOUT_FAULTS, _table(_FAULT_COLUMNS, _fault_rows(found, names))]
    parts += [f"![{path.rsplit('/', 1)[-1].removesuffix('.png')}]({path})" for path in pictures]
    parts.append(_origin(found))
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(columns: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [columns, ["---", *("---:" for _ in columns[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _bar_rows(found: Findings) -> Iterator[Sequence[str]]:
    for bar in bars(found.judged, found.resamples):
        if not np.isnan(bar.found.value):
            number = bar.limit == 0
            value = f"{bar.found.value:.0f}" if number else f"{bar.found.value:.2f}"
            between = "" if number else f"{bar.found.low:.2f} to {bar.found.high:.2f}"
            yield bar.name, f"{bar.limit:g}", value, between, bar.verdict


def _word_rows(found: Findings, names: Sequence[str], speaker: int | None) -> Iterator[Sequence[str]]:
    for source in SETS:
        rows = [found.row(name, source, speaker) for name in names]
        measured = [figures for figures in rows if figures]
        if measured:
            most = max(measured, key=lambda figures: figures.number)
            cells = (
                f"{_percent(figures.rate.value)} ({_interval(figures.ratio)})" if figures else "" for figures in rows
            )
            yield _SETS[source], str(most.number), _percent(most.teacher_rate.value), *cells


_FAULT_COLUMNS = (
    "what",
    "voice",
    "number",
    "ran away",
    "early ends",
    "skips",
    "repeats",
    "distortion",
    "length",
    "silence before",
    "after",
    "within",
    "at edges",
    "elsewhere",
)


def _fault_rows(found: Findings, names: Sequence[str]) -> Iterator[Sequence[str]]:
    for name in names:
        for speaker, voice in enumerate(found.speakers):
            if figures := found.row(name, None, speaker):
                alike = figures.clicks_elsewhere * figures.num_edges / max(1, figures.num_elsewhere)
                yield (
                    _NAMES[name],
                    voice,
                    *(str(n) for n in (figures.number, figures.runaways, figures.early_ends, figures.skips)),
                    str(figures.repeats),
                    f"{figures.distortion_db:.1f} dB",
                    f"{figures.duration:.2f} ± {figures.duration_deviation:.2f}",
                    *(f"{value:+.2f} s" for value in (figures.before_s, figures.after_s, figures.pauses_s)),
                    f"{figures.clicks} of {figures.num_edges}",
                    f"{alike:.1f}",
                )


def _origin(found: Findings) -> str:
    return "\n".join(
        f"- {_NAMES[recipe]}: {info.num_bytes / 1e6:.1f} MB, manifest sha256 {info.digest[:16]}"
        for recipe, info in found.bundles.items()
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _interval(found: Interval) -> str:
    return (
        "no errors by the teacher"
        if np.isnan(found.value)
        else f"{found.value:.2f}, {found.low:.2f} to {found.high:.2f}"
    )
