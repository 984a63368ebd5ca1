"""Speech made on another machine: real daemons as players and renderers around a real mosquitto."""

import contextlib
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from broker import Watcher, start_broker
from daemon_process import render, run_daemon
from mqtt_running import wait_until
from recipe_pages import blocks
from sharing_scene import AUDIO, JOBS, PAGE, TEXT, final_event, hear, metrics, node
from soundcard import contains

SENTENCES = [
    f"{start} the washing machine in the cellar has finished its {name} programme, so please take out the laundry."
    for start, name in (("Today", "first"), ("Right now", "long"), ("Once more", "second"))
]
LONG = " ".join(SENTENCES)
pytestmark = pytest.mark.broker


@pytest.fixture
def broker(own_broker):
    """A broker of its own for each test: some restart it."""
    return own_broker


def test_a_player_speaks_with_a_renderers_voice(broker, tmp_path):
    """To the bit what the renderer's own render gives, with the voice that is set there, or the one asked for."""
    with node(broker, tmp_path, "renderer") as renderer, node(broker, tmp_path, "player") as player:
        assert renderer.client().op("set", voice="rms")["ok"]
        final, heard = hear(player)
        assert final["event_type"] == "finished"
        assert contains(heard, render(TEXT, "--voice", "rms")) >= 0
        final, heard = hear(player, voice="slt", seed=7)
        assert contains(heard, render(TEXT, "--voice", "slt", "--seed", "7")) >= 0
        counted = metrics(player)
        assert (counted["remote_jobs"], counted["remote_fallbacks"]) == (2, 0)
        assert metrics(renderer)["renders"] == {"finished": 2}
        assert len(renderer.recording()) == 0  # it plays nothing
        assert player.log.read_text().count("event=share_voice") == 1


def test_renderers_share_the_jobs(broker, tmp_path):
    """Ten announcements come from two renderers, each from one of them, and they are heard whole."""
    with (
        node(broker, tmp_path, "renderer", name="one") as one,
        node(broker, tmp_path, "renderer", name="two") as two,
        node(broker, tmp_path, "player") as player,
    ):
        for number in range(10):
            final, heard = hear(player, f"Number {number}.", seed=number)
            assert final["event_type"] == "finished"
            if number in (0, 9):
                assert contains(heard, render(f"Number {number}.", "--seed", str(number))) >= 0
        made = [metrics(each)["renders"].get("finished", 0) for each in (one, two)]
    assert sum(made) == 10
    assert min(made) >= 3


@pytest.mark.parametrize("tells", [True, False])
def test_without_a_renderer_the_local_voice_speaks(broker, tmp_path, tells):
    """At once if the broker tells, else after wait_s the first time, then at once; until a renderer is there."""
    silent = contextlib.nullcontext() if tells else Watcher(broker.port, JOBS)  # it takes the jobs and does nothing
    with silent, node(broker, tmp_path, "player", wait_s=1.0) as player:
        assert player.client().op("set", voice="slt")["ok"]
        client = player.client()
        ttfa_ms = []
        for _ in range(2):
            request_id = client.say(TEXT)
            ttfa_ms.append(client.wait_for("started", request_id)["ttfa_ms"])
            client.wait_for("finished", request_id)
        assert ttfa_ms[0] < 900 if tells else 1000 <= ttfa_ms[0] < 2500
        assert ttfa_ms[1] < 900
        assert contains(player.recording(), render(TEXT)) >= 0
        assert metrics(player)["remote_fallbacks"] == 2
        assert player.log.read_text().count("event=share_voice voice=local") == 1
        assert ("no renderer is connected" if tells else "no renderer answers") in player.log.read_text()
        with node(broker, tmp_path, "renderer") as renderer:
            wait_until(lambda: hear(player)[0]["event_type"] == "finished" and metrics(renderer)["renders"])
        assert metrics(player)["remote_jobs"] >= 1


