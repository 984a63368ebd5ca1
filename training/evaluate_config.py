"""[evaluate]: what is measured of a finished voice, and how much of it."""

from typing import Annotated, Literal

from pydantic import Field

from daemon.config_sections import Section

SetName = Literal["announcements", "sentences", "words", "single", "paragraphs", "recordings"]
"""Held-out texts by where they come from: the source of an utterance."""

SETS: tuple[SetName, ...] = ("announcements", "sentences", "words", "single", "paragraphs", "recordings")
_BARS: tuple[SetName, ...] = ("announcements", "sentences")


class SetsConfig(Section):
    """[evaluate.sets]: which sets are spoken by whom; an empty list leaves that speaker out."""

    codec: tuple[SetName, ...] = _BARS
    """The teacher's speech, coded and decoded."""
    f32: tuple[SetName, ...] = _BARS
    q8_0: tuple[SetName, ...] = SETS
    q4_0: tuple[SetName, ...] = _BARS


class EvaluateConfig(Section):
    """[evaluate]: sets, how many utterances of each, and the statistics."""

    sets: SetsConfig = SetsConfig()
    limit: Annotated[int, Field(ge=0)] = 0
    """Utterances of each set, for a quick look; 0 takes all of them, and only then is the model card written."""
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 2_000
    """Draws of the bootstrap behind every interval."""
    pictures: Annotated[int, Field(ge=0, le=20)] = 2
    """Held-out sentences, for each voice, whose spectrograms are shown beside the teacher's."""
