"""What keeps crierd from starting is one line and an exit code; what does not, a broker or a disk, it survives."""

import contextlib
import os
import resource
import socket
import subprocess
import sys

import pytest
from broker import free_port, start_broker
from daemon_process import NULL_CONFIG, ROOT, WAV_CONFIG, mqtt_section, render, run_daemon
from soundcard import contains, wait_until

pytestmark = pytest.mark.engine

SHORT = "Dinner is ready."
STARTER = ROOT / "models" / "starter"
FAILING_WAV_CONFIG = """
[audio]
sink = "wav"
path = "{wav}"
device_wait_s = 0.3
[socket]
path = "{{socket}}"
"""


def assert_still_speaks(daemon, client):
    """A request is heard to its end, in the process that was started, with no traceback in its log."""
    event = client.wait_for("finished", client.say(SHORT))
    assert event["audio_s"] > 0.5
    assert daemon.process.poll() is None
    assert "Traceback" not in daemon.log.read_text()


def start_and_fail(tmp_path, config):
    """Start crierd with a configuration that cannot work; its exit code and what it says, which is one line."""
    path = tmp_path / "config.toml"
    if isinstance(config, str):
        path.write_text(config)
    elif config is not None:
        path.write_bytes(config)
    command = [sys.executable, "-m", "daemon", "--config", str(path)]
    home = {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | home, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == ""
    *before, line = done.stderr.splitlines()
    assert all(" INFO " in other for other in before)
    assert line.startswith("crierd: ")
    return done.returncode, line


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[audio]\nvolum = 5\n", "unknown key audio.volum (did you mean volume?)"),
        ("[moqtt]\nenabled = true\n", "unknown key moqtt (did you mean mqtt?)"),
        ("port = 5\n", "unknown key port"),
        ('[mqtt]\nport = "1883"\n', 'mqtt.port: expected a whole number, got "1883"'),
        ("mqtt = 5\n", "mqtt:"),
        ("[audio]\nvolume = 101\n", "audio.volume: must be at most 100, got 101"),
        ("[engine]\nthreads = -1\n", "engine.threads"),
        ('[mqtt]\nnode = "my kitchen"\n', "mqtt.node"),
        ('[audio]\nsink = "loudspeaker"\n', "audio.sink"),
        ('[audio]\nsink = "wav"\n', 'sink = "wav" needs path'),
        ("[queue]\nttl_s = nan\n", "queue.ttl_s"),
        ('[quiet]\nstart = "22:00"\nend = "7:00"\n', 'quiet.end: a time of day as in "07:00", got "7:00"'),
        ("[audio\n", "not valid TOML"),
        (b"[audio]\ndevice = '\xff'\n", "not valid TOML"),
        (None, "No such file or directory"),
    ],
)
def test_a_bad_configuration_ends_with_78(tmp_path, config, message):
    """One line on stderr names the file, the key, what was found and what is allowed."""
    code, line = start_and_fail(tmp_path, config)
    assert code == 78
    assert str(tmp_path / "config.toml") in line
    assert message in line


def test_an_unreadable_configuration_ends_with_78(tmp_path):
    """A folder in its place, and (for users who are not root) a file without permission."""
    (tmp_path / "config.toml").mkdir()
    assert start_and_fail(tmp_path, None) == (78, f"crierd: {tmp_path}/config.toml: Is a directory")
    (tmp_path / "config.toml").rmdir()
    (tmp_path / "config.toml").touch(0)
    if os.geteuid():
        assert start_and_fail(tmp_path, None) == (78, f"crierd: {tmp_path}/config.toml: Permission denied")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[hermes]\nenabled = true\n", "[hermes] enabled: its topics are on the broker: set [mqtt] enabled = true"),
        ('[share]\nrole = "player"\n', "[share] role: speech is shared over the broker: set [mqtt] enabled = true"),
        ('[duck]\ntopic = "a"\n', "[duck] topic needs [mqtt] enabled = true"),
        ('[chimes.before]\nnormal = "dong"\n', "[chimes.before] normal: no chime 'dong': the chimes are alarm, ding"),
        ('[text]\nlexicon = "/nosuch.toml"\n', "[text] lexicon: /nosuch.toml: No such file or directory"),
    ],
)
def test_what_cannot_work_is_refused_before_the_voice_is_loaded(tmp_path, config, message):
    """A table without the one it needs, a sound or a lexicon that is not there."""
    code, line = start_and_fail(tmp_path, '[engine]\nbundle = "nosuch"\n' + config)
    assert code == 78
    assert message in line


def test_a_credential_that_is_not_there_ends_with_78(tmp_path):
    """A password file or a CA that cannot be read is named."""
    for key in ("password_file", "tls_ca"):
        code, line = start_and_fail(tmp_path, f'[mqtt]\nenabled = true\n{key} = "{tmp_path}/nowhere"\n')
        assert code == 78
        assert f"{tmp_path}/nowhere" in line


