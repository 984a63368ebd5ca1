"""The MQTT input and brokers that let not everyone do everything: passwords, TLS, access lists."""

import contextlib
import json
import logging
import os
import re
import subprocess
from pathlib import Path

import pytest
from broker import Watcher, free_port, make_certificates, refusing_mqtt5, start_broker, write_passwords
from daemon_process import NULL_CONFIG, mqtt_section, run_daemon
from mqtt_running import mosquitto_pub, running, wait_until

from daemon.config_sections import MqttConfig
from daemon.errors import ConfigError
from daemon.inputs.discovery import Discovery
from daemon.inputs.mqtt_credentials import read_password, tls_context

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
PLUGIN = "mosquitto_dynamic_security.so"
pytestmark = pytest.mark.broker


def test_a_wrong_password_is_logged_once(tmp_path, caplog):
    """The refusal names the reason and the user, once, however often it is tried; the right one connects."""
    broker = start_broker(tmp_path, users={"crier": "right"})
    caplog.set_level(logging.WARNING, "daemon.inputs")
    try:
        broker_log = tmp_path / "mosquitto.log"
        with running(broker.port, "kitchen", username="crier", password="wrong", connected=False):  # noqa: S106 a test's own
            wait_until(lambda: broker_log.read_text().count("not authorised") >= 2)
        (record,) = caplog.records
        assert "refused by the broker: Not authorized (username 'crier')" in record.message
        with running(broker.port, "kitchen", username="crier", password="right") as mqtt:  # noqa: S106 a test's own
            assert mqtt.connected
    finally:
        broker.kill()


def access_rules(*refused):
    """What mosquitto's plugin for access control reads: everyone may subscribe to all but these topics."""
    rules = [{"acltype": "subscribePattern", "topic": "#", "allow": True}]
    rules += [{"acltype": "subscribeLiteral", "topic": topic, "allow": False, "priority": 1} for topic in refused]
    everything = {"publishClientSend": True, "publishClientReceive": True, "subscribe": False, "unsubscribe": True}
    return json.dumps(
        {
            "defaultACLAccess": everything,
            "anonymousGroup": "all",
            "groups": [{"groupname": "all", "roles": [{"rolename": "all"}]}],
            "roles": [{"rolename": "all", "acls": rules}],
        }
    )


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_refused_subscriptions_are_named_and_tried_again(tmp_path, caplog, version):
    """Each forbidden topic is in the log, the others are heard; allowed at the next connect, it is heard as well."""
    (plugin,) = Path("/usr/lib").glob(f"*/{PLUGIN}")
    rules = tmp_path / "rules.json"
    rules.write_text(access_rules("crier/kitchen/pause", "crier/all/stop"))
    broker = start_broker(tmp_path, extra=[f"plugin {plugin}", f"plugin_opt_config_file {rules}"])
    with contextlib.ExitStack() as stack:
        stack.callback(broker.kill)
        port = broker.port if version == "5" else stack.enter_context(refusing_mqtt5(broker.port))
        mqtt = stack.enter_context(running(port, "kitchen"))
        wait_until(lambda: caplog.text.count("subscription refused by the broker") == 2)
        assert "topic crier/kitchen/pause: subscription refused" in caplog.text
        assert "topic crier/all/stop: subscription refused" in caplog.text
        mosquitto_pub(broker.port, "crier/kitchen/pause", "")
        mosquitto_pub(broker.port, "crier/kitchen/say", "heard")
        mqtt.speaker.wait_said("heard")
        assert ("pause",) not in mqtt.speaker.calls
        rules.write_text(access_rules())
        broker.restart()
        wait_until(lambda: mqtt.reconnects == 1 and mqtt.connected)
        mosquitto_pub(broker.port, "crier/kitchen/pause", "", "-q", "1")
        mqtt.speaker.wait("pause")


