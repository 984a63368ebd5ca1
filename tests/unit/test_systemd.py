"""The systemd side of the daemon, against real sockets and really passed file descriptors."""

import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daemon.systemd import Heartbeats, Notifier, listen_sockets, watchdog_interval_s

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["path", "abstract"])
def notify_socket(request, tmp_path):
    """What systemd holds: a datagram socket, and the value of $NOTIFY_SOCKET that leads to it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@crier-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name[1:] if name.startswith("@") else name)
        sock.settimeout(5)
        yield sock, name


def test_messages_reach_systemd(notify_socket):
    """Every message is one datagram in sd_notify's words, on a path and on an abstract address."""
    sock, name = notify_socket
    notifier = Notifier({"NOTIFY_SOCKET": name})
    for send in (notifier.ready, notifier.watchdog, notifier.stopping):
        send()
    notifier.status("queue=0\nready=no")
    assert [sock.recv(1000) for _ in range(4)] == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1", b"STATUS=queue=0 ready=no"]


def test_reloading_carries_the_monotonic_time(notify_socket):
    """systemd matches a reload by CLOCK_MONOTONIC in microseconds."""
    sock, name = notify_socket
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    Notifier({"NOTIFY_SOCKET": name}).reloading()
    state, _, stamp = sock.recv(1000).decode().partition("\nMONOTONIC_USEC=")
    assert state == "RELOADING=1"
    assert before <= int(stamp) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_without_systemd_nothing_happens(caplog):
    """No $NOTIFY_SOCKET, no message and no complaint."""
    Notifier({}).ready()
    assert caplog.records == []


def test_lost_message_is_logged_and_survived(tmp_path, caplog):
    """A notify socket that has gone does not end the daemon, nor fill its log."""
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    with caplog.at_level(logging.WARNING):
        notifier.ready()
        notifier.watchdog()
    assert caplog.messages == ["notify_failed message='READY=1' error=[Errno 2] No such file or directory"]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog_interval_is_half_of_what_is_allowed(environ, expected):
    """Only a watchdog that watches this process counts."""
    assert watchdog_interval_s(environ, 7) == expected


@pytest.mark.parametrize(
    "passed",
    [{}, {"LISTEN_PID": "8", "LISTEN_FDS": "1"}, {"LISTEN_PID": "7"}, {"LISTEN_PID": "7", "LISTEN_FDS": "x"}],
)
def test_sockets_for_others_are_left_alone(passed):
    """Another process's variables give no sockets, and are gone for our children."""
    environ = {**passed, "LISTEN_FDNAMES": "control", "HOME": "/"}
    assert listen_sockets(environ, 7) == []
    assert environ == {"HOME": "/"}


PASSED = """
import os, sys
from daemon.errors import ConfigError
from daemon.systemd import listen_sockets
os.environ["LISTEN_PID"] = str(os.getpid())
try:
    for sock in listen_sockets(os.environ, os.getpid()):
        print(sock.fileno(), sock.get_inheritable(), sock.getsockname(), "LISTEN_FDS" in os.environ, flush=True)
        sock.accept()[0].sendall(b"hello")
except ConfigError as err:
    sys.exit(str(err))
"""


def run_with_fd_3(fd):
    """A Python process that got ``fd`` as systemd passes it: number 3, and the variables."""
    command = ["bash", "-c", f'exec 3<&{fd} {fd}<&-; exec "$0" -c "$1"', sys.executable, PASSED]
    environ = {**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "control", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, pass_fds=[fd], env=environ, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_passed_socket_is_served(tmp_path):
    """A listening socket passed as fd 3 is found, is not inherited, and takes connections."""
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        process = run_with_fd_3(listener.fileno())
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(20)
            client.connect(path)
            assert client.recv(100) == b"hello"
        out, err = process.communicate(timeout=20)
    assert (out, err, process.returncode) == (f"3 False {path} False\n", "", 0)


def test_passed_file_that_is_no_socket_is_named(tmp_path):
    """A FIFO or file in a socket unit is a configuration error."""
    with (tmp_path / "file").open("wb") as file:
        _, err = run_with_fd_3(file.fileno()).communicate(timeout=20)
    assert err == "file descriptor 3 passed by systemd is not a socket: Socket operation on non-socket\n"


def test_silent_threads_are_named_longest_first():
    """A thread is late when its last beat is older than the limit, and no longer when it beats again."""
    heartbeats = Heartbeats()
    heartbeats.beat("synth")
    heartbeats.beat("audio")
    now = time.monotonic()
    assert heartbeats.late(now, 10.0) == []
    assert heartbeats.late(now + 11.0, 10.0) == ["synth", "audio"]
    heartbeats.beat("synth")
    assert heartbeats.late(time.monotonic(), 0.0)[-1] == "synth"


def test_a_full_queue_is_waited_for_without_spinning(tmp_path):
    """While nobody reads, a message is given up after its time, at next to no cost in processor time."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind(str(path))
        notifier = Notifier({"NOTIFY_SOCKET": str(path)})
        began, cpu = time.monotonic(), time.process_time()
        while time.monotonic() - began < 0.5:
            notifier.watchdog()
        assert time.process_time() - cpu < 0.25
