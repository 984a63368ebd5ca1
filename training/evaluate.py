"""The stage evaluate: how a voice compares with its teacher on texts it was never trained on.

Whoever speaks a text (the teacher, its speech coded and decoded, every bundle) is heard by the same recogniser and
compared with the teacher. What was spoken and heard is kept, so that a second run only does the rest.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.coded import Coded
from training.crew import Crew
from training.judge import Judge, count_errors
from training.measures import Comparison, compare
from training.rendering import Bundle
from training.report import check_card, write_report
from training.shelf import Made, read
from training.speech import FRAME_SAMPLES, Speech
from training.stopping import StopRequest, on_signals
from training.tables import BundleInfo, Findings
from training.tally import Judged
from training.workspace import Workspace

if TYPE_CHECKING:
    from training.config import Config

_RECIPES = ("f32", "q8_0", "q4_0")
_MEMORY = "heard.jsonl"


def run(config: "Config", *, device: str, processes: int, minutes: float | None) -> None:
    """Measure what ``[evaluate.sets]`` names, write the report and, if nothing was left out, the model card.

    Raises:
        Stopped: it ended early; what was spoken and heard is kept.
        ModelError: a stage before has not been run, or what it left is damaged.
        BadRequestError: the model card has no place for the figures.
        StoreError: something cannot be written.
    """
    work, chosen = Workspace(config.paths.work), config.evaluate
    card = None if chosen.limit else Path(config.paths.bundle) / "README.md"
    if card:
        check_card(card)  # now, not after hours
    speech, request = Speech(work), StopRequest(minutes)
    found = Findings([speaker.name for speaker in config.speech.speakers], chosen.resamples)
    with on_signals(request), Crew(processes, request) as crew:
        panel = _Panel(speech, work, crew)
        if numbers := held_out(speech, chosen.sets.codec, chosen.limit):
            coded = Coded(work, config.codec.keep_codebooks, device, crew).speak(speech, numbers)
            found.judged["codec"] = panel.judge(numbers, coded, FRAME_SAMPLES, 0)
        for recipe in _RECIPES:
            numbers = held_out(speech, getattr(chosen.sets, recipe), chosen.limit)
            if numbers and recipe in config.export.recipes:
                bundle = Bundle(work.bundles / f"{config.export.name}-{recipe}", work.evaluation, crew)
                found.judged[recipe] = panel.judge_bundle(bundle, numbers)
                found.bundles[recipe] = BundleInfo(bundle.digest, bundle.num_bytes)
    write_report(found, speech, chosen.pictures, work.evaluation, card)


def held_out(speech: Speech, sets: Sequence[str], limit: int) -> list[int]:
    """The utterances of the sets, at most ``limit`` of each set and speaker unless that is 0."""
    taken: dict[tuple[str, int], int] = {}
    numbers = []
    for number in speech.split("held"):
        item = speech.utterances[number]
        if item.source in sets:
            kind = (item.source, item.speaker)
            taken[kind] = taken.get(kind, 0) + 1
            if not limit or taken[kind] <= limit:
                numbers.append(number)
    return numbers


class _Panel:
    """Hears and compares what was made of the teacher's utterances."""

    def __init__(self, speech: Speech, work: Workspace, crew: Crew) -> None:
        self._speech = speech
        self._crew = crew
        self._judge = Judge(work.evaluation / _MEMORY, crew)

    def judge_bundle(self, bundle: Bundle, numbers: Sequence[int]) -> list[Judged]:
        """Have a bundle say the texts of the teacher's utterances, in the voices of their speakers."""
        said = [self._speech.utterances[number] for number in numbers]
        made: dict[int, Made] = {}
        for speaker in sorted({item.speaker for item in said}):
            own = [number for number, item in zip(numbers, said, strict=True) if item.speaker == speaker]
            texts = [self._speech.utterances[number].text for number in own]
            made |= dict(zip(own, bundle.speak(speaker, texts), strict=True))
        return self.judge(numbers, [made[number] for number in numbers], bundle.frame_samples, bundle.delay_samples)

    def judge(
        self, numbers: Sequence[int], made: Sequence[Made], frame_samples: int, delay_samples: int
    ) -> list[Judged]:
        """Everything about the utterances that were made of the teacher's."""
        theirs = self._judge.hear(self._speech.pcm(number) for number in numbers)
        ours = self._judge.hear(read(item.path) for item in made)
        comparisons = [
            Comparison(
                teacher=np.asarray(self._speech.pcm(number)),
                made=item,
                frame_samples=frame_samples,
                delay_samples=delay_samples,
            )
            for number, item in zip(numbers, made, strict=True)
        ]
        measured = self._crew.each(compare, comparisons, "comparing")
        judged = []
        for number, item, measures, teacher, heard in zip(numbers, made, measured, theirs, ours, strict=True):
            about = self._speech.utterances[number]
            wrong, words = count_errors(about.text, heard)
            judged.append(
                Judged(
                    number=number,
                    text=about.text,
                    source=about.source,
                    speaker=about.speaker,
                    words=words,
                    wrong=wrong,
                    teacher_wrong=count_errors(about.text, teacher)[0],
                    heard=heard,
                    made=item,
                    measures=measures,
                )
            )
        return judged
