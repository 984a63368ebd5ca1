"""The stage evaluate: how a voice compares with its teacher on texts it was never trained on.

Whoever speaks a text (the teacher, its speech coded and decoded, every bundle) is heard by the same recogniser and
compared with the teacher. What was spoken and heard is kept, so that a second run only does the rest.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from daemon.errors import StoreError
from training.coded import Coded
from training.crew import Crew
from training.evaluate_config import SetsConfig
from training.judge import Judge, count_errors
from training.measures import Comparison, compare
from training.rendering import Bundle, digest
from training.report import check_card, write_report
from training.runner import check_device
from training.shelf import Made, read
from training.speech import FRAME_SAMPLES, Speech, evenly
from training.stopping import StopRequest, on_signals
from training.tables import BundleInfo, Findings
from training.tally import Judged
from training.workspace import Workspace, hold

if TYPE_CHECKING:
    from training.config import Config

_RECIPES = ("f32", "q8_0", "q4_0")
_MEMORY = "heard.jsonl"


def run(config: "Config", *, device: str, processes: int, minutes: float | None) -> None:
    """Measure what ``[evaluate.sets]`` names, write the report and, if that is of the bundle in use, its model card.

    Raises:
        Stopped: it ended early; what was spoken and heard is kept.
        SpeechError: a process was killed; likewise.
        ModelError: a stage before has not been run, or what it left is damaged.
        BadRequestError: no such device, no place for the figures in the model card, or another run at work here.
        StoreError: something cannot be written.
    """
    check_device(device, processes)
    work, chosen = Workspace(config.paths.work), config.evaluate
    folders = _bundles(config, work)
    why_not = _why_no_card(config, folders.values())
    card = None if why_not else Path(config.paths.bundle) / "README.md"
    if card:
        check_card(card)  # now, not after hours
    speech, request = Speech(work), StopRequest(minutes)
    found = Findings([speaker.name for speaker in config.speech.speakers], chosen.resamples)
    with on_signals(request), _alone(work.evaluation), Crew(processes, request) as crew:
        panel = _Panel(speech, work, crew)
        if numbers := held_out(speech, chosen.sets.codec, chosen.limit):
            own = crew if device == "cpu" else Crew(1, request)  # a GPU has little room for many processes
            coded = Coded(work, config.codec.keep_codebooks, device, own).speak(speech, numbers)
            found.judged["codec"] = panel.judge(numbers, coded, FRAME_SAMPLES, 0)
        for recipe, folder in folders.items():
            if numbers := held_out(speech, getattr(chosen.sets, recipe), chosen.limit):
                bundle = Bundle(folder, work.evaluation, crew)
                found.judged[recipe] = panel.judge_bundle(bundle, numbers)
                found.bundles[recipe] = BundleInfo(bundle.digest, bundle.num_bytes)
        write_report(found, speech, chosen.pictures, work.evaluation, card)
    if why_not:
        print(f"evaluate: no model card is written: {why_not}")


def _bundles(config: "Config", work: Workspace) -> dict[str, Path]:
    """Those that are to be evaluated, by recipe."""
    return {
        recipe: work.bundles / f"{config.export.name}-{recipe}"
        for recipe in _RECIPES
        if recipe in config.export.recipes and getattr(config.evaluate.sets, recipe)
    }


def _why_no_card(config: "Config", evaluated: Iterable[Path]) -> str:
    """What would make the figures those of something else than the bundle in use; empty if nothing."""
    chosen, installed = config.evaluate, Path(config.paths.bundle)
    if chosen.limit or any(set(sets) - set(getattr(chosen.sets, name)) for name, sets in SetsConfig()):
        return "[evaluate] leaves texts out"
    if digest(installed) not in {digest(folder) for folder in evaluated} - {""}:
        return f"{installed} is none of these bundles; to install one: export --set export.install=q8_0"
    return ""


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other evaluations away from what is kept here.

    Raises:
        BadRequestError: one is at work.
        StoreError: the folder cannot be made.
    """
    path = folder / "lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as err:
        raise StoreError(f"{path}: cannot be written: {err.strerror}") from err
    with file:
        hold(file)
        yield


def held_out(speech: Speech, sets: Sequence[str], limit: int) -> list[int]:
    """The utterances of the sets; of each set and speaker ``limit`` from all over it, unless that is 0.

    Speakers who were given the same texts are judged by the same ones.
    """
    kinds: dict[tuple[str, int], list[int]] = {}
    for number in speech.split("held"):
        item = speech.utterances[number]
        if item.source in sets:
            kinds.setdefault((item.source, item.speaker), []).append(number)
    return sorted(number for numbers in kinds.values() for number in evenly(numbers, limit or len(numbers)))


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
