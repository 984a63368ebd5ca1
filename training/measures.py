"""Everything that is measured of one utterance beside the teacher's of the same text, but what is heard of it."""

from dataclasses import dataclass

from daemon.values import SAMPLE_RATE, Pcm16
from training import clicks, faults, timing
from training.clicks import Clicks
from training.distortion import cepstra, distortion
from training.faults import Faults
from training.shelf import Made, read
from training.timing import Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """An utterance and the teacher's; picklable."""

    teacher: Pcm16
    """int16 [S]."""
    made: Made
    frame_samples: int
    delay_samples: int


@dataclass(frozen=True, slots=True)
class Measures:
    """The figures of one utterance."""

    distortion_db: float
    timing: Timing
    teacher: Timing
    """The teacher's."""
    faults: Faults
    clicks: Clicks


def compare(comparison: Comparison) -> Measures:
    """Measure one utterance.

    Raises:
        StoreError: its file is gone.
    """
    made = comparison.made
    pcm = read(made.path)
    teacher, speech = cepstra(comparison.teacher), cepstra(pcm)
    return Measures(
        distortion_db=distortion(teacher, speech),
        timing=timing.measure(speech),
        teacher=timing.measure(teacher),
        faults=faults.find(teacher, speech, tuple(end / SAMPLE_RATE for end in made.ends)),
        clicks=clicks.find(pcm, made.edges(comparison.frame_samples, comparison.delay_samples)),
    )
