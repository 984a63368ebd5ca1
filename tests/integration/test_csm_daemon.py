"""A daemon with a voice of CSM's kind: recorded voices come and go while it runs, and answers follow questions."""

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from daemon_process import ROOT, WAV_CONFIG, run_daemon
from small_csm import FIRST, SECOND, edited, speaking_bundle
from voice_bundle import speech

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A small random CSM that ends its speech after a few frames, and in any case soon: it is heard in real time."""
    folder = speaking_bundle(tmp_path_factory.mktemp("csm") / "small")
    edited(folder, seconds_per_token=0.05, slack_s=0.3)
    return folder


@pytest.fixture
def running(bundle, tmp_path):
    """A daemon that speaks with it into a WAV file."""
    with run_daemon(tmp_path, WAV_CONFIG + f'[engine]\nbundle = "{bundle}"\n') as daemon:
        yield daemon


def crier(running, *arguments):
    """A command of the same user."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("XDG_")}
    return subprocess.run(
        [sys.executable, "-m", "daemon.client", *arguments],
        cwd=ROOT,
        env={**clean, "HOME": str(running.folder / "home")},
        capture_output=True,
        text=True,
        check=False,
    )


def heard(running, client, text, **fields):
    """What the sound device gets for a request."""
    before = len(running.recording())
    request_id = client.say(text, **fields)
    finished = client.wait_for("finished", request_id)
    speech = np.trim_zeros(running.recording()[before:])
    assert len(speech) / 24_000 == pytest.approx(finished["audio_s"], abs=0.3)
    return request_id, speech


def test_voice_is_added_used_and_removed_while_the_daemon_runs(bundle, running):
    """No restart: the voice is listed and spoken with at once, its state is kept, and without it the default speaks."""
    recording = running.folder / "anna.flac"
    soundfile.write(recording, speech(3.0, 44_100), 44_100)
    client = running.client()
    _, plain = heard(running, client, FIRST)
    options = ["--audio", str(recording), "--transcript", "Hello, I am Anna.", "--bundle", str(bundle)]
    added = crier(running, "voice", "add", "anna", *options)
    assert added.returncode == 0, added.stderr
    assert "anna" in [voice["name"] for voice in client.op("voices")["voices"]]
    _, anna = heard(running, client, FIRST, voice="anna")
    assert not np.array_equal(anna, plain)
    assert len(list((running.folder / "home").rglob("*.kv"))) == 1
    assert client.op("set", voice="anna")["ok"]
    np.testing.assert_array_equal(heard(running, client, FIRST)[1], anna)
    assert crier(running, "voice", "remove", "anna", "--bundle", str(bundle)).returncode == 0
    np.testing.assert_array_equal(heard(running, client, FIRST)[1], plain)
    refused = client.op("say", text=FIRST, voice="anna")
    assert refused["error"]["code"] == "unknown_voice"


def test_answer_hears_the_question(running):
    """An answer is another than the same words said alone; crier say --context is the same as the wire's."""
    client = running.client()
    question, _ = heard(running, client, FIRST)
    _, alone = heard(running, client, SECOND)
    _, answer = heard(running, client, SECOND, context=[question])
    assert not np.array_equal(alone, answer)
    before = len(running.recording())
    done = crier(running, "say", SECOND, "--context", question, "--wait", "--socket", str(running.socket))
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.trim_zeros(running.recording()[before:]), answer)
    _, unknown = heard(running, client, SECOND, context=["never said"])
    np.testing.assert_array_equal(unknown, alone)


def test_context_that_cannot_be_used_is_refused(running):
    """Too much text is refused with the figures; the daemon goes on."""
    client = running.client()
    refused = client.op("say", text=SECOND, context=[{"text": "x" * 1500}] * 2)
    assert refused["error"]["code"] == "too_long"
    assert "2000 characters, got 3000" in refused["error"]["message"]
    heard(running, client, SECOND)
