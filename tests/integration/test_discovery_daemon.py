"""The speaker in Home Assistant's discovery, with a real daemon and a real mosquitto."""

import json
import subprocess
import sys

import pytest
from broker import Watcher, free_port, start_broker
from daemon_process import NULL_CONFIG, ROOT, mqtt_section, run_daemon

pytestmark = [pytest.mark.broker, pytest.mark.engine]

TOPIC = "homeassistant/device/crier_kitchen/config"
RETAINED = ("availability", "state", "volume", "mute", "voice", "speed")


@pytest.fixture
def broker(own_broker):
    """A broker of its own, since all speakers share Home Assistant's topics."""
    return own_broker


def crier(*arguments):
    command = [sys.executable, "-m", "daemon.client", "discovery", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def retained(port):
    """All that the broker keeps, but for what it says of itself."""
    with Watcher(port, "#") as watcher, Watcher(port, "marker") as other:
        other.publish("marker", "last", retain=False)
        watcher.wait("marker")
        return {message.topic: bytes(message.payload) for message in watcher.messages if message.retain}


def test_the_speaker_appears_and_is_removed(broker, tmp_path):
    """Retained at the connect, published again at Home Assistant's birth, removed on request."""
    config = NULL_CONFIG + mqtt_section(broker.port) + 'area = "Kitchen"\n'
    with run_daemon(tmp_path, config) as daemon:
        with Watcher(broker.port) as watcher:
            payload = bytes(watcher.wait(TOPIC).payload)
            device = json.loads(payload)
            voices = [voice["name"] for voice in daemon.client().op("voices")["voices"]]
            assert device["device"]["suggested_area"] == "Kitchen"
            assert device["components"]["voice"]["options"] == voices
            state = device["components"]["voice"]["state_topic"]
            assert watcher.wait(state).payload.decode() in voices
            watcher.publish("homeassistant/status", "online")
            watcher.wait(TOPIC, lambda _: len(watcher.payloads(TOPIC)) == 2)
            assert watcher.payloads(TOPIC) == [payload, payload]
        assert retained(broker.port)[TOPIC] == payload
        printed = crier("--config", daemon.config)
        assert json.loads(printed.stdout) == device
        assert printed.stderr.strip() == TOPIC
        removed = crier("--remove", "--config", daemon.config)
        assert (removed.returncode, removed.stdout) == (0, f"Kitchen speaker: removed from Home Assistant ({TOPIC})\n")
        assert (
            "comes back with its next connection or when Home Assistant starts, unless [mqtt] discovery = false"
            in removed.stderr
        )
        # The running speaker keeps its connection and what it has said of itself.
        assert set(retained(broker.port)) == {f"crier/kitchen/{name}" for name in RETAINED}
        assert daemon.client().op("status")["status"]["metrics"]["reconnects"] == 0
        daemon.terminate()
    assert retained(broker.port)["crier/kitchen/availability"] == b"offline"
    gone = crier("--remove", "--config", daemon.config)
    assert "it is not running; the broker has forgotten its availability, state, volume" in gone.stdout
    assert not retained(broker.port)


def test_discovery_can_be_switched_off(broker, tmp_path):
    """Then nothing of it is published, not even at a birth."""
    config = NULL_CONFIG + mqtt_section(broker.port) + "discovery = false\n"
    with run_daemon(tmp_path, config), Watcher(broker.port) as watcher:
        watcher.wait("crier/kitchen/speed")
        watcher.publish("homeassistant/status", "online")
        watcher.publish("crier/kitchen/get", ResponseTopic="reply")
        watcher.wait("reply")
        assert not watcher.payloads(TOPIC)


def test_a_broker_that_does_not_answer(tmp_path):
    """Exit code 69 and one line that names it; a wrong password likewise."""
    config = tmp_path / "config.toml"
    port = free_port()
    config.write_text(mqtt_section(port))
    down = crier("--remove", "--config", config)
    assert (down.returncode, down.stdout) == (69, "")
    assert down.stderr == f"crier: broker 127.0.0.1:{port}: no connection: [Errno 111] Connection refused\n"
    broker = start_broker(tmp_path, users={"crier": "right"})
    try:
        (tmp_path / "password").write_text("wrong")
        login = f'username = "crier"\npassword_file = "{tmp_path / "password"}"\n'
        config.write_text(mqtt_section(broker.port) + login)
        refused = crier("--remove", "--config", config)
        assert refused.returncode == 69
        assert "refused by the broker: Not authorized (username 'crier')" in refused.stderr
        (tmp_path / "password").write_text("right")
        assert crier("--remove", "--config", config).returncode == 0
    finally:
        broker.kill()


def test_a_broker_that_forbids_it(tmp_path):
    """What may not be published is not said to have been removed."""
    (tmp_path / "rules").write_text("topic readwrite crier/#\n")
    broker = start_broker(tmp_path, extra=[f"acl_file {tmp_path / 'rules'}"])
    try:
        (tmp_path / "config.toml").write_text(mqtt_section(broker.port))
        forbidden = crier("--remove", "--config", tmp_path / "config.toml")
        assert (forbidden.returncode, forbidden.stdout) == (69, "")
        assert f"not removed: topic {TOPIC}: publication refused by the broker: Not authorized" in forbidden.stderr
    finally:
        broker.kill()