def test_without_a_broker_the_local_voice_speaks_at_once(broker, tmp_path):
    """A player that has lost its broker does not wait for an answer that cannot come."""
    with node(broker, tmp_path, "player", wait_s=30.0) as player:
        broker.kill()
        wait_until(lambda: "connection lost" in player.log.read_text())
        client = player.client()
        request_id = client.say(TEXT)
        assert client.wait_for("started", request_id)["ttfa_ms"] < 5000
        client.wait_for("finished", request_id)
        assert contains(player.recording(), render(TEXT)) >= 0


def test_a_renderer_refuses_what_it_cannot_do(broker, tmp_path):
    """Bad jobs are answered with a code, and never elsewhere than below audio/; a fifth job hears busy at once."""
    with node(broker, tmp_path, "renderer"), Watcher(broker.port) as watcher:
        for number, payload in enumerate((b"{", b'{"text": "Hi", "volume": 3}', b'{"text": "..."}', b'{"text": "Hi"}')):
            watcher.publish(JOBS, payload, ResponseTopic=AUDIO, CorrelationData=str(number).encode())
        watcher.publish(JOBS, b'{"text": "Hi"}', ResponseTopic="crier/big-box/say")
        watcher.publish(JOBS, b'{"text": "Hi"}')
        watcher.wait(AUDIO, lambda payload: len(payload) > 2000)
        errors = [
            (message.properties.CorrelationData, dict(message.properties.UserProperty).get("error"))
            for message in watcher.messages
            if message.topic == AUDIO and dict(message.properties.UserProperty).get("error")
        ]
        assert errors == [(b"0", "bad_json"), (b"1", "bad_request"), (b"2", "empty")]
        for number in range(6):
            request = json.dumps({"text": LONG, "seed": number})
            watcher.publish(JOBS, request, ResponseTopic=AUDIO, CorrelationData=f"long {number}".encode())
        watcher.wait(AUDIO, lambda payload: b"jobs are under way" in payload)
        assert len(watcher.payloads("crier/big-box/say")) == 0


def test_a_stop_is_heard_by_the_renderer(broker, tmp_path):
    """The player falls silent, the job is cancelled, and no more of it is made."""
    with node(broker, tmp_path, "renderer") as renderer, node(broker, tmp_path, "player") as player:
        client = player.client()
        request_id = client.say(LONG)
        client.wait_for("started", request_id)
        assert client.op("stop")["ok"]
        assert final_event(client, request_id)["event_type"] == "cancelled"
        wait_until(lambda: metrics(renderer)["renders"] == {"cancelled": 1})
        final, heard = hear(player)
        assert final["event_type"] == "finished"
        assert contains(heard, render(TEXT)) >= 0


def test_a_renderer_killed_in_the_middle(broker, tmp_path):
    """Another goes on from the sample that was sent last: the announcement is whole, to the bit."""
    expected = np.concatenate([render(sentence) for sentence in SENTENCES])
    with (
        node(broker, tmp_path, "player", wait_s=1.0) as player,
        Watcher(broker.port, AUDIO) as watcher,
        contextlib.ExitStack() as stack,
    ):
        first = stack.enter_context(node(broker, tmp_path, "renderer", name="one"))
        client = player.client()
        request_id = client.say(LONG)
        client.wait_for("started", request_id)
        wait_until(lambda: sum(map(len, watcher.payloads(AUDIO))) >= 10 * 48_000)  # it sends no faster from here on
        assert sum(map(len, watcher.payloads(AUDIO))) < expected.nbytes
        first.process.kill()
        stack.enter_context(node(broker, tmp_path, "renderer", name="two"))
        client._socket.settimeout(60)
        assert final_event(client, request_id)["event_type"] == "finished"
        assert contains(player.recording(), expected) >= 0
        assert "event=share_broken" in player.log.read_text()


