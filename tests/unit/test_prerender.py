"""crier prerender: what it makes is what the daemon would speak, and the daemon finds it."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from daemon.audio.ring import PcmRing
from daemon.client import main
from daemon.config import load_config
from daemon.engine.engine import Engine
from daemon.output import Writer
from daemon.phrases import open_phrases
from daemon.synthesizer import Synthesizer
from daemon.text_source import TextSource
from daemon.values import SpeakRequest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.engine


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user's own folders, with a config file."""
    for kind in ("cache", "state", "config"):
        monkeypatch.setenv(f"XDG_{kind.upper()}_HOME", str(tmp_path / kind))
        (tmp_path / kind / "crier").mkdir(parents=True)
    for name in ("CACHE_DIRECTORY", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "config" / "crier" / "config.toml").write_text("")
    return tmp_path


def prerender(home, lines, *words):
    """Run it on these lines; the exit code."""
    (home / "phrases.txt").write_bytes(lines if isinstance(lines, bytes) else lines.encode())
    return main(["prerender", str(home / "phrases.txt"), *words])


def configure(home, text):
    """What the config file says."""
    (home / "config" / "crier" / "config.toml").write_text(text)


def cached(home, *requests):
    """Whether the daemon of this home has each request (keys of SpeakRequest) in its cache."""
    config = load_config(home / "config" / "crier" / "config.toml")
    settings = home / "state" / "crier" / "settings.json"
    kept = json.loads(settings.read_text()) if settings.exists() else {}
    found = []
    with Engine(config.engine) as engine:
        phrases = open_phrases(config.phrases, home / "cache" / "crier")
        synthesizer = Synthesizer(engine, text=config.text, phrases=phrases)
        for keys in requests:
            request = SpeakRequest(id="a", **keys)
            ring = PcmRing(24_000 * 30)
            spoken = synthesizer.speak(
                request,
                TextSource(request.text, more=False),
                Writer(ring),
                voice=request.voice or kept.get("voice"),
                speed=request.speed or kept.get("speed", 1.0),
            )
            found.append(spoken.cached)
            pcm = np.empty(ring.available, np.int16)
            ring.read_into(pcm)
            assert np.abs(pcm).max() > 1000
    return found


def test_every_line_is_made_once(home, capsys):
    """Blank lines and comments are passed over; the second run finds all there; the daemon does, too."""
    lines = "Dinner is ready.\n\n# for the kitchen\nThe door is open. [pause 1s] Close it.\n  dinner is ready\n"
    assert prerender(home, lines) == 0
    out = capsys.readouterr().out
    assert out.startswith("2 made, 1 already there, 0 refused; 0.2 of 64 MB are used in ")
    assert out.strip().endswith(str(home / "cache" / "crier" / "phrases"))
    assert prerender(home, lines) == 0
    assert capsys.readouterr().out.startswith("0 made, 3 already there, 0 refused")
    assert cached(home, {"text": "Dinner is ready."}, {"text": "Dinner is late."}) == [True, False]


def test_lines_as_on_the_wire(home, capsys):
    """--json: voice, seed and speed are the request's; op may be there."""
    requests = [
        {"text": "Dinner is ready.", "voice": "rms", "seed": 5, "speed": 1.5},
        {"op": "say", "text": "Good night.", "priority": "critical", "chime": "gong"},
    ]
    assert prerender(home, "".join(json.dumps(each) + "\n" for each in requests), "--json") == 0
    assert capsys.readouterr().out.startswith("2 made")
    plain = {"text": "Dinner is ready."}
    assert cached(home, requests[0], {"text": "Good night."}, plain) == [True, True, False]


def test_the_daemons_settings_and_lexicon_count(home, tmp_path):
    """Voice and speed that were set, and the lexicon of the config file: the daemon's next announcement is a hit."""
    (home / "state" / "crier" / "settings.json").write_text('{"volume": 50, "voice": "rms", "speed": 1.25}')
    (tmp_path / "lexicon.toml").write_text('[words]\nnginx = "engine x"\n')
    configure(home, f'[text]\nlexicon = "{tmp_path / "lexicon.toml"}"\n')
    assert prerender(home, "Nginx is up.\n") == 0
    wanted = {"text": "Engine x is up.", "voice": "rms", "speed": 1.25}
    assert cached(home, {"text": "Nginx is up."}, wanted, {**wanted, "voice": "slt"}) == [True, True, False]


