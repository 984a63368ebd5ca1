"""What crierd would refuse, and what would not work: crier doctor finds it without a start."""

import json
import socket
import sys
import threading

import pytest

from daemon import broker_check, startup
from daemon.broker_check import BrokerCheck
from daemon.client import main
from daemon.config import Config
from daemon.config_sections import (
    ChimesConfig,
    ChimesOf,
    DuckConfig,
    HermesConfig,
    MqttConfig,
    ShareConfig,
    TextConfig,
    WyomingConfig,
)


def problems(**sections):
    """Messages, of a configuration with these sections."""
    return [str(err) for err in startup.problems(Config(**sections), None)]


def notes(**sections):
    """Likewise; the broker is tried."""
    config = Config(**sections)
    return list(startup.notes(config, BrokerCheck(config.mqtt, None).run() if config.mqtt.enabled else None))


def test_the_defaults_have_nothing_wrong():
    """Neither problems nor notes, nor with everything on that needs a broker."""
    assert problems() == notes() == []
    mqtt = MqttConfig(enabled=True)
    assert problems(mqtt=mqtt, hermes=HermesConfig(enabled=True), duck=DuckConfig(topic="a")) == []


def test_all_problems_are_found_at_once(tmp_path):
    """Tables that need another, sounds, lexicon; credentials only where they are used."""
    mqtt = {"password_file": str(tmp_path / "password"), "tls_ca": str(tmp_path / "ca")}
    found = problems(
        mqtt=MqttConfig(**mqtt),
        hermes=HermesConfig(enabled=True),
        share=ShareConfig(role="player"),
        duck=DuckConfig(topic="a"),
        chimes=ChimesConfig(before=ChimesOf(low="dong")),
        text=TextConfig(lexicon=str(tmp_path / "lexicon")),
    )
    starts = ["[share] role", "[hermes] enabled", "[duck] topic", "[chimes.before] low", "[text] lexicon"]
    assert [text.startswith(start) for text, start in zip(found, starts, strict=True)] == [True] * 5
    assert problems(mqtt=MqttConfig(enabled=True, **mqtt)) == [
        f"mqtt.password_file {tmp_path / 'password'}: No such file or directory",
        f"mqtt tls files {tmp_path / 'ca'}: No such file or directory",
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"uri": "tcp://127.0.0.1"}, "needs a host and a port"),
        ({"uri": "unix://relative"}, "absolute path"),
        ({"zeroconf": True}, "nobody else reaches"),
    ],
)
def test_a_wyoming_address_that_is_none_is_a_problem(fields, message):
    """And no note besides."""
    wyoming = WyomingConfig(enabled=True, **fields)
    (found,) = problems(wyoming=wyoming)
    assert found.startswith("[wyoming]")
    assert message in found
    assert "zeroconf" in fields or notes(wyoming=wyoming) == []


def test_a_missing_package_is_a_problem(monkeypatch):
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "daemon.inputs.wyoming_server", None)
    monkeypatch.delattr("daemon.inputs.wyoming_server", raising=False)
    (found,) = problems(wyoming=WyomingConfig(enabled=True))
    assert "pip install 'crier[wyoming]'" in found


def test_what_is_not_there_now_is_a_note():
    """A program, a broker, an address: crierd starts without."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        there = MqttConfig(enabled=True, host="127.0.0.1", port=port)
        assert notes(duck=DuckConfig(start=["sh"], end=["/bin/sh", "-c", ":"])) == []
        taken = WyomingConfig(enabled=True, uri=f"tcp://127.0.0.1:{port}")
        assert notes(wyoming=taken) == [
            f"[wyoming] uri tcp://127.0.0.1:{port}: Address already in use (by a daemon that runs?)"
        ]
    assert notes(mqtt=there, wyoming=taken, duck=DuckConfig(start=["sh"], end=["no-such-program", "x"])) == [
        "[duck] end: there is no program 'no-such-program'",
        f"[mqtt] broker 127.0.0.1:{port} is not reached: Connection refused",
    ]


def test_a_broker_that_does_not_answer_is_not_waited_for(monkeypatch):
    """However long its name takes to be resolved."""
    monkeypatch.setattr(broker_check, "BROKER_S", 0.1)
    over = threading.Event()

    def hang(*_args, **_words):
        over.wait(10)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", hang)
    (note,) = notes(mqtt=MqttConfig(enabled=True))
    over.set()
    assert "no answer within" in note


@pytest.mark.engine
def test_doctor_tells_problems_and_notes(tmp_path, capsys):
    """Notes leave the exit code alone; problems have that of a bad configuration, and are told once."""
    config = tmp_path / "config.toml"
    config.write_text('[audio]\nsink = "null"\n[duck]\nstart = ["no-such-program"]\n')
    assert main(["doctor", "--config", str(config), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["config"], report["problems"]) == (str(config), [])
    assert report["notes"] == ["[duck] start: there is no program 'no-such-program'"]
    with config.open("a") as file:
        file.write('[hermes]\nenabled = true\n[text]\nlexicon = "/nosuch.toml"\n')
    assert main(["doctor", "--config", str(config)]) == 78
    out = capsys.readouterr().out
    assert out.count("problem") == 2
    assert "no-such-program" in out
