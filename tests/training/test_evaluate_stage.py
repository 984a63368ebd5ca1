"""The whole evaluation, of the voice in the repository beside its real teacher, on a few texts."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from codec_scene import CODEC, SIZES, codec
from flite_speech import RATE, say

import daemon
from daemon.errors import BadRequestError, ModelError
from training import evaluate, rendering
from training.checkpoint import save
from training.config import Config, PathsConfig, SpeakerConfig, SpeechConfig
from training.crew import Crew
from training.evaluate_config import EvaluateConfig
from training.export_config import ExportConfig
from training.report import BEGIN, END, put_between_markers
from training.shelf import Made, read, write
from training.stopping import Stopped, StopRequest
from training.workspace import Workspace, hold

STARTER = Path(__file__).resolve().parents[2] / "models" / "starter"
TEXTS = {
    "announcements": ["the door is open.", "dinner is ready."],
    "sentences": ["the river was wide."],
    "single": ["hello."],
}
CARD = f"# A voice\n\nBefore.\n\n{BEGIN}\nold figures\n{END}\n\n## After\n"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A workspace with the teacher's speech, a codec that knows nothing, and the bundle in use, with its card."""
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
    save(work.codec / "recon.pt", {"sizes": asdict(SIZES), "codec": codec().state_dict()})
    (root / "card").mkdir()
    (root / "card" / "README.md").write_text(CARD)
    shutil.copy(STARTER / "manifest.toml", root / "card")
    return Config(
        paths=PathsConfig(work=str(work.root), bundle=str(root / "card")),
        speech=SpeechConfig(speakers=(SpeakerConfig(name="slt", description="female", flite="slt"),)),
        codec=CODEC,
        export=ExportConfig(recipes=("q8_0",)),
        evaluate=EvaluateConfig(pictures=1, resamples=100),
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
    assert "codec alone" in text.split("Words that")[0]
    numbers = json.loads((evaluated.evaluation / "report.json").read_text(), parse_constant=pytest.fail)
    assert {
        row["texts"]: row["number"] for row in numbers["rows"] if (row["what"], row["voice"]) == ("q8_0", "all")
    } == {
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


def test_a_quick_look_leaves_the_card_alone(config, evaluated, capsys):
    """With a limit or without a set, the figures are not those of the voice."""
    card = Path(config.paths.bundle) / "README.md"
    before = card.stat()
    for changes in ({"limit": 1}, {"sets": config.evaluate.sets.model_copy(update={"codec": ("announcements",)})}):
        run(config.model_copy(update={"evaluate": config.evaluate.model_copy(update=changes)}))
        assert card.stat() == before
        assert "no model card is written: [evaluate] leaves texts out" in capsys.readouterr().out
        one = "| announcements | 1 |" in (evaluated.evaluation / "report.md").read_text()
        assert one == ("limit" in changes)


def test_the_card_of_another_bundle_is_left_alone(config, evaluated, tmp_path, capsys):
    """Its figures would be those of a bundle that nobody has; the report is written, and how to install is said."""
    for manifest in (None, "name = 'other'"):
        (tmp_path / "README.md").write_text(CARD)
        if manifest:
            (tmp_path / "manifest.toml").write_text(manifest)
        (evaluated.evaluation / "report.md").unlink()
        run(config.model_copy(update={"paths": PathsConfig(work=str(evaluated.root), bundle=str(tmp_path))}))
        assert (tmp_path / "README.md").read_text() == CARD
        assert (evaluated.evaluation / "report.md").exists()
        assert "is none of these bundles; to install one: export --set export.install=q8_0" in capsys.readouterr().out


def test_two_evaluations_do_not_write_the_same_files(config, evaluated):
    """The second is refused while the first is at work."""
    with (evaluated.evaluation / "lock").open("a") as lock:
        hold(lock)
        with pytest.raises(BadRequestError, match="another run of the same stage is at work"):
            run(config)


def test_a_device_that_is_none_is_refused(config):
    """Before anything is made."""
    with pytest.raises(BadRequestError, match="expected cpu, cuda or cuda:N"):
        run(config, device="tpu")


def test_a_limit_takes_texts_from_all_over():
    """Evenly apart, the same of every speaker, and so many of each set; without one, all."""
    held = [
        SimpleNamespace(text=str(text), source=source, speaker=speaker)
        for source, count in (("sentences", 90), ("words", 4), ("single", 7))
        for text in range(count)
        for speaker in (0, 1)
    ]
    speech = SimpleNamespace(utterances=held, split=lambda _name: range(len(held)))
    numbers = evaluate.held_out(speech, ("sentences", "words"), 6)
    chosen = [(held[number].source, held[number].speaker, held[number].text) for number in numbers]
    for speaker in (0, 1):
        assert [text for *kind, text in chosen if kind == ["sentences", speaker]] == ["0", "15", "30", "45", "60", "75"]
        assert [text for *kind, text in chosen if kind == ["words", speaker]] == ["0", "1", "2", "3"]
    assert len(chosen) == 20
    assert evaluate.held_out(speech, ("words", "single"), 0) == [*range(180, 202)]


def test_another_engine_speaks_anew(config, tmp_path, monkeypatch):
    """What an older one of the same bundle has said is not taken for what the daemon says now."""
    folder = Workspace(config.paths.work).bundles / "starter-q8_0"
    shutil.copytree(Path(daemon.__file__).parent, tmp_path / "daemon")

    def kept():
        return rendering.Bundle(folder, tmp_path, Crew(1, StopRequest()))._kept

    before = kept()
    monkeypatch.setattr(daemon, "__file__", str(tmp_path / "daemon" / "__init__.py"))
    assert kept() == before
    for changed in ("engine/session.py", "text/segment.py", "synthesizer.py"):
        path = tmp_path / "daemon" / changed
        path.write_text(path.read_text() + "\n")
        assert kept() != before
        before = kept()
    (tmp_path / "daemon" / "bench.py").write_text("")
    assert kept() == before


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
    shutil.copy(STARTER / "manifest.toml", tmp_path)
    work = Workspace(tmp_path / "nothing")
    work.bundles.mkdir(parents=True)
    (work.bundles / "starter-q8_0").symlink_to(STARTER, target_is_directory=True)
    paths = PathsConfig(work=str(work.root), bundle=str(tmp_path))
    with pytest.raises(BadRequestError, match="begin"):
        run(config.model_copy(update={"paths": paths}))


def test_a_voice_that_was_not_exported_says_what_to_do(config):
    """In one line."""
    other = config.export.model_copy(update={"name": "other"})
    with pytest.raises(ModelError, match="other-q8_0: missing; run the stage export first"):
        run(config.model_copy(update={"export": other}))