@pytest.mark.filterwarnings("ignore:unclosed <ssl:ResourceWarning")  # paho leaves it to the collector
def test_tls(tmp_path, caplog):
    """With the right CA it is spoken to; with another it is refused with a reason."""
    broker = start_broker(tmp_path, tls=True)
    (tmp_path / "other").mkdir()
    make_certificates(tmp_path / "other")
    try:
        with running(broker.port, "kitchen", tls_ca=str(tmp_path / "ca.pem")) as mqtt:
            for number in range(20):
                options = ("--cafile", str(tmp_path / "ca.pem"), "-h", "localhost", "-q", "1")
                mosquitto_pub(broker.port, "crier/kitchen/say", f"safe {number}", *options)
            mqtt.speaker.wait_said("safe 19")
        with running(broker.port, "kitchen", tls_ca=str(tmp_path / "other" / "ca.pem"), connected=False):
            wait_until(lambda: "certificate verify failed" in caplog.text)
    finally:
        broker.kill()


def test_credential_files_are_checked(tmp_path, monkeypatch):
    """A missing CA or password file is one clear error; systemd's credential is found by itself, ~ is the home."""
    with pytest.raises(ConfigError, match="/nowhere"), running(free_port(), "x", tls_ca="/nowhere"):
        pass
    with pytest.raises(ConfigError, match=r"^mqtt.password_file /nowhere: No such file or directory$"):
        read_password(MqttConfig(password_file="/nowhere"), None)  # noqa: S106 a path
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="not a regular file"):
        read_password(MqttConfig(password_file=str(tmp_path / "fifo")), None)
    (tmp_path / "mqtt-password").write_text("secret\nmore")
    assert read_password(MqttConfig(), tmp_path) == "secret"
    assert read_password(MqttConfig(password_file=str(tmp_path / "mqtt-password")), None) == "secret"
    assert read_password(MqttConfig(), None) is None
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_password(MqttConfig(password_file="~/mqtt-password"), None) == "secret"  # noqa: S106 a path
    with pytest.raises(ConfigError, match=f"{tmp_path}/no.pem: No such file"):
        tls_context(MqttConfig(tls_ca="~/no.pem"))
    config = MqttConfig(tls_cert="kitchen.pem")
    with pytest.raises(ConfigError, match="need tls_ca"):
        tls_context(config)


@pytest.mark.filterwarnings("ignore:unclosed <ssl:ResourceWarning")  # paho leaves it to the collector
def test_client_certificate(tmp_path, caplog):
    """Where the broker asks for one, the speaker gets in with its certificate, and not without."""
    options = ["require_certificate true", "use_identity_as_username true"]
    broker = start_broker(tmp_path, tls=True, extra=options)
    files = {"tls_ca": "ca.pem", "tls_cert": "client.pem", "tls_key": "client.key"}
    paths = {key: str(tmp_path / name) for key, name in files.items()}
    try:
        with running(broker.port, "kitchen", **paths):
            wait_until(
                lambda: " as crier-kitchen (p5, c1, k30, u'kitchen')" in (tmp_path / "mosquitto.log").read_text()
            )
        assert not caplog.records
        with running(broker.port, "kitchen", tls_ca=paths["tls_ca"], connected=False) as mqtt:
            wait_until(lambda: "connection lost" in caplog.text or "no connection" in caplog.text)
            assert not mqtt.connected
    finally:
        broker.kill()


def test_an_encrypted_key_is_an_error_and_no_question(tmp_path):
    """The daemon never waits for somebody to type."""
    make_certificates(tmp_path)
    command = ["openssl", "ec", "-in", "client.key", "-aes256", "-passout", "pass:secret", "-out", "locked.key"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    names = {"tls_ca": "ca.pem", "tls_cert": "client.pem", "tls_key": "locked.key"}
    with pytest.raises(ConfigError, match=r"locked\.key"):
        tls_context(MqttConfig(**{key: str(tmp_path / name) for key, name in names.items()}))


@pytest.mark.parametrize("where", ["file", "credential"])
def test_the_daemon_finds_its_password(tmp_path, where):
    """In password_file, or where systemd puts a credential."""
    broker = start_broker(tmp_path, users={"crier": "s3cret"})
    secret = tmp_path / "mqtt-password"
    secret.write_text("s3cret\n")
    section = mqtt_section(broker.port) + 'username = "crier"\n'
    if where == "file":
        section += f'password_file = "{secret}"\n'
    (tmp_path / "daemon").mkdir()
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path)} if where == "credential" else {}
    try:
        with (
            run_daemon(tmp_path / "daemon", NULL_CONFIG + section, env=env),
            Watcher(broker.port, user=("crier", "s3cret")) as watcher,
        ):
            watcher.wait("crier/kitchen/availability", lambda payload: payload == b"online")
    finally:
        broker.kill()


