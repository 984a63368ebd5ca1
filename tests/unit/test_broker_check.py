"""crier doctor connects to the broker as crierd would: with the user, the password and the TLS of the configuration."""

import socket

import pytest
from broker import free_port, make_certificates, refusing_mqtt5, start_broker

from daemon import broker_check
from daemon.broker_check import BrokerCheck
from daemon.config_sections import MqttConfig


def tried(port, *, host="127.0.0.1", **fields):
    """(MQTT version, trouble) of an attempt."""
    check = BrokerCheck(MqttConfig(enabled=True, host=host, port=port, **fields), None).run()
    return check.version, check.trouble


@pytest.mark.broker
def test_a_broker_that_takes_the_connection_is_well(broker):
    """With MQTT 5, or with 3.1.1 where it knows no other."""
    assert tried(broker.port) == ("5", "")
    with refusing_mqtt5(broker.port) as port:
        assert tried(port) == ("3.1.1", "")


@pytest.mark.broker
def test_a_wrong_password_is_told_with_the_user(tmp_path):
    """The right one, from the file that is configured, is taken; a missing file is named."""
    folder = tmp_path / "broker"
    folder.mkdir()
    broker = start_broker(folder, users={"crier": "right"})
    try:
        secret = tmp_path / "password"
        secret.write_text("right\n")
        known = {"username": "crier", "password_file": str(secret)}
        assert tried(broker.port, **known) == ("5", "")
        secret.write_text("wrong\n")
        version, trouble = tried(broker.port, **known)
        assert (version, trouble) == ("", "refused by the broker: Not authorized (username 'crier')")
        secret.unlink()
        assert "password_file" in tried(broker.port, **known)[1]
    finally:
        broker.kill()


@pytest.mark.broker
@pytest.mark.filterwarnings("ignore:unclosed <ssl:ResourceWarning")  # paho leaves it to the collector
def test_tls_is_checked_as_the_daemon_checks_it(tmp_path):
    """With the broker's CA it connects; with another the certificate is what is wrong; without TLS nothing answers."""
    ours, other = tmp_path / "ours", tmp_path / "other"
    for folder in (ours, other):
        folder.mkdir()
    broker = start_broker(ours, tls=True)
    make_certificates(other)
    try:
        assert tried(broker.port, tls_ca=str(ours / "ca.pem")) == ("5", "")
        assert "certificate verify failed" in tried(broker.port, tls_ca=str(other / "ca.pem"))[1]
        assert tried(broker.port)[1]
    finally:
        broker.kill()


def test_what_is_no_broker_is_given_up(monkeypatch):
    """A port that nobody listens on; one that takes the connection and says nothing; a name that nobody has."""
    monkeypatch.setattr(broker_check, "BROKER_S", 0.3)
    assert "refused" in tried(free_port())[1]
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert tried(server.getsockname()[1])[1].startswith("no answer within")
    assert tried(1883, host="no such host")[1]
