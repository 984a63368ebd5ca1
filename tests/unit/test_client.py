"""The crier command against a real socket server."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from recording_speaker import RecordingSpeaker

from daemon.client import main
from daemon.client_socket import find_socket
from daemon.config_sections import SocketConfig
from daemon.errors import ConfigError
from daemon.inputs.unix_socket import UnixSocketServer
from daemon.places import SYSTEM_SOCKET
from daemon.values import EventType, Priority, Reason, SettingsChange

REPOSITORY = Path(__file__).parents[2]


class Daemon:
    """A server with a speaker that remembers, and the client run against it."""

    def __init__(self, path):
        self.path = path
        self.speaker = RecordingSpeaker(finish=EventType.FINISHED)
        config = SocketConfig(max_clients=2)
        self.server = UnixSocketServer(config, self.speaker, path=path, beat=lambda: None)
        self.speaker.listeners.append(self.server.on_event)

    def crier(self, *argv):
        return main([*argv, "--socket", str(self.path)])


@pytest.fixture
def daemon(tmp_path):
    daemon = Daemon(tmp_path / "crier.sock")
    daemon.server.open()
    daemon.server.start()
    yield daemon
    daemon.server.close()


def test_say_prints_the_id(daemon, capsys):
    """All words are one text, the options reach the request, the id on stdout can be stopped."""
    options = ["--priority", "critical", "--key", "door", "--ttl", "5", "--volume", "30", "--seed", "7"]
    assert daemon.crier("say", "Dinner", "is", "ready", *options) == 0
    request = daemon.speaker.wait_said("Dinner is ready")
    assert (request.priority, request.key, request.ttl_s) == (Priority.CRITICAL, "door", 5.0)
    assert (request.volume, request.seed) == (30, 7)
    assert capsys.readouterr().out == request.id + "\n"
    assert daemon.crier("stop", request.id) == 0
    daemon.speaker.wait("stop", request.id)


@pytest.mark.parametrize(
    ("outcome", "reason", "code"),
    [
        (EventType.FINISHED, None, 0),
        (EventType.FINISHED, Reason.MUTED, 0),
        (EventType.REJECTED, Reason.DUPLICATE, 65),
        (EventType.FAILED, Reason.ENGINE, 70),
        (EventType.FAILED, Reason.AUDIO, 74),
        (EventType.CANCELLED, Reason.STOPPED, 75),
        (EventType.EXPIRED, Reason.TTL, 75),
    ],
)
def test_wait_tells_how_it_ended(daemon, capsys, outcome, reason, code):
    """The exit code is the outcome's, and whatever is not plain success is named."""
    daemon.speaker.finish, daemon.speaker.reason = outcome, reason
    assert daemon.crier("say", "Hello", "--wait") == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == ("" if reason is None else f"crier: {outcome} ({reason})\n")


def test_stdin_is_spoken_as_it_arrives(daemon, monkeypatch, capsys):
    """The first piece opens the request before stdin ends; letters cut in two arrive whole."""
    read, write = os.pipe()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.FileIO(read))))

    def type_slowly():
        with open(write, "wb", buffering=0) as pipe:  # noqa: PTH123 a descriptor
            pipe.write(b"\n  ")
            pipe.write(b"Gr\xc3")
            daemon.speaker.wait("say")
            pipe.write(b"\xbc\xc3\x9fe. " + b"More. " * 300)

    typist = threading.Thread(target=type_slowly)
    typist.start()
    assert daemon.crier("say", "-", "--wait") == 0
    typist.join()
    sys.stdin.close()
    calls = daemon.speaker.calls
    pieces = [call[1].text if call[0] == "say" else call[2] for call in calls if call[0] in ("say", "append")]
    assert "".join(pieces).strip() == ("Grüße. " + "More. " * 300).strip()
    assert (calls[0][0], calls[0][2], calls[-1][0]) == ("say", True, "end")


def test_an_empty_stdin_is_bad_input(daemon, monkeypatch, capsys):
    """Nothing is opened for nothing."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b" \n"))))
    assert daemon.crier("say", "-") == 65
    assert capsys.readouterr().err == "crier: nothing to say\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["say", " "], "nothing to say"),
        (["say", "x" * 2001], "2000 characters"),
        (["say", "Hello", "--voice", "nobody"], "no voice nobody"),
        (["say", "Hello", "--volume", "300"], "volume"),
        (["set", "volume", "loud"], "volume must be"),
        (["set", "speed", "3"], "speed: "),
        (["repeat"], "nothing has been said"),
    ],
)
def test_refusals_are_one_line_and_exit_65(daemon, capsys, argv, message):
    """The daemon's message is shown."""
    assert daemon.crier(*argv) == 65
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_commands_and_settings(daemon, capsys):
    """The one-request commands do what they say."""
    for argv in (
        ["stop"],
        ["pause"],
        ["resume"],
        ["set", "volume", "-5"],
        ["set", "mute", "on"],
        ["set", "voice", "x"],
        ["set", "speed", "1.2"],
        ["say", "Hello", "--speed", "0.8", "--chime", "ding"],
    ):
        assert daemon.crier(*argv) == 0
    said = daemon.speaker.calls.pop()
    assert (said[0], said[1].speed, said[1].chime) == ("say", 0.8, "ding")
    assert capsys.readouterr().out.strip() == said[1].id
    assert daemon.speaker.calls == [
        ("stop", "all"),
        ("pause",),
        ("resume",),
        ("set", SettingsChange(volume_step=-5)),
        ("set", SettingsChange(mute=True)),
        ("set", SettingsChange(voice="x")),
        ("set", SettingsChange(speed=1.2)),
    ]


