"""The daemon's own part in MQTT: what only the whole of it does."""

import json

import pytest
from broker import Watcher, start_broker
from daemon_process import NULL_CONFIG, mqtt_section, run_daemon

pytestmark = [pytest.mark.broker, pytest.mark.engine]


@pytest.fixture
def broker(tmp_path):
    """Not started yet."""
    (tmp_path / "broker").mkdir()
    broker = start_broker(tmp_path / "broker", start=False)
    yield broker
    broker.kill()


def test_the_socket_is_served_while_the_broker_is_down(broker, tmp_path):
    """Ready and speaking without a broker; connected when it comes; offline when the daemon ends."""
    with run_daemon(tmp_path, NULL_CONFIG + mqtt_section(broker.port)) as daemon:
        client = daemon.client()
        client.wait_for("finished", client.say("No broker yet."))
        assert "Connection refused" in daemon.log.read_text()
        broker.start()
        with Watcher(broker.port) as watcher:
            watcher.wait("crier/kitchen/availability", lambda payload: payload == b"online", timeout=40)
            watcher.publish("crier/kitchen/say/json", '{"text": "Here it is.", "id": "x"}')
            client.wait_for("finished", "x")
            daemon.terminate()
            watcher.wait("crier/kitchen/availability", lambda payload: payload == b"offline")


def test_settings_duplicates_and_stats(broker, tmp_path):
    """Speed is set, told and remembered; an id speaks once; the figures are those of what was said."""
    broker.start()
    config = NULL_CONFIG + mqtt_section(broker.port) + "stats_s = 5\n"
    with Watcher(broker.port) as watcher:
        with run_daemon(tmp_path, config) as daemon:
            watcher.wait("crier/kitchen/speed", lambda payload: payload == b"1")
            first = json.loads(watcher.wait("crier/kitchen/stats").payload)
            assert (first["rtf"], first["requests"]) == (None, 0)
            watcher.publish("crier/all/speed/set", "1.25")
            watcher.wait("crier/kitchen/speed", lambda payload: payload == b"1.25")
            watcher.publish("crier/kitchen/speed/set", "3", ResponseTopic="refused")
            assert json.loads(watcher.wait("refused").payload)["error"]["code"] == "bad_request"
            client = daemon.client()
            for _ in range(2):
                watcher.publish("crier/kitchen/say", "Said once.", UserProperty=[("id", "x")], ResponseTopic="said")
            client.wait_for("finished", "x")
            assert client.wait_for("rejected", "x")["reason"] == "duplicate"
            told = [json.loads(payload) for payload in watcher.payloads("crier/kitchen/event")]
            assert [event["event_type"] for event in told if event["id"] == "x"].count("started") == 1
            assert [json.loads(payload)["ok"] for payload in watcher.payloads("said")] == [True, False]
            last = watcher.wait("crier/kitchen/stats", lambda payload: json.loads(payload)["requests"] == 1)
            assert json.loads(last.payload)["rtf"] > 0
            assert json.loads(last.payload)["ttfa_ms"] > 0
            daemon.terminate()
        before = len(watcher.payloads("crier/kitchen/speed"))
        with run_daemon(tmp_path, config):
            watcher.wait("crier/kitchen/speed", lambda _: len(watcher.payloads("crier/kitchen/speed")) > before)
            assert watcher.payloads("crier/kitchen/speed")[-1] == b"1.25"
