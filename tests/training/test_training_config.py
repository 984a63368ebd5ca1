"""The configuration of a training: what is refused, and how it is said."""

from pathlib import Path

import pytest

from daemon.errors import ConfigError
from training.config import load

SPEAKER = {"name": "a", "description": "", "flite": "slt"}
STARTER = Path(__file__).resolve().parents[2] / "training" / "starter.toml"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("codec.stepz", 3, r"unknown key codec\.stepz \(did you mean steps\?\)"),
        ("speech.speakers", [SPEAKER | {"repeets": 2}], r"speakers\.0\.repeets \(did you mean repeats\?\)"),
        ("codec.steps", "12", r'codec\.steps: expected a whole number, got "12"'),
        ("codec.adversary.batch", 0, r"codec\.adversary\.batch: "),
        ("codec.steps", 100, r"steps: expected more than start_codebooks \(150\)"),
        ("paths.work.x", 1, "paths.work.x: work is no table"),
        ("speech.speakers.flite", "slt", "speakers is no table"),
        (
            "speech.speakers",
            [SPEAKER, SPEAKER],
            "another name for each, found a, a",
        ),
        ("export.default_voice", "anna", "expected one of slt, rms, found anna"),
        ("lm.positions", 100, "expected at least longest"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_key(name, value, said):
    """A misspelled key, another type, a value out of range, and values that do not go together."""
    with pytest.raises(ConfigError, match=said):
        load(STARTER, {name: value})


def test_both_configurations_of_the_repository_are_taken():
    """That of the starter voice, and the one to copy for a voice of one's own."""
    assert [speaker.name for speaker in load(STARTER).speech.speakers] == ["slt", "rms"]
    assert load(STARTER.with_name("own-voice.toml")).codec.init
