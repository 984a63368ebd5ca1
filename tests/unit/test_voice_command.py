"""crier voice: from a recording to a voice that every reader finds, and each refusal as one line with its exit code."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from voice_bundle import NAME, NUM_CODEBOOKS, in_folder, make_bundle, silence, speech, write_recording

from daemon import places
from daemon.client import main
from daemon.engine.bundle import load_bundle
from daemon.engine.voice_store import VoiceStore
from daemon.engine.voices import Voices

REPOSITORY = Path(__file__).parents[2]
WORDS = "the words of the recording."


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with a bundle that takes voices, and a recording beside it."""
    folder = tmp_path_factory.mktemp("models")
    make_bundle(folder / NAME)
    write_recording(folder / "anna.ogg", np.concatenate([silence(0.5, 44_100), speech(2.0, 44_100)]), 44_100)
    return folder


@pytest.fixture
def home(tmp_path, monkeypatch, models):
    """A user whose configuration names the bundle; the service is not installed."""
    config = tmp_path / "config" / "crier" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'[engine]\nbundle = "{NAME}"\nbundle_path = ["{models}"]\n')
    for name in ("CONFIG", "STATE", "CACHE"):
        monkeypatch.setattr(places, f"SYSTEM_{name}", tmp_path / "service" / name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    return tmp_path


def voices_in(home):
    return home / "state" / "crier" / "voices" / NAME


def add(models, *options, name="anna", audio=None, transcript=WORDS):
    return main(
        ["voice", "add", name, "--audio", str(audio or models / "anna.ogg"), "--transcript", transcript, *options]
    )


def test_a_recording_becomes_a_voice(home, models, capsys):
    """One line says what was kept and where; the voice has the recording's codes and is listed, then removed."""
    options = ["--language", "de", "--description", " A\n voice ", "--speaker", "2"]
    assert add(models, *options, transcript=f" {WORDS}\n") == 0
    assert capsys.readouterr() == (f"voice anna: 2.1 s of speech at -20 dBFS, in {voices_in(home)}/anna\n", "")
    manifest = load_bundle(models / NAME).manifest
    voice = Voices(manifest, VoiceStore([voices_in(home).parent], NAME)).get("anna")
    assert (voice.description, voice.language, voice.speaker) == ("A voice", "de", 2)
    assert voice.prompt.transcript == WORDS
    assert voice.prompt.codes.shape == (26, NUM_CODEBOOKS)
    assert 'source = "anna.ogg"' in (voices_in(home) / "anna" / "voice.toml").read_text()

    assert main(["voice", "list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "* slt  en  American English, female",
        "  anna  de  A voice  (recorded, 2.1 s)",
    ]
    assert main(["voice", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["bundle"] == NAME
    assert [(v["name"], v["default"], v["recorded_s"]) for v in listed["voices"]] == [
        ("slt", True, None),
        ("anna", False, 2.08),
    ]
    assert main(["voice", "remove", "anna"]) == 0
    assert capsys.readouterr().out == f"voice anna: removed from {voices_in(home)}\n"
    assert in_folder(voices_in(home)) == []


def test_a_name_is_replaced_only_on_purpose(home, models, capsys):
    """Without --replace the first voice stays."""
    assert add(models) == 0
    assert add(models, transcript="other words") == 65
    assert "--replace" in capsys.readouterr().err
    assert WORDS in (voices_in(home) / "anna" / "voice.toml").read_text()
    assert add(models, "--replace", transcript="other words") == 0
    assert "other words" in (voices_in(home) / "anna" / "voice.toml").read_text()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"transcript": " \n"}, (65, "the transcript is empty")),
        ({"name": "../anna"}, (65, "'../anna' cannot be a voice's name")),
        ({"name": "slt"}, (65, "slt is a voice of the bundle test-voice itself")),
        ({"audio": "/nosuch.wav"}, (65, "/nosuch.wav: no such file")),
        ({"audio": REPOSITORY / "README.md"}, (65, "README.md: not audio")),
        ({"audio": "silent"}, (65, "silent")),
        ({"audio": "long"}, (65, "shorten the recording or the transcript")),
        ({"options": ["--language", "German"]}, (65, "--language 'German': give a code such as en, de or en-US")),
        ({"options": ["--language", "German"], "audio": "/nosuch.wav"}, (65, "--language 'German'")),
        ({"options": ["--speaker", "100"]}, (65, "speaker: ")),
        (
            {"options": ["--bundle", "starter", "--config", "/dev/null"]},
            (66, "cannot take new voices: it has no codec"),
        ),
        ({"options": ["--bundle", "nosuch"]}, (66, "no bundle named nosuch")),
        ({"options": ["--config", "/nosuch.toml"]}, (78, "/nosuch.toml")),
    ],
)
def test_refusals_are_one_line(home, models, capsys, changes, expected):
    """The reason on stderr, the exit code of its kind, and nothing is kept."""
    samples = {"silent": silence(3), "long": speech(25)}.get(changes.get("audio"))
    if samples is not None:
        changes = {**changes, "audio": write_recording(home / "a.wav", samples)}
    code, reason = expected
    changed = {key: value for key, value in changes.items() if key != "options"}
    assert add(models, *changes.get("options", []), **changed) == code
    shown = capsys.readouterr()
    assert reason in shown.err
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert not voices_in(home).exists()