def test_bad_lines_are_named_and_the_others_made(home, capsys):
    """Each with its number and what is wrong with it; exit code 65."""
    lines = b"\n".join([b"Dinner is ready.", "😀".encode(), b"<speak>bad", b"\xff\xfe", b"a " * 1500, b"Good night."])
    assert prerender(home, lines) == 65
    out, err = capsys.readouterr()
    assert out.startswith("2 made, 0 already there, 4 refused")
    reasons = ["nothing in the text can be spoken", "SSML", "not valid UTF-8", "limited to 2000 characters"]
    for number, (line, reason) in enumerate(zip(err.splitlines(), reasons, strict=True), 2):
        assert line.startswith(f"crier: line {number}: ")
        assert reason in line


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "Hello.", "voice": "bob"}', "no voice 'bob'"),
        ('{"text": "Hello.", "speed": 5}', "speed"),
        ('{"text": "Hello.", "txt": 1}', 'unknown key "txt" (did you mean text?)'),
        ('{"text": "Hello.", "lang": "de"}', "speaks en, not de"),
        ('{"text": "Hello.", "context": ["a"]}', "context"),
        ('{"op": "stop"}', 'op can only be "say"'),
        ("Hello.", "not valid JSON"),
    ],
)
def test_bad_json_lines(home, capsys, line, reason):
    """What the daemon would refuse, and what it would never take from the cache."""
    assert prerender(home, line, "--json") == 65
    assert reason in capsys.readouterr().err


def test_a_cache_that_is_too_small_is_told(home, capsys):
    """All are made, but not all stay: a warning that says what to change."""
    configure(home, "[phrases]\nmax_mb = 1\n")
    lines = "".join(f"<speak>Number {name}.<break time='9s'/>Done.</speak>\n" for name in ("one", "two", "three"))
    assert prerender(home, lines) == 0
    out, err = capsys.readouterr()
    assert out.startswith("3 made")
    assert "the cache is too small: it holds 2 of these phrases; raise [phrases] max_mb" in err


def test_a_phrase_longer_than_the_cache_is_refused(home, capsys):
    """Nothing else leaves for it."""
    configure(home, "[phrases]\nmax_mb = 1\n")
    long = "<break time='10s'/>Two." * 3
    assert prerender(home, f"Dinner is ready.\n<speak>One.{long}</speak>\n") == 65
    out, err = capsys.readouterr()
    assert out.startswith("1 made, 0 already there, 1 refused")
    assert "s of speech cannot be kept" in err


def test_switched_off_nothing_is_made(home, capsys):
    """[phrases] cache = false: one line that says so, exit code 78, no folder."""
    configure(home, "[phrases]\ncache = false\n")
    assert prerender(home, "Dinner is ready.\n") == 78
    assert "[phrases] cache is false" in capsys.readouterr().err
    assert not list((home / "cache" / "crier").iterdir())


def test_a_cache_that_cannot_be_written_ends_it(home):
    """A file where the folder should be: exit code 73, after the first phrase; one line says it."""
    (home / "cache" / "crier" / "phrases").touch()
    (home / "phrases.txt").write_text("Dinner is ready.\nGood night.\n")
    command = [sys.executable, "-m", "daemon.client", "prerender", str(home / "phrases.txt")]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 73
    (line,) = done.stderr.splitlines()
    assert "phrases: File exists; 0 made before that" in line


def test_a_file_that_is_not_there(home, capsys):
    """One line, exit code 65, before anything is loaded."""
    assert main(["prerender", str(home / "nosuch.txt")]) == 65
    assert "nosuch.txt: No such file" in capsys.readouterr().err


def test_stdin(home, capsys, monkeypatch):
    """'-' reads the lines from there."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Dinner is ready.\n")))
    assert main(["prerender", "-"]) == 0
    assert capsys.readouterr().out.startswith("1 made")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_what_root_makes_the_service_can_use(home):
    """Folder and files are the cache folder's owner's."""
    cache = home / "cache" / "crier"
    os.chown(cache, 12345, 12345)
    assert prerender(home, "Dinner is ready.\n") == 0
    assert {path.stat().st_uid for path in cache.rglob("*")} == {12345}


def test_the_command_line_is_a_process_like_any_other(home):
    """As a user types it, with a broken pipe's worth of nothing on stderr."""
    command = [sys.executable, "-m", "daemon.client", "prerender", "-"]
    done = subprocess.run(command, cwd=ROOT, input=b"Dinner is ready.\n", capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"1 made")