def test_a_broker_that_is_restarted(broker, tmp_path):
    """In the middle of an announcement and before the next one: both are whole, the renderer's, and spoken once."""
    expected = np.concatenate([render(sentence) for sentence in SENTENCES])
    with node(broker, tmp_path, "renderer"), node(broker, tmp_path, "player") as player:
        client = player.client()
        client._socket.settimeout(60)
        request_id = client.say(LONG)
        client.wait_for("started", request_id)
        broker.restart()
        assert final_event(client, request_id)["event_type"] == "finished"
        assert "event=share_broken" in player.log.read_text()
        # On a busy machine little may lie ahead when the broker goes, and silence fills the time until it is back.
        heard, spoken = (pcm[pcm != 0] for pcm in (player.recording(), expected))
        assert contains(heard, spoken) >= 0
        assert contains(heard[contains(heard, spoken) + len(spoken) :], spoken[:20_000]) < 0
        assert contains(hear(player)[1], render(TEXT)) >= 0
        assert metrics(player)["remote_fallbacks"] == 0


def test_sharing_needs_a_broker(tmp_path):
    """A role without [mqtt] is a mistake in the configuration, and named."""
    config = '[share]\nrole = "renderer"\n[audio]\nsink = "null"\n[socket]\npath = "{socket}"\n'
    with run_daemon(tmp_path, config, ready=False) as daemon:
        assert daemon.process.wait(20) == 78
        assert "set [mqtt] enabled = true" in daemon.log.read_text()


def test_the_pages_commands_get_speech(broker, tmp_path):
    """A renderer serves whoever speaks MQTT 5, here a shell; what it says is what the page plays."""
    script = next(block.text for block in blocks(PAGE, "sh") if block.argument == "jobs")
    script = script.replace("-V 5", f"-V 5 -p {broker.port}")
    script = "\n".join(line for line in script.splitlines() if not line.startswith("aplay"))
    with node(broker, tmp_path, "renderer"):
        subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True, timeout=30)
    pcm = np.frombuffer((tmp_path / "hello.raw").read_bytes(), np.int16)
    assert np.array_equal(pcm, render("Hello from the shell."))


def test_the_acl_of_the_page_suffices(tmp_path):
    """With the accounts of docs/speakers.md and a broker that allows nothing else, a player gets its speech."""
    acl = blocks_without_language(PAGE, "user big-box") + "\n".join(
        f"\nuser {name}\ntopic readwrite crier/{name}/#\ntopic read crier/all/#" for name in ("big-box", "kitchen")
    )
    (tmp_path / "acl").write_text(acl + "\n")
    users = {"big-box": "b", "kitchen": "k"}
    broker = start_broker(tmp_path, users=users, extra=[f"acl_file {tmp_path / 'acl'}"])
    try:
        with contextlib.ExitStack() as stack:
            daemons = {}
            for role, name in (("renderer", "big-box"), ("player", "kitchen")):
                (tmp_path / name).mkdir()
                (tmp_path / name / "password").write_text(users[name])
                login = f'username = "{name}"\npassword_file = "{tmp_path / name / "password"}"\n'
                daemons[role] = stack.enter_context(node(LoggedIn(broker, login), tmp_path, role))
            assert hear(daemons["player"])[0]["event_type"] == "finished"
            assert metrics(daemons["player"])["remote_jobs"] == 1
            lines = [line for daemon in daemons.values() for line in daemon.log.read_text().splitlines()]
            assert not [line for line in lines if "refused by the broker" in line and "crier/render" in line]
    finally:
        broker.kill()


class LoggedIn:
    """A broker's port, with what else the table [mqtt] needs."""

    def __init__(self, broker, login):
        self.port = f"{broker.port}\n{login}"


def blocks_without_language(page: Path, start: str) -> str:
    """The fenced block of a page that begins so."""
    text = page.read_text(encoding="utf-8")
    begin = text.index(f"```\n{start}") + 4
    return text[begin : text.index("```", begin)]
