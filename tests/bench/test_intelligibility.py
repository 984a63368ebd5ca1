"""How well the starter voice in use is understood, beside flite, its teacher, in both voices.

The stage that evaluates a voice in training, on a few sentences of its held-out ones (tests/bench/sentences_en.txt).
"""

import json
import shutil
from pathlib import Path

import pytest

from training import evaluate, speak
from training.config import load
from training.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
SENTENCES = Path(__file__).with_name("sentences_en.txt")
MOST_TIMES_FLITE = {"announcements": 1.5, "sentences": 1.7}
"""The bars of the voice's card, 1.2 and 1.4, are for 400 and 600 utterances; 60 leave more to chance."""

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(1800)]


def held_out():
    """The sentences with their sources."""
    lines = [line for line in SENTENCES.read_text().splitlines() if not line.startswith("#")]
    return [tuple(line.split("\t")[::-1]) for line in lines]


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_the_voice_in_use_is_understood_as_its_card_says(tmp_path):
    """Word errors beside the teacher's; no utterance runs away, ends early or clicks."""
    config = load(
        ROOT / "training" / "starter.toml",
        {
            "paths.work": str(tmp_path),
            "evaluate.limit": 30,
            "evaluate.sets": {"codec": [], "f32": [], "q8_0": list(MOST_TIMES_FLITE), "q4_0": []},
        },
    )
    work = Workspace(tmp_path)
    work.corpus.write_text(json.dumps({"held": held_out(), "train": []}))
    work.bundles.mkdir()
    (work.bundles / f"{config.export.name}-q8_0").symlink_to(ROOT / "models" / "starter", target_is_directory=True)
    speak.run(config)
    evaluate.run(config, device="cpu", processes=2, minutes=None)
    print((work.evaluation / "report.md").read_text())
    report = json.loads((work.evaluation / "report.json").read_text())
    rows = [row for row in report["rows"] if row["what"] == "q8_0" and row["texts"] != "all" and row["voice"] == "all"]
    assert {row["texts"]: row["number"] for row in rows} == {"announcements": 60, "sentences": 60}
    for row in rows:
        assert row["ratio"][0] < MOST_TIMES_FLITE[row["texts"]]
        assert (row["runaways"], row["early_ends"], row["clicks"]) == (0, 0, 0)
