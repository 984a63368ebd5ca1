"""CSM-1B's true shape, slower than real time on small machines: a crierd plays it without one underrun."""

import subprocess
import sys

import numpy as np
import pytest
from daemon_process import ROOT, run_daemon
from soundcard import contains

from daemon.config_sections import EngineConfig
from daemon.engine.engine import Engine
from daemon.synthesizer import Synthesizer
from daemon.values import SAMPLE_RATE

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(900)]

SENTENCES = (
    "The washing machine has finished, please empty it.",
    "Good morning. Today will be cloudy with some rain in the afternoon.",
)
CONFIG = """
[audio]
sink = "wav"
path = "{{wav}}"
[socket]
path = "{{socket}}"
[phrases]
cache = false
[engine]
bundle = "{bundle}"
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """csm-1b, q8_0, with random weights: its speech is noise as long as the text has letters."""
    folder = tmp_path_factory.mktemp("true") / "csm-1b"
    command = [sys.executable, "-m", "quantize", "synthesize", "--shape", "csm-1b", "--quant", "q8_0"]
    subprocess.run([*command, "--out", str(folder)], cwd=ROOT, check=True, capture_output=True)
    return folder


def test_csm_1b_plays_without_an_underrun(bundle, tmp_path):
    """Through the real daemon into a sink that keeps real time: every sample in order, none missing in between; the
    wait that was told is what came."""
    with run_daemon(tmp_path, CONFIG.format(bundle=bundle), patience_s=120) as daemon:
        client = daemon.client()
        client.patience(180)
        for text in SENTENCES:
            before = len(daemon.recording())
            reply = client.op("say", text=text)
            done = client.wait_for("finished", reply["id"])
            started = client.wait_for("started", reply["id"])
            recording = daemon.recording()[before:]
            heard = np.flatnonzero(recording)
            length = int(heard[-1] - heard[0]) + 1
            waits = (reply.get("wait_s"), started.get("wait_s"))
            print(f"{text!r}: {done['audio_s']} s, wait told {waits[0]} s, came {waits[1]} s")
            assert "underrun_ms" not in done
            assert length <= done["audio_s"] * SAMPLE_RATE
        metrics = client.op("status")["status"]["metrics"]
        print({name: metrics[name] for name in ("rtf", "underruns", "underrun_ms")})
        assert metrics["underruns"] == 0
        recording = daemon.recording()
    assert contains(recording, _speech(bundle, SENTENCES[0]))


def _speech(bundle, text):
    """A sentence as the engine makes it, without a pause."""
    with Engine(EngineConfig(bundle=str(bundle))) as engine:
        session = engine.session(Synthesizer(engine).segmenter())
        session.push_text(text)
        session.flush()
        pcm = []
        while (chunk := session.next_audio_chunk()) is not None:
            pcm.append(chunk.copy())
    return np.trim_zeros(np.concatenate(pcm))
