"""The Unix socket with real sockets."""

import json
import os
import socket
import stat
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from recording_speaker import RecordingSpeaker

from daemon.config_sections import SocketConfig
from daemon.errors import ConfigError
from daemon.inputs.unix_socket import UnixSocketServer
from daemon.values import Event, EventType


@contextmanager
def serving(path, *, activated=(), speaker=None, **config):
    """A running server; beats are counted on ``server.beats``."""
    beats = threading.Semaphore(0)
    server = UnixSocketServer(
        SocketConfig(**config),
        speaker or RecordingSpeaker(),
        path=path,
        activated=activated,
        beat=beats.release,
    )
    server.beats = beats
    try:
        server.open()
        server.start()
        yield server
    finally:
        server.close()


class Client:
    """A blocking line client."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(path))
        self.file = self.sock.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def reply(self):
        line = self.file.readline()
        return json.loads(line) if line else None

    def ask(self, request):
        self.send((request if isinstance(request, str) else json.dumps(request)).encode() + b"\n")
        return self.reply()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "crier.sock"


def test_one_who_hangs_up_at_once_is_served(path):
    """All lines of a client that does not wait for its replies are spoken, the last one without a newline too."""
    speaker = RecordingSpeaker()
    with serving(path, speaker=speaker):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        sock.sendall(b"One.\nTwo.\nThree.\nFour.")
        sock.close()
        speaker.wait_said("Four.")
    assert speaker.said == ["One.", "Two.", "Three.", "Four."]


def test_one_who_hangs_up_with_replies_unread_is_served(path):
    """The kernel reports such an end as a reset connection; what came before it counts."""
    speaker = RecordingSpeaker()
    with serving(path, speaker=speaker):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        sock.sendall(b"One.\nTwo.")
        speaker.wait_said("One.")
        sock.recv(1, socket.MSG_PEEK)  # the reply is there, and stays unread
        sock.close()
        speaker.wait_said("Two.")


def test_anothers_duplicate_does_not_take_over_an_open_text(path):
    """A's open request is ended when A hangs up, whatever B said with the same id meanwhile."""
    speaker = RecordingSpeaker()
    with serving(path, speaker=speaker) as server, Client(path) as other:
        with Client(path) as first:
            first.ask({"op": "say", "id": "x", "text": "The door", "more": True})
            server.on_event(Event(event_type=EventType.REJECTED, id="x"))
            other.ask({"op": "status"})
        speaker.wait("end", "x")


def test_lines_are_answered_in_order(path):
    """One reply a line, in order, however the bytes are cut; the last line needs no newline."""
    speaker = RecordingSpeaker()
    with serving(path, speaker=speaker), Client(path) as client:
        client.send(b'Dinner is ready\r\n{"op":"pau')
        assert client.reply()["ok"]
        client.send(b'se"}\n\n{"op":"say","id":"x","text":"Two"}\nThree')
        client.sock.shutdown(socket.SHUT_WR)
        assert [client.reply() for _ in range(4)][:3] == [
            {"ok": True},
            {"ok": False, "error": {"code": "empty", "message": "nothing to say"}},
            {"ok": True, "id": "x", "queue": 0},
        ]
        assert client.reply() is None
    assert speaker.said == ["Dinner is ready", "Two", "Three"]


def test_subscribers_and_only_they_get_events(path):
    """Events reach whoever subscribed, after the reply to the request that caused them."""
    speaker = RecordingSpeaker(finish=EventType.FINISHED)
    with serving(path, speaker=speaker) as server, Client(path) as listener, Client(path) as other:
        speaker.listeners.append(server.on_event)
        assert listener.ask({"op": "subscribe"}) == {"ok": True}
        assert other.ask({"op": "say", "id": "a", "text": "Hi"})["ok"]
        assert [listener.reply()["event_type"] for _ in range(3)] == ["queued", "started", "finished"]
        assert listener.ask({"op": "say", "id": "b", "text": "Hi"}) == {"ok": True, "id": "b", "queue": 0}
        assert listener.reply() == {"event_type": "queued", "id": "b"}
        assert other.ask({"op": "status"})["status"]["volume"] == 70