def damaged(tmp_path, name, change):
    """A bundle that is the starter but for one file."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for path in STARTER.iterdir():
        (folder / path.name).symlink_to(path)
    data = (STARTER / name).read_bytes()
    (folder / name).unlink()
    (folder / name).write_bytes(change(data))
    return folder


def flip(data):
    """One bit in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("codec_decoder.onnx", lambda data: data[:-1], "truncated"),
        ("backbone.gguf", lambda _: b"", "truncated"),
        ("heads.onnx", flip, "sha256"),
        ("tokenizer.json", flip, "sha256"),
        ("manifest.toml", lambda data: data[: len(data) // 2], "manifest.toml"),
        ("manifest.toml", lambda data: data.replace(b'"csm"', b'"qwen"'), "family 'qwen'"),
        ("manifest.toml", lambda data: data.replace(b"num_codebooks = ", b"num_codebooks = 5"), "expected"),
        ("manifest.toml", lambda data: data.replace(b"format_version = 1", b"format_version = 9"), "format_version 9"),
    ],
)
def test_a_damaged_bundle_ends_with_66(tmp_path, name, change, message):
    """Truncated, bit-flipped, of another family or shape: one line that names the file."""
    folder = damaged(tmp_path, name, change)
    code, line = start_and_fail(tmp_path, f'[engine]\nbundle = "{folder}"\n[audio]\nsink = "null"\n')
    assert code == 66
    assert message in line
    assert str(folder) in line


def test_a_missing_bundle_ends_with_66(tmp_path):
    """By name and by path."""
    for bundle in ("nosuch", f"{tmp_path}/nosuch"):
        code, line = start_and_fail(tmp_path, f'[engine]\nbundle = "{bundle}"\n')
        assert code == 66
        assert "nosuch" in line


def test_a_socket_path_that_cannot_be_used_ends_with_78(tmp_path):
    """In use, not a socket, in a folder that cannot be made, too long for a socket: each is one line with the path."""
    (tmp_path / "file").touch()
    cases = {
        str(tmp_path / "used"): "in use by a running daemon",
        str(tmp_path / "file"): "exists and is not a socket",
        str(tmp_path / "file" / "sock"): "Not a directory",
        "/proc/crier/sock": "No such file or directory",
        str(tmp_path / ("x" * 120)): "AF_UNIX path too long",
    }
    with socket.socket(socket.AF_UNIX) as used:
        used.bind(str(tmp_path / "used"))
        used.listen()
        for path, message in cases.items():
            failed = start_and_fail(tmp_path, f'[socket]\npath = "{path}"\n[audio]\nsink = "null"\n')
            assert failed == (78, f"crierd: socket path {path}: {message}")
    assert (tmp_path / "file").is_file()


def test_a_stale_socket_is_taken_over(tmp_path):
    """What a killed daemon left in place does not stop the next one."""
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "c.sock"))
    stale.close()
    with run_daemon(tmp_path) as daemon:
        assert daemon.client().op("status")["ok"]
        assert daemon.socket.stat().st_mode & 0o777 == 0o660


@pytest.mark.broker
@pytest.mark.parametrize(
    ("trouble", "message"),
    [("down", "Connection refused"), ("refusing", "Not authorized"), ("unresolvable", "no connection"), ("silent", "")],
)
def test_a_broker_that_cannot_be_reached_does_not_stop_the_start(tmp_path, trouble, message):
    """The daemon is READY, speaks over its socket, says in its log why there is no MQTT, and ends on SIGTERM."""
    with contextlib.ExitStack() as stack:
        if trouble == "refusing":
            broker = start_broker(tmp_path, users={"crier": "right"})
            stack.callback(broker.kill)
            port = broker.port
        elif trouble == "silent":
            port = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        else:
            port = free_port()
        config = NULL_CONFIG + mqtt_section(port)
        if trouble == "unresolvable":
            config = config.replace("127.0.0.1", "broker.invalid")
        daemon = stack.enter_context(run_daemon(tmp_path, config))
        client = daemon.client()
        assert_still_speaks(daemon, client)
        wait_until(lambda: message in daemon.log.read_text(), timeout_s=30)
        assert daemon.terminate() < 5
        assert daemon.process.returncode == 0


@pytest.mark.parametrize("path", ["/dev/full", "{folder}/nowhere/out.wav"])
def test_a_wav_file_that_cannot_be_written_fails_the_request_only(tmp_path, path):
    """Disk full, folder missing: failed, audio; the state says so; the daemon serves on."""
    config = FAILING_WAV_CONFIG.format(wav=path.format(folder=tmp_path))
    with run_daemon(tmp_path, config) as daemon:
        client = daemon.client()
        for _ in range(2):
            assert client.wait_for("failed", client.say(SHORT))["reason"] == "audio"
        status = client.op("status")["status"]
        assert (status["audio_ok"], status["state"], status["queue"]) == (False, "error", 0)
        assert "Traceback" not in daemon.log.read_text()
        daemon.terminate()
        assert daemon.process.returncode == 0


def test_a_disk_that_fills_up_in_mid_speech_fails_it_and_space_brings_speech_back(tmp_path):
    """What was written is a whole WAV file; with room again the next announcement is in it to the bit."""
    with run_daemon(tmp_path, WAV_CONFIG.replace("[socket]", "device_wait_s = 0.3\n[socket]")) as daemon:
        client = daemon.client()
        pid = daemon.process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (30_001, limits[1]))
        assert client.wait_for("failed", client.say(SHORT))["reason"] == "audio"
        assert client.op("status")["status"]["audio_ok"] is False
        data = daemon.wav.read_bytes()
        assert int.from_bytes(data[40:44], "little") == len(data) - 44 > 20_000
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
        assert_still_speaks(daemon, client)
        assert client.op("status")["status"]["audio_ok"] is True
        assert contains(daemon.recording(), render(SHORT)) >= 0
