"""Hundreds of utterances and requests: nothing grows, nothing is lost, and a long text is said to its end."""

import multiprocessing
import random
import re
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from daemon_process import NULL_CONFIG, run_daemon
from rich.console import Console
from rich.table import Table
from soundcard import wait_until

from daemon.audio.ring import PcmRing
from daemon.config_sections import EngineConfig
from daemon.engine.engine import Engine
from daemon.output import Writer
from daemon.synthesizer import Synthesizer
from daemon.text_source import TextSource
from daemon.values import SAMPLE_RATE, EventType, SpeakRequest

STARTER = Path(__file__).resolve().parents[2] / "models" / "starter"
SENTENCES = [
    line.split("\t")[1]
    for line in Path(__file__).with_name("sentences_en.txt").read_text().splitlines()
    if not line.startswith("#")
]
UTTERANCES = 1000
QUICK_UTTERANCES, QUICK_WARM_UP = 60, 20
WARM_UP = 50
GROWTH_BYTES = 2_000_000

FINAL = {kind.value for kind in EventType if kind.final}
CLIENTS = 6
REQUESTS = 300
ROUNDS = 3
"""Of as many requests each; the first is the warm-up."""
SPEAK_S = 15.0
"""After the storm it may speak so long what waits, then it is stopped."""

pytestmark = pytest.mark.engine
slow = [pytest.mark.slow, pytest.mark.timeout(1800)]


class DrainedRing(PcmRing):
    """A ring whose reader is always there at once."""

    def write(self, pcm, timeout_s):
        done = super().write(pcm, timeout_s)
        self.clear()
        return done


def speak_many(count, every, most):
    """Speak ``count`` texts of 2 to ``most + 1`` sentences; resident bytes of the process after every so many."""
    rng = random.Random(1)
    process, curve = psutil.Process(), []
    with Engine(EngineConfig(bundle=str(STARTER))) as engine:
        engine.self_test()
        synthesizer, ring = Synthesizer(engine, profile=False), DrainedRing(10 * SAMPLE_RATE)
        for number in range(1, count + 1):
            texts = rng.sample(SENTENCES, rng.randint(1, most))
            speak(synthesizer, f"Number {number}. {' '.join(texts)}", ring)
            if number % every == 0:
                curve.append((number, process.memory_info().rss))
    return curve


def speak(synthesizer, text, ring):
    """Synthesise one text as the daemon does."""
    return synthesizer.speak(
        SpeakRequest(text=text, id="soak"),
        TextSource(text, more=False),
        Writer(ring),
        voice=None,
        speed=1.0,
    )


def show(title, names, rows):
    """Print a table."""
    table = Table(*names, title=title)
    for row in rows:
        table.add_row(*(str(value) for value in row))
    Console(width=100).print("\n", table)


