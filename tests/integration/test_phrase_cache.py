"""The phrase cache of a running daemon: said once, played from disk ever after, and never when that is not wanted."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from daemon_process import ROOT, WAV_CONFIG, render, run_daemon
from soundcard import contains

pytestmark = pytest.mark.engine

TEXT = "Dinner is ready. [pause 500ms] Good night."


def say(client, text=TEXT, **keys):
    """Have it said to its end; the final event."""
    return client.wait_for("finished", client.say(text, **keys))


def phrases(client):
    """Hits and misses so far."""
    counted = client.op("status")["status"]["metrics"]["phrases"]
    return counted["hits"], counted["misses"]


def files(folder):
    """The phrases of a daemon."""
    return sorted((folder / "home").rglob("*.phrase"))


def test_a_phrase_is_played_from_disk_after_a_restart(tmp_path):
    """To the bit what was spoken; the metrics tell of it, and it starts within a few milliseconds."""
    pcm = render(TEXT)
    with run_daemon(tmp_path) as crier:
        client = crier.client()
        say(client)
        say(client)
        assert phrases(client) == (1, 1)
        assert client.op("status")["status"]["metrics"]["phrases"]["bytes"] == files(tmp_path)[0].stat().st_size
        assert contains(crier.recording(), pcm)
        crier.terminate()
    with run_daemon(tmp_path) as crier:
        client = crier.client()
        event = say(client)
        assert phrases(client) == (1, 0)
        assert event["audio_s"] == pytest.approx(len(pcm) / 24_000, abs=0.001)
        assert contains(crier.recording(), pcm)
        started = next(e for e in client.events if e["event_type"] == "started")
        assert started["ttfa_ms"] < 100


def test_a_phrase_stops_like_speech(tmp_path):
    """Stopped in the middle, what was cached is cut within 150 ms; it comes whole the next time."""
    text = "The front door has been left open. Please close the kitchen window."
    pcm = render(text)
    with run_daemon(tmp_path) as crier:
        client = crier.client()
        say(client, text)
        before = len(np.flatnonzero(crier.recording()))
        request_id = client.say(text)
        client.wait_for("started", request_id)
        time.sleep(0.5)
        at = len(crier.recording())
        client.op("stop", what="all")
        client.wait_for("cancelled", request_id)
        assert phrases(client) == (1, 1)
        heard = np.flatnonzero(crier.recording())
        assert len(heard) - before < len(pcm) * 0.8
        assert heard[-1] < at + 24_000 * 150 // 1000 + 4800
        say(client, text)
        assert contains(crier.recording()[heard[-1] + 1 :], pcm)


def test_switched_off_nothing_spoken_is_written(tmp_path):
    """[phrases] cache = false: no file with the speech or of a phrase anywhere in the user's folders."""
    config = WAV_CONFIG + "[phrases]\ncache = false\n"
    with run_daemon(tmp_path, config) as crier:
        client = crier.client()
        say(client)
        say(client)
        assert phrases(client) == (0, 0)
        crier.terminate()
    assert not files(tmp_path)
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file() and path.stat().st_size > 10_000]


def test_prerendered_phrases_are_hits(tmp_path):
    """crier prerender with the daemon's config file, while it runs: the first time they are said they are there."""
    with run_daemon(tmp_path) as crier:
        client = crier.client()
        client.op("set", voice="rms", speed=1.25)
        time.sleep(1.5)  # settings are written once a second
        environ = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
        done = subprocess.run(
            [sys.executable, "-m", "daemon.client", "prerender", "-", "--config", str(crier.config)],
            cwd=ROOT,
            env={**environ, "HOME": str(tmp_path / "home")},
            input=f"{TEXT}\n".encode(),
            capture_output=True,
            check=True,
        )
        assert done.stdout.startswith(b"1 made")
        say(client)
        assert phrases(client) == (1, 0)
        assert contains(crier.recording(), render(TEXT, "--voice", "rms", "--speed", "1.25"))


def test_a_killed_daemon_leaves_no_half_phrase(tmp_path):
    """SIGKILL while it speaks: what is there afterwards is whole, and the daemon speaks on."""
    text = "The front door has been left open. Please close the kitchen window."
    for delay_s in (0.05, 0.1, 0.2):
        with run_daemon(tmp_path) as crier:
            client = crier.client()
            client.say(text)
            time.sleep(delay_s)
            crier.process.send_signal(signal.SIGKILL)
            crier.process.wait(10)
    with run_daemon(tmp_path) as crier:
        say(crier.client(), text)
        assert contains(crier.recording(), render(text))
    assert len(files(tmp_path)) == 1