def test_status_and_voices_for_people_and_programs(daemon, capsys):
    """Plain lines, or one JSON object."""
    assert daemon.crier("status") == 0
    assert "volume              70\n" in capsys.readouterr().out
    assert daemon.crier("status", "--json") == 0
    assert json.loads(capsys.readouterr().out)["volume"] == 70
    assert daemon.crier("voices") == 0
    assert capsys.readouterr().out.startswith("* starter  en  ")
    assert daemon.crier("voices", "--json") == 0
    assert json.loads(capsys.readouterr().out)["voices"][0]["name"] == "starter"


@pytest.mark.parametrize(
    "argv",
    [["say"], ["say", "x", "--priority", "loud"], ["set", "mute", "maybe"], ["set", "speed", "fast"], ["sing"], []],
)
def test_wrong_usage_exits_2(argv, capsys):
    """As argparse has it."""
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2


def test_no_daemon_is_one_line_and_exit_69(tmp_path, capsys):
    """The path and how to start it; a stale socket is the same."""
    path = tmp_path / "crier.sock"
    assert main(["say", "Hello", "--socket", str(path)]) == 69
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    assert main(["say", "Hello", "--socket", str(path)]) == 69
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(str(path) in line and "systemctl start crier" in line for line in lines)


def test_a_daemon_that_dies_or_is_full_is_reported(daemon, capsys):
    """Too many clients is the daemon's own message; a daemon lost while waiting is unreachable."""
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
        one.connect(str(daemon.path))
        two.connect(str(daemon.path))
        assert daemon.crier("pause") == 65
        assert "too many clients" in capsys.readouterr().err
    daemon.speaker.finish = None
    lost = threading.Thread(target=lambda: (daemon.speaker.wait_said("Hello"), daemon.server.close()))
    lost.start()
    code = 65
    while code == 65:  # until the two have been noticed to be gone
        code = daemon.crier("say", "Hello", "--wait")
    lost.join()
    assert code == 69


def test_ctrl_c_stops_the_text_that_is_waited_for(daemon):
    """An interrupted --wait silences its request and exits 130."""
    daemon.speaker.finish = None
    command = [sys.executable, "-m", "daemon.client", "say", "Hello", "--wait", "--socket", str(daemon.path)]

    def as_on_a_terminal():
        signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests in the background ignores it

    with subprocess.Popen(command, cwd=REPOSITORY, preexec_fn=as_on_a_terminal) as process:  # noqa: PLW1509
        request = daemon.speaker.wait_said("Hello")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    daemon.speaker.wait("stop", request.id)


def test_the_socket_is_found(tmp_path):
    """--socket, then the config, then the user's daemon if it answers, then the service's."""
    config = tmp_path / "config.toml"
    config.write_text('[socket]\npath = "/configured"\n')
    home = {"XDG_CONFIG_HOME": str(tmp_path / "none"), "XDG_RUNTIME_DIR": str(tmp_path)}
    assert find_socket("/named", str(config), home) == Path("/named")
    assert find_socket(None, str(config), home) == Path("/configured")
    assert find_socket(None, None, home) == SYSTEM_SOCKET
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "crier.sock"))
        assert find_socket(None, None, home) == SYSTEM_SOCKET  # a crashed daemon's
        listener.listen()
        assert find_socket(None, None, home) == tmp_path / "crier.sock"
    (tmp_path / "crier").mkdir()
    config.rename(tmp_path / "crier" / "config.toml")
    assert find_socket(None, None, {**home, "XDG_CONFIG_HOME": str(tmp_path)}) == Path("/configured")
    for text in ("[socket", None):
        bad = tmp_path / "bad.toml"
        bad.unlink(missing_ok=True)
        if text:
            bad.write_text(text)
        with pytest.raises(ConfigError, match="bad"):
            find_socket(None, str(bad), home)


def test_saying_imports_nothing_slow():
    """crier say starts without the engine, numpy, pydantic or rich."""
    code = "import sys, daemon.client, daemon.client_say; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"numpy", "pydantic", "rich", "onnxruntime", "llama_cpp", "daemon.values", "asyncio"}


def test_a_reader_that_leaves_is_no_error(daemon):
    """crier status | head: no traceback."""
    command = [sys.executable, "-m", "daemon.client", "status", "--socket", str(daemon.path)]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, cwd=REPOSITORY, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