@pytest.mark.parametrize(("given", "kept"), [("EN", "en"), ("en_US", "en-us"), ("de-AT", "de-at")])
def test_a_language_may_be_spelt_in_any_way(home, models, given, kept):
    """Upper case and _ are as good as lower case and -."""
    assert add(models, "--language", given) == 0
    assert f'language = "{kept}"' in (voices_in(home) / "anna" / "voice.toml").read_text()


def test_a_voice_that_a_later_bundle_hides_is_named_and_can_be_removed(home, models, capsys):
    """The bundle's own is used and stays."""
    assert add(models) == 0
    taken = voices_in(home) / "slt"
    (voices_in(home) / "anna").rename(taken)
    table = (taken / "voice.toml").read_text()
    (taken / "voice.toml").write_text(table.replace('name = "anna"', 'name = "slt"'))
    capsys.readouterr()
    assert main(["voice", "list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "* slt  en  American English, female",
        "  slt  (recorded, but hidden by the bundle's own voice slt; crier voice remove slt removes it)",
    ]
    assert main(["voice", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert ([voice["name"] for voice in listed["voices"]], listed["hidden"]) == (["slt"], ["slt"])
    assert main(["voice", "remove", "slt"]) == 0
    assert capsys.readouterr().out == f"voice slt: removed from {voices_in(home)}\n"
    assert main(["voice", "remove", "slt"]) == 65
    assert "slt is a voice of the bundle test-voice itself; it stays" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_exits_73(home, models, capsys):
    """With the path."""
    (home / "state").touch()
    assert add(models) == 73
    assert f"{home}/state: cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "reason"), [("slt", "is a voice of the bundle"), ("bert", "no recorded voice 'bert'")]
)
def test_only_recorded_voices_are_removed(home, capsys, name, reason):
    """The bundle's stay."""
    assert main(["voice", "remove", name]) == 65
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    "damage",
    [
        ("codes.npy", "", "anna/codes.npy: its sha256"),
        ("voice.toml", f"speaker = {'9' * 5000}", "anna/voice.toml: damaged: Exceeds the limit"),
    ],
)
def test_a_damaged_voice_is_named_and_left_out(home, models, capsys, caplog, damage):
    """The list goes on without it, and it can be removed."""
    name, content, reason = damage
    assert add(models) == 0
    (voices_in(home) / "anna" / name).write_text(content)
    assert main(["voice", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["* slt  en  American English, female"]
    assert reason in caplog.text
    assert main(["voice", "remove", "anna"]) == 0


def test_who_adds_a_voice_beside_the_service_is_told(home, models, capsys):
    """With the service's configuration and no right to its folder, the voice is the user's own, and that is said."""
    config = home / "config" / "crier" / "config.toml"
    config.rename(home / "service.toml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(places, "SYSTEM_CONFIG", home / "service.toml")
        assert add(models) == 0
    said = capsys.readouterr()
    assert str(voices_in(home)) in said.out
    assert said.err == "the service does not see it there; with sudo it is added for the service\n"


def test_what_was_computed_of_a_removed_voice_goes_with_it(home, models, monkeypatch):
    """No state of a model that heard the recording stays behind."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    kept = home / "cache" / "crier" / "kv"
    kept.mkdir(parents=True)
    (kept / "state.kv").write_bytes(b"heard")
    assert add(models) == 0
    assert main(["voice", "remove", "anna"]) == 0
    assert list(kept.iterdir()) == []


def test_root_adds_to_the_service(home, models, monkeypatch, capsys):
    """With the service's configuration, and its folder writable, a voice is the service's."""
    service = home / "service"
    (service / "STATE").mkdir(parents=True)
    (home / "config" / "crier" / "config.toml").rename(service / "CONFIG")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(home / "root"))
    assert add(models) == 0
    assert f"in {service}/STATE/voices/{NAME}/anna" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["add"], ["add", "anna"], ["add", "anna", "--audio", "x"], ["sing"], ["remove"]])
def test_wrong_usage_exits_2(argv):
    """As argparse has it."""
    with pytest.raises(SystemExit) as caught:
        main(["voice", *argv])
    assert caught.value.code == 2


def test_it_loads_no_model_and_nothing_to_train_one():
    """Neither llama.cpp nor torch is needed to add a voice."""
    code = "import sys, daemon.voice; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "onnxruntime" in loaded
    assert not loaded & {"llama_cpp", "torch", "transformers", "quantize", "pyaudio", "asyncio"}
