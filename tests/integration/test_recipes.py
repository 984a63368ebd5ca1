"""The programs and commands of docs/recipes, run as they stand there against a real daemon and a real mosquitto."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import ros_stand_in
from broker import Watcher
from daemon_process import NULL_CONFIG, mqtt_section, run_daemon
from recipe_pages import README, RECIPES, blocks
from soundcard import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.broker]

BIN = Path(sys.executable).parent
SHELL = RECIPES / "shell.md"
FINAL = ("finished", "cancelled", "expired", "rejected", "failed")


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory, broker):
    """The speaker in the kitchen."""
    with run_daemon(tmp_path_factory.mktemp("kitchen"), NULL_CONFIG + mqtt_section(broker.port)) as daemon:
        with Watcher(broker.port, "crier/kitchen/#") as watcher:
            watcher.wait("crier/kitchen/availability", lambda payload: payload == b"online")
            watcher.wait("crier/kitchen/volume")
        yield daemon


@pytest.fixture(scope="module")
def env(tmp_path_factory, broker, kitchen):
    """Where ``crier`` finds that speaker, and mosquitto's clients that broker, without being told."""
    folder = tmp_path_factory.mktemp("env")
    (folder / "crier.sock").symlink_to(kitchen.socket)
    for name in ("mosquitto_pub", "mosquitto_sub", "mosquitto_rr"):
        (folder / name).write_text(f"-h 127.0.0.1\n-p {broker.port}\n")
    found = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(folder), "CRIER_SOCKET": str(kitchen.socket)}
    return {**os.environ, **found, "XDG_RUNTIME_DIR": str(folder), "XDG_CONFIG_HOME": str(folder)}


def bash(text, env):
    """Run it; what it prints."""
    command = ["bash", "-e", "-o", "pipefail", "-c", text.replace("/opt/crier/bin/crier", str(BIN / "crier"))]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{text}\n{done.stderr}"
    return done.stdout


@contextmanager
def observed(broker, requests):
    """The events of so many requests that are made meanwhile, and the texts that were spoken, once all have ended."""
    events, texts = [], []
    with Watcher(broker.port, "crier/kitchen/#") as watcher:
        yield events, texts

        def ended():
            events[:] = [json.loads(payload) for payload in watcher.payloads("crier/kitchen/event")]
            return sum(event["event_type"] in FINAL for event in events) >= requests

        wait_until(ended, timeout_s=30)
        watcher.wait("crier/kitchen/state", lambda payload: json.loads(payload)["state"] == "idle")
        texts += [json.loads(payload)["last_text"] for payload in watcher.payloads("crier/kitchen/state")]
    assert sum(event["event_type"] == "queued" for event in events) == requests


@contextmanager
def following(env):
    """Run the page's command that follows the events; its output, line by line, once it has been ended."""
    (follow,) = [block.text for block in blocks(SHELL, "sh") if block.argument == "follow"]
    lines = []
    with subprocess.Popen(["bash", "-c", f"exec {follow}"], env=env, stdout=subprocess.PIPE, text=True) as follower:
        try:
            yield lines
        finally:
            follower.terminate()
        lines += follower.stdout


def test_shell_commands(broker, kitchen, env):
    """Every command of the page is taken, and what it says is spoken; what follows the events sees them."""
    with following(env) as followed, observed(broker, 10) as (events, texts):
        printed = "".join(bash(block.text, env) for block in blocks(SHELL, "sh") if not block.argument)
    kinds = {event["event_type"] for event in events}
    assert {"queued", "started", "finished"} <= kinds <= {"queued", "started", "finished", "cancelled"}
    assert "Are you there?" in texts
    assert "The backup is done." in texts
    assert "One sentence. " in texts or "One sentence." in texts
    assert '"queue":' in printed
    assert '"status":{' in printed
    assert "online\n" in printed
    assert any(line.startswith('crier/kitchen/event {"event_type":"started"') for line in followed)