@pytest.mark.parametrize(
    ("count", "warm_up", "most"),
    [
        pytest.param(QUICK_UTTERANCES, QUICK_WARM_UP, 1, id="quick"),
        pytest.param(UTTERANCES, WARM_UP, 3, id="soak", marks=slow),
    ],
)
def test_memory_does_not_grow_with_utterances(count, warm_up, most):
    """After a warm-up, the other utterances add less than 2 MB of resident memory, in a process of their own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        curve = pool.apply(speak_many, (count, warm_up, most))
    show("resident memory", ("utterances", "MB"), [(number, f"{rss / 1e6:.2f}") for number, rss in curve])
    assert curve[0][0] == warm_up
    assert curve[-1][1] - curve[0][1] < GROWTH_BYTES


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_text_of_2000_characters_is_spoken_to_its_end():
    """Every word of it is in a segment, every segment is heard at a natural length, and none runs away."""
    text = ""
    for sentence in SENTENCES * 2:
        if len(text) + len(sentence) < 2000:
            text += sentence + " "
    text = text.strip().ljust(2000, "!")
    with Engine(EngineConfig(bundle=str(STARTER))) as engine:
        synthesizer = Synthesizer(engine, profile=False)
        segmenter = synthesizer.segmenter()
        segments = [segment.text for segment in [*segmenter.push(text), *segmenter.flush()]]
        assert re.findall("[a-z']+", " ".join(segments)) == re.findall("[a-z']+", text)
        session = engine.session(synthesizer.segmenter())
        session.push_text(text)
        session.flush()
        samples, truncated = np.zeros(len(segments)), False
        while (chunk := session.next_audio_chunk()) is not None:
            samples[session.chunk.segment] += len(chunk)
            truncated |= session.chunk.truncated
        expected = [engine.expected_s(engine.count_tokens(segment)) for segment in segments]
    ratios = samples / SAMPLE_RATE / expected
    print(f"\n{len(segments)} segments, {samples.sum() / SAMPLE_RATE:.1f} s; of the expected length each:", end=" ")
    print(f"{ratios.min():.2f} to {ratios.max():.2f}")
    assert not truncated
    assert ratios.min() > 0.6
    assert ratios.max() < 1.8


def fire(clients, rng, name):
    """Fire the requests, with a stop, a pause or a mute now and then; the ids that were accepted."""
    accepted = []
    for number in range(REQUESTS):
        client, luck = rng.choice(clients), rng.random()
        fields = {"priority": rng.choice(("normal", "normal", "critical", "low")), "id": f"{name}-{number}"}
        if luck < 0.3:
            fields["key"] = rng.choice("abc")
        if rng.random() < 0.5:
            fields["ttl_s"] = rng.choice((0.01, 0.5, 5.0))
        reply = client.op("say", text=" ".join(rng.sample(SENTENCES, rng.randint(1, 2))), **fields)
        if reply["ok"]:
            accepted.append(reply["id"])
        else:
            assert reply["error"]["code"] == "queue_full", reply
        if luck > 0.8:
            disturb(client, rng, accepted)
        time.sleep(rng.choice((0, 0, 0.01, 0.1)))
    for op in ({"op": "resume"}, {"op": "set", "mute": False}):
        assert clients[0].op(**op)["ok"]
    return accepted


def disturb(client, rng, accepted):
    """Stop something, or pause or mute for a while."""
    what = rng.choice(("all", "current", rng.choice(accepted or ["none"])))
    fields = rng.choice(
        (
            {"op": "stop", "what": what},
            {"op": "stop", "what": what},
            {"op": "pause"},
            {"op": "resume"},
            {"op": "set", "mute": rng.random() < 0.5},
            {"op": "status"},
        )
    )
    assert client.op(**fields)["ok"]


def drain(client, accepted):
    """Let it speak for a while, then stop the rest; return when every accepted request has its final event."""
    ids = set(accepted)
    for hurry in (False, True):
        if hurry:
            assert client.op("stop", what="all")["ok"]
        end = time.monotonic() + SPEAK_S
        while time.monotonic() < end:
            assert client.op("status")["ok"]  # its reply comes after the events before it
            if ids <= {event["id"] for event in client.events if event["event_type"] in FINAL}:
                return
            time.sleep(0.1)
    raise AssertionError("requests without a final event")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_accepted_request_ends_exactly_once(tmp_path):
    """Through a storm of requests from several clients; the daemon's memory, descriptors and threads stay the same."""
    rng, rows, ids = random.Random(2), [], []
    with run_daemon(tmp_path, NULL_CONFIG) as crier:
        watcher, info = crier.client(), crier.info()
        descriptors, threads = (
            min(info.num_fds() for _ in range(100)),
            info.num_threads(),
        )  # a note to systemd takes one
        for number in range(ROUNDS):
            clients = [crier.client(subscribe=rng.random() < 0.5) for _ in range(CLIENTS)]
            accepted = fire(clients, rng, f"round{number}")
            drain(watcher, accepted)
            for client in clients:
                client.close()
            ids += accepted
            wait_until(lambda: watcher.op("status")["status"]["state"] == "idle")
            wait_until(lambda: info.num_fds() <= descriptors)
            assert info.num_threads() == threads
            rows.append((number + 1, len(accepted), info.memory_info().rss))
        metrics = watcher.op("status")["status"]["metrics"]
        log = crier.log.read_text()
    show("storm", ("round", "accepted", "MB"), [(*row, f"{rss / 1e6:.2f}") for *row, rss in rows])
    print(metrics["requests"], f"underruns {metrics['underruns']}")
    finals = [e["id"] for e in watcher.events if e["event_type"] in FINAL and e["id"] in set(ids)]
    assert sorted(finals) == sorted(ids)
    assert metrics["runaways"] == 0
    assert "Traceback" not in log
    assert rows[-1][2] - rows[0][2] < GROWTH_BYTES
