"""The whole evaluation, of the voice in the repository beside its real teacher, on a few texts."""

import json
import shutil
from pathlib import Path

import pytest
from flite_speech import RATE, say

from daemon.errors import BadRequestError, ModelError
from training import evaluate, rendering
from training.config import Config, PathsConfig, SpeakerConfig, SpeechConfig
from training.evaluate_config import EvaluateConfig, SetsConfig
from training.report import BEGIN, END, put_between_markers
from training.shelf import Made, read, write
from training.stopping import Stopped
from training.workspace import Workspace

STARTER = Path(__file__).resolve().parents[2] / "models" / "starter"
TEXTS = {
    "announcements": ["the door is open.", "dinner is ready."],
    "sentences": ["the river was wide."],
    "single": ["hello."],
}
CARD = f"# A voice\n\nBefore.\n\n{BEGIN}\nold figures\n{END}\n\n## After\n"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A workspace with the teacher's speech and one bundle, and a model card."""
    root = tmp_path_factory.mktemp("evaluation")
    work = Workspace(root / "work")
    work.index.parent.mkdir(parents=True)
    start = 0
    with work.index.open("w") as index, work.audio.open("wb") as audio:
        for source, texts in TEXTS.items():
            for text in texts:
                pcm = say(text)
                item = {"text": text, "source": source, "split": "held", "speaker": 0, "start": start}
                index.write(json.dumps(item | {"num_samples": len(pcm), "phones": []}) + "\n")
                audio.write(pcm.tobytes())
                start += len(pcm)
    shutil.copytree(STARTER, work.bundles / "starter-q8_0")
    (root / "card").mkdir()
    (root / "card" / "README.md").write_text(CARD)
    return Config(
        paths=PathsConfig(work=str(work.root), bundle=str(root / "card")),
        speech=SpeechConfig(speakers=(SpeakerConfig(name="slt", description="female", flite="slt"),)),
        evaluate=EvaluateConfig(sets=SetsConfig(codec=(), f32=(), q4_0=()), pictures=1, resamples=100),
    )


def run(config, **given):
    evaluate.run(config, **({"device": "cpu", "processes": 1, "minutes": None} | given))


@pytest.fixture(scope="module")
def evaluated(config):
    """The workspace after an evaluation in two processes, which was stopped once."""
    with pytest.raises(Stopped):
        run(config, minutes=0)
    run(config, processes=2)
    return Workspace(config.paths.work)


def test_report_has_every_set_and_bar(config, evaluated):
    """In Markdown, and as JSON that any reader takes."""
    text = (evaluated.evaluation / "report.md").read_text()
    assert "| announcements | 2 |" in text
    assert "| one-word utterances | 1 |" in text
    assert "codec" not in text.split("Words that")[0]
    numbers = json.loads((evaluated.evaluation / "report.json").read_text(), parse_constant=pytest.fail)
    assert {row["texts"]: row["number"] for row in numbers["rows"] if row["voice"] == "all"} == {
        "announcements": 2,
        "sentences": 1,
        "single": 1,
        "all": 4,
    }
    assert {bar["verdict"] for bar in numbers["bars"]} >= {"not measured", "met"}


def test_card_is_changed_between_its_markers_only(config, evaluated):
    """And has the same tables, with pictures that lie beside it."""
    card = Path(config.paths.bundle) / "README.md"
    before, after = CARD.split(f"{BEGIN}\nold figures\n{END}")
    content = card.read_text()
    assert content.startswith(before + BEGIN)
    assert content.endswith(END + after)
    assert "| Q8_0 | slt | 4 |" in content
    assert "old figures" not in content
    assert (card.parent / "spectrograms" / "slt-1.png").read_bytes().startswith(b"\x89PNG")
    assert "(spectrograms/slt-1.png)" in content


def test_a_second_run_speaks_and_hears_nothing(config, evaluated, monkeypatch):
    """And comes to the same figures."""
    found = (evaluated.evaluation / "report.json").read_bytes()
    monkeypatch.setattr(rendering, "_speak", lambda order: pytest.fail(order.text))
    monkeypatch.setattr("training.judge.recognise", lambda _sound: pytest.fail("heard again"))
    run(config)
    assert (evaluated.evaluation / "report.json").read_bytes() == found


def test_a_quick_look_leaves_the_card_alone(config, evaluated):
    """With a limit, the figures are not those of the voice."""
    card = Path(config.paths.bundle) / "README.md"
    before = card.stat()
    limited = config.evaluate.model_copy(update={"limit": 1})
    run(config.model_copy(update={"evaluate": limited}))
    assert card.stat() == before
    assert "| announcements | 1 |" in (evaluated.evaluation / "report.md").read_text()


def test_renderings_are_the_daemons(evaluated):
    """At the daemon's rate, each with its segments, and none cut short."""
    made = sorted(evaluated.evaluation.glob("*/slt/*.flac"))
    assert len(made) == 4
    assert all(0.3 * RATE < len(read(path)) < 4 * RATE for path in made)


def test_edges_are_where_frames_and_calls_of_the_codec_meet():
    """In every segment from its own start, and none at its end."""
    made = Made(Path("x.flac"), 9000, (0, 4000))
    assert made.edges(1920, 360).tolist() == [1560, 1920, 3480, 3840, 5560, 5920, 7480, 7840]
    assert made.ends == (4000, 9000)


def test_sounds_are_kept_exactly(tmp_path):
    """Sample for sample, and nothing else is left in the folder."""
    pcm = say("hello.")
    write(tmp_path / "a" / "hello.flac", pcm)
    assert (read(tmp_path / "a" / "hello.flac") == pcm).all()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["hello.flac"]


@pytest.mark.parametrize("content", ["# A voice\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{BEGIN}\n{END}\n", f"{BEGIN}\n"])
def test_a_card_without_its_markers_is_refused(tmp_path, content):
    """And not touched."""
    card = tmp_path / "README.md"
    card.write_text(content)
    with pytest.raises(BadRequestError, match=r"README\.md"):
        put_between_markers(card, "figures")
    assert card.read_text() == content


def test_a_card_without_its_markers_is_noticed_before_anything_is_made(config, tmp_path):
    """Not after hours."""
    (tmp_path / "README.md").write_text("# A voice\n")
    paths = PathsConfig(work=str(tmp_path / "nothing"), bundle=str(tmp_path))
    with pytest.raises(BadRequestError, match="begin"):
        run(config.model_copy(update={"paths": paths}))


def test_a_voice_that_was_not_exported_says_what_to_do(config):
    """In one line."""
    other = config.export.model_copy(update={"name": "other"})
    with pytest.raises(ModelError, match="other-q8_0: missing; run the stage export first"):
        run(config.model_copy(update={"export": other}))
