"""Planted faults are found, and none in speech that has none."""

import numpy as np
import pytest
from flite_speech import RATE, heard, say

from training import faults
from training.distortion import cepstra

TEXTS = (
    "the washing machine in the basement has finished.",
    "please close the kitchen window before you leave the house.",
    "he finally understood what the others had meant.",
)


def find(teacher, speech, ends=()):
    return faults.find(cepstra(teacher), cepstra(speech), tuple(end / RATE for end in (*ends, len(speech))))


def without_faults(found):
    return not (found.early_end or found.skips or found.repeats)


@pytest.mark.parametrize("text", [*TEXTS, "yes.", "no?", "umbrella."])
@pytest.mark.parametrize("stretch", [1.0, 0.9, 1.1])
def test_none_in_the_teachers_own_speech(text, stretch):
    """Nor in that of a teacher who speaks a tenth faster or slower."""
    assert without_faults(find(say(text), say(text, stretch=stretch)))


@pytest.mark.parametrize("text", TEXTS)
def test_longer_silence_is_no_fault(text):
    """Half a second more before, after and within is neither a repeat nor a skip."""
    teacher = say(text)
    pause = np.zeros(RATE // 2, np.int16)
    quiet = RATE + int(np.abs(teacher[RATE : RATE + 2400].astype(np.int32)).argmin())
    spoken = np.concatenate([pause, teacher[:quiet], pause, teacher[quiet:], pause])
    assert without_faults(find(teacher, spoken))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("missing_s", [0.25, 1.0])
def test_an_early_end_is_found(text, missing_s):
    """Where the last word or two are not said."""
    teacher = say(text)
    cut = teacher[: heard(teacher)[1] - int(missing_s * RATE)]
    assert find(teacher, cut).early_end


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("after_s", [0.3, 0.8])
def test_a_skip_is_found(text, after_s):
    """A third of a second left out in the middle is a skip there, and no early end."""
    teacher = say(text)
    begin = heard(teacher)[0] + int(after_s * RATE)
    found = find(teacher, np.delete(teacher, np.s_[begin : begin + int(0.33 * RATE)]))
    assert len(found.skips) == 1
    assert found.skips[0].speech_s == pytest.approx(begin / RATE, abs=0.3)
    assert not found.early_end
    assert not found.repeats


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("after_s", [0.3, 0.8])
def test_a_repeat_is_found(text, after_s):
    """A third of a second said twice is a repeat, and nothing else."""
    teacher = say(text)
    begin = heard(teacher)[0] + int(after_s * RATE)
    end = begin + int(0.33 * RATE)
    found = find(teacher, np.concatenate([teacher[:end], teacher[begin:]]))
    assert len(found.repeats) == 1
    assert not found.early_end
    assert not found.skips


@pytest.mark.parametrize(
    ("complete", "other"),
    [
        ("the light in the kitchen is on.", "the light in the kitchen kitchen is on."),
        ("the garage door has been left open.", "the garage door garage door has been left open."),
    ],
)
def test_words_said_twice_or_left_out_are_found(complete, other):
    """In speech that was made of another text, with another melody, and so by no cut."""
    assert find(say(complete), say(other)).repeats
    assert find(say(other), say(complete)).skips


def test_an_early_end_of_a_segment_is_found():
    """Of a first sentence that is not said to its end, although the second is."""
    first, second = say(TEXTS[0]), say(TEXTS[1])
    cut = first[: heard(first)[1] - RATE // 2]
    found = find(np.concatenate([first, second]), np.concatenate([cut, second]), ends=(len(cut),))
    assert found.early_end


def test_silence_is_an_early_end():
    """Of everything."""
    assert find(say("yes."), np.zeros(RATE, np.int16)).early_end