PASSWORDS = {"kitchen": "k", "homeassistant": "h", "doorbell": "b", "dashboard": "d", "stranger": "s"}


@pytest.fixture
def guarded(tmp_path):
    """A mosquitto with the configuration and the access list of docs/security.md."""
    blocks = re.findall(r"^```\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    settings = next(block for block in blocks if "acl_file" in block)
    rules = next(block for block in blocks if block.startswith('# The speaker "kitchen"'))
    accounts = next(block for block in blocks if "mosquitto_passwd" in block)
    make_certificates(tmp_path)
    broker = start_broker(tmp_path, start=False)
    (tmp_path / "crier.acl").write_text(rules)
    assert re.findall(r"(\w+)$", accounts, re.MULTILINE) == [name for name in PASSWORDS if name != "stranger"]
    write_passwords(tmp_path / "crier.passwords", PASSWORDS)
    settings = settings.replace("/etc/mosquitto/certs", str(tmp_path)).replace("/etc/mosquitto", str(tmp_path))
    plain = f"listener {broker.port} 127.0.0.1\n"  # for the clients of this test
    encrypted = free_port()
    settings = settings.replace("listener 8883", f"listener {encrypted} 127.0.0.1")
    (tmp_path / "mosquitto.conf").write_text(f"user root\n{plain}{settings}")
    broker.start()
    yield broker, encrypted
    broker.kill()


def test_the_access_list_of_the_page(guarded, tmp_path, caplog):
    """The speaker serves and appears; the doorbell may speak and no more; a dashboard only reads; strangers nothing."""
    broker, encrypted = guarded
    base = "crier/kitchen"
    settings = {"username": "kitchen", "password": "k", "tls_ca": str(tmp_path / "ca.pem")}
    with contextlib.ExitStack() as stack:
        people = {
            name: stack.enter_context(Watcher(broker.port, "#", user=(name, PASSWORDS[name])))
            for name in ("homeassistant", "doorbell", "dashboard", "stranger")
        }
        features = lambda config, speaker: [Discovery(config, speaker)]  # noqa: E731 a factory
        mqtt = stack.enter_context(running(encrypted, "kitchen", features=features, **settings))
        people["homeassistant"].wait("homeassistant/device/crier_kitchen/config")
        people["dashboard"].wait(f"{base}/state")
        for name in ("stranger", "dashboard"):
            people[name].publish(f"{base}/say", f"from {name}")
            people[name].publish(f"{base}/stop")
        people["doorbell"].publish(f"{base}/volume/set", "100")
        people["doorbell"].publish("crier/all/say/critical", "ding", ResponseTopic="crier/answers/doorbell")
        people["homeassistant"].publish("homeassistant/status", "online")
        people["homeassistant"].publish(f"{base}/pause")
        mqtt.speaker.wait("pause")
        assert [call[0] for call in mqtt.speaker.calls] == ["say", "pause"]
        assert json.loads(people["doorbell"].wait("crier/answers/doorbell").payload)["ok"]
        people["dashboard"].wait(f"{base}/event")
        assert not people["stranger"].messages
        assert {message.topic for message in people["doorbell"].messages} == {"crier/answers/doorbell"}
        assert not caplog.records
        # With its own rights the speaker answers only where it may.
        people["doorbell"].publish(f"{base}/say", "deputy", ResponseTopic="homeassistant/status")
        wait_until(lambda: "topic homeassistant/status: publication refused by the broker" in caplog.text)