def test_crontab(broker, kitchen, env):
    """Every line of the crontab has five fields of time, and a command that speaks."""
    lines = [line for block in blocks(SHELL, "crontab") for line in block.text.splitlines()]
    with observed(broker, 2) as (events, texts):
        for line in lines:
            match = re.fullmatch(r"(?:[\d*,/-]+ ){4}[\d*,/-]+ +(.+)", line)
            assert match, line
            bash(match[1].replace(r"\%", "%") + " --wait", env)
    assert len(lines) == 2
    assert not [event for event in events if event["event_type"] in FINAL[1:]]
    assert any(re.search(r"It is \d\d:\d\d\.", text or "") for text in texts)


def test_systemd_units(broker, kitchen, env, tmp_path):
    """systemd finds nothing wrong with the units, and what they start speaks."""
    units = [tmp_path / block.argument for block in blocks(SHELL, "ini")]
    for path, block in zip(units, blocks(SHELL, "ini"), strict=True):
        path.write_text(block.text.replace("/opt/crier/bin/crier", str(BIN / "crier")))
    with observed(broker, 2) as (events, _):
        for path in units:
            for command in re.findall(r"^ExecStart=(.+)$", path.read_text(), re.MULTILINE):
                bash(command, env)
    assert not [event for event in events if event["event_type"] in FINAL[1:]]
    if shutil.which("systemd-analyze"):
        names = [str(path).replace("@.", "@broken.") for path in units]
        done = subprocess.run(["systemd-analyze", "verify", *names], capture_output=True, text=True, check=False)
        complaints = [line for line in done.stderr.splitlines() if str(tmp_path) in line]
        assert not complaints


def test_kiosk(kitchen, env):
    """The kiosk's program speaks what comes in pieces, and knows when it has been said."""
    (block,) = blocks(RECIPES / "kiosk.md", "python")
    script = [sys.executable, "-c", block.text]
    with_the_answer = subprocess.run(script, env=env, capture_output=True, text=True, timeout=30, check=True)
    assert re.fullmatch(r"\{'event_type': 'finished', 'id': '\w+', 'audio_s': [2-4]\.\d+\}\n", with_the_answer.stdout)
    status = kitchen.client().op("status")["status"]
    assert (status["state"], status["last_text"]) == ("idle", "Thank you for waiting.")


def test_program_of_the_readme(kitchen):
    """The few lines of the README are taken."""
    (block,) = blocks(README, "python")
    text = block.text.replace("/run/crier/control.sock", str(kitchen.socket))
    assert text != block.text
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(done.stdout)["ok"]


def test_mosquitto_commands_of_the_readme(broker, kitchen, env):
    """Every mosquitto_pub of the README is spoken."""
    lines = [line for block in blocks(README, "sh") for line in block.text.splitlines() if "mosquitto_pub" in line]
    assert lines
    with observed(broker, len(lines)) as (events, _):
        for line in lines:
            bash(line, env)
    assert not [event for event in events if event["event_type"] in FINAL[1:]]


def test_robot(tmp_path, monkeypatch):
    """The robot's node speaks what its topics bring, tells what became of it, and falls silent when it is asked to."""
    ended = []
    for name, module in ros_stand_in.modules(ended).items():
        monkeypatch.setitem(sys.modules, name, module)
    with run_daemon(tmp_path, NULL_CONFIG) as daemon:
        monkeypatch.setattr(ros_stand_in.Node, "parameters", {"socket": str(daemon.socket)})
        space = {"__name__": "robot"}
        exec(blocks(RECIPES / "robot.md", "python")[0].text, space)  # noqa: S102 (the page's own program)
        node = space["Speaker"]()
        said = node.published["said"]
        node.subscribed["say"](ros_stand_in.Data("I am going to the charging station, and that will take a while."))
        wait_until(lambda: node.published["speaking"][-1:] == [True])
        node.subscribed["say/critical"](ros_stand_in.Data("Stop."))
        wait_until(lambda: [json.loads(line)["event_type"] for line in said].count("finished") == 1)
        assert node.services["stop_speaking"](None, SimpleNamespace()).success is True
        wait_until(lambda: json.loads(said[-1]).get("reason") == "stopped")
        wait_until(lambda: len(node.published["speaking"]) == len(said))
        assert node.published["speaking"] == [False, True, True, True, True, False]
        node.subscribed["say"](ros_stand_in.Data(" "))
        wait_until(lambda: node.warnings)
        daemon.terminate()
        wait_until(lambda: ended)