def test_a_long_line_is_refused_and_skipped(path):
    """More than 64 KiB gives one too_long; the next line is served."""
    speaker = RecordingSpeaker()
    with serving(path, speaker=speaker), Client(path) as client:
        client.send(b"x" * 1_000_000 + b"\nafter\n" + b"y" * 65_537 + b"\n" + b"{" * 65_536 + b"\n")
        codes = [client.reply() for _ in range(4)]
        assert [reply["ok"] or reply["error"]["code"] for reply in codes] == ["too_long", True, "too_long", "bad_json"]
    assert speaker.said == ["after"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"\xff\xff\n", "bad_request"),
        (b"{broken\n", "bad_json"),
        (b'{"op":"fly"}\n', "unknown_op"),
        (b'{"op":"say","text":"a","voice":"nobody"}\n', "unknown_voice"),
        (b"\x00\n", None),
        (b"bug\n", "bad_request"),
    ],
)
def test_bad_lines_are_answered_and_harmless(path, line, code, caplog):
    """Each gets its code; the connection and the server go on, even after a bug in the daemon."""
    with serving(path), Client(path) as client:
        client.send(line)
        reply = client.reply()
        assert reply["ok"] is (code is None)
        assert code is None or reply["error"]["code"] == code
        assert client.ask("still here")["ok"]


def test_requests_are_rate_limited_per_client(path):
    """A flood is refused with a clear message; another client is not affected."""
    with serving(path, requests_per_second=0.01), Client(path) as flood, Client(path) as calm:
        assert flood.ask("one")["ok"]
        assert "rate limit" in flood.ask("two")["error"]["message"]
        assert calm.ask("one")["ok"]


def test_a_slow_reader_is_disconnected_and_nobody_else(path):
    """A subscriber that never reads loses its connection; events keep flowing to the others."""
    with serving(path) as server, Client(path) as slow, Client(path) as good:
        assert slow.ask({"op": "subscribe"})["ok"]
        assert good.ask({"op": "subscribe"})["ok"]
        for number in range(200):
            for _ in range(40):
                server.on_event(Event(event_type=EventType.QUEUED, id=f"{number}" + "x" * 100))
            for _ in range(40):
                assert good.reply()["id"].startswith(str(number))
        received = 0
        while data := slow.sock.recv(1 << 20):
            received += len(data)
        assert received < 200 * 40 * 100


def test_clients_are_counted_and_silent_ones_harmless(path):
    """Beyond max_clients a client is told so; when one leaves there is room again."""
    with serving(path, max_clients=2) as server, Client(path), Client(path) as second:
        assert second.ask("hello")["ok"]
        with Client(path) as third:
            assert "too many clients" in third.reply()["error"]["message"]
            assert third.reply() is None
        second.sock.close()
        second.file.close()
        while True:
            with Client(path) as again:
                try:
                    reply = again.ask("room")
                except (BrokenPipeError, ConnectionResetError):
                    continue
                if reply["ok"]:
                    break
        assert server.beats.acquire(timeout=5)


def test_an_idle_server_beats(path):
    """With no client at all the thread beats at least once a second or so."""
    with serving(path) as server:
        for _ in range(3):
            assert server.beats.acquire(timeout=5)


def test_a_lost_client_ends_its_open_request(path):
    """Text left open by a client that goes away is closed; text it has ended is left alone."""
    speaker = RecordingSpeaker()
    with serving(path, speaker=speaker):
        with Client(path) as client:
            assert client.ask({"op": "say", "id": "open", "more": True, "text": "Once"})["ok"]
            assert client.ask({"op": "say", "id": "done", "more": True})["ok"]
            assert client.ask({"op": "append", "id": "open", "text": " upon"})["ok"]
            assert client.ask({"op": "end", "id": "done"})["ok"]
        speaker.wait("end", "open")
    assert [call for call in speaker.calls if call[0] == "end"] == [("end", "done"), ("end", "open")]


def test_the_socket_is_private_to_its_group_and_removed_at_the_end(path):
    """Mode 0660 whatever the umask; the path is gone after close; a missing folder is made."""
    path = path.parent / "made" / path.name
    before = os.umask(0)
    try:
        with serving(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        os.umask(before)
    assert not path.exists()


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(path):
    """A dead daemon's socket is taken over; a running daemon's path is refused, and stays."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with serving(path):
        with pytest.raises(ConfigError, match="in use by a running daemon"), serving(path):
            pass
        with Client(path) as client:
            assert client.ask("hello")["ok"]


def test_unusable_paths_are_named(path):
    """A file, a missing folder and an overlong path are one clear error each; the file is kept."""
    path.write_text("precious")
    for bad in (path, path / "below", Path("/proc/crier.sock"), path.parent / ("x" * 200)):
        with pytest.raises(ConfigError, match="socket path"), serving(bad):
            pass
    assert path.read_text() == "precious"


def test_a_socket_from_systemd_is_used_and_left(path):
    """An activated socket serves, and its path is not removed."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    with serving(None, activated=[listener]), Client(path) as client:
        assert client.ask("hello")["ok"]
    assert path.exists()


def test_events_after_close_are_harmless(path):
    """The rest of the daemon may outlive the door."""
    with serving(path) as server:
        pass
    server.on_event(Event(event_type=EventType.FINISHED, id="late"))
