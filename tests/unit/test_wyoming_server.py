"""The Wyoming server with real sockets and a voice that is played by the test."""

import asyncio
import json
import logging
import socket
import stat
import struct
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from recording_speaker import RecordingSpeaker
from soundcard import wait_until
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, read_event, write_event
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
    SynthesizeVoice,
)
from zeroconf import ServiceStateChange
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from daemon.config_sections import WyomingConfig
from daemon.errors import BadRequestError, ConfigError, EngineError
from daemon.inputs import wyoming as wyoming_module
from daemon.inputs import wyoming_server
from daemon.inputs.wyoming_server import WyomingServer
from daemon.values import VoiceInfo

FRAME = 1920


class Render:
    """A render that the test plays: remembers what its door asks, and speaks when it is told to."""

    def __init__(self, request, listener, more):
        self.request, self.listener, self.more = request, listener, more
        self.pieces = [request.text]
        self.ended = threading.Event()
        self.cancelled = threading.Event()
        self.buffer = np.zeros(FRAME, np.int16)
        """One for all frames, as the engine's."""

    def append(self, text):
        if sum(map(len, self.pieces)) + len(text) > 2000:
            raise BadRequestError("too_long", "more than 2000 characters")
        self.pieces.append(text)

    def end(self):
        self.ended.set()

    def cancel(self):
        if not self.cancelled.is_set():
            self.cancelled.set()
            self.listener.on_end(None)

    def speak(self, *values):
        """A frame of each value."""
        for value in values:
            self.buffer[:] = value
            self.listener.on_audio(self.buffer)
        self.buffer[:] = -1


class Voice(RecordingSpeaker):
    """A speaker that renders."""

    def __init__(self):
        super().__init__()
        self.renders = []

    def voices(self):
        more = VoiceInfo(name="greta", description="A voice", language="de-DE", default=False)
        return [*super().voices(), more]

    def render(self, request, listener, *, more=False):
        if request.voice == "nobody":
            raise BadRequestError("unknown_voice", "no voice nobody")
        if not more and not request.text.strip():
            raise BadRequestError("empty", "nothing in the text can be spoken")
        if request.text == "bug":
            raise RuntimeError("bug")
        self.renders.append(Render(request, listener, more))
        return self.renders[-1]

    def next(self, number=0):
        """Wait for a render."""
        wait_until(lambda: len(self.renders) > number)
        return self.renders[number]


class Client:
    """The library's blocking functions over a socket."""

    def __init__(self, address, *, receive_bytes=None):
        family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
        self.sock = socket.socket(family)
        if receive_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.sock.settimeout(10)
        self.sock.connect(address)
        self.file = self.sock.makefile("rwb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.sock.close()

    def send(self, *events):
        for event in events:
            write_event(event.event(), self.file)

    def read(self, kind=None):
        """The next event, as a ``kind``; None at the end."""
        try:
            event = read_event(self.file)
        except ConnectionResetError:
            event = None
        if kind is None:
            return event
        assert event is not None
        assert kind.is_type(event.type), event
        return kind.from_event(event)

    def samples(self, kind=AudioStop):
        """Values of the frames up to the end of the audio."""
        values = []
        while (event := self.read()) and AudioChunk.is_type(event.type):
            pcm = np.frombuffer(AudioChunk.from_event(event).audio, np.int16)
            assert len(pcm) == FRAME
            assert (pcm == pcm[0]).all()
            values.append(int(pcm[0]))
        assert event is not None
        assert kind.is_type(event.type), event
        return values


@contextmanager
def serving(voice=None, uri="tcp://127.0.0.1:0", **config):
    """A running server and where it listens; beats are counted on ``server.beats``."""
    beats = threading.Semaphore(0)
    server = WyomingServer(WyomingConfig(uri=uri, **config), voice or Voice(), max_chars=2000, beat=beats.release)
    (where,) = server.open()
    host, _, port = where.removeprefix("tcp://").rpartition(":")
    server.beats = beats
    server.address = (host, int(port)) if uri.startswith("tcp") else where
    try:
        server.start()
        yield server
    finally:
        server.close()
        assert not server._thread.is_alive()


def test_describe_says_what_home_assistant_asks_for():
    """One installed program that streams, with installed voices and their languages."""
    with serving() as server, Client(server.address) as client:
        client.send(Describe())
        (program,) = client.read(Info).tts
        assert program.installed
        assert program.supports_synthesize_streaming
        assert [(v.name, v.installed, v.languages) for v in program.voices] == [
            ("starter", True, ["en"]),
            ("greta", True, ["de-DE"]),
        ]


def test_a_ping_is_answered_and_the_unknown_is_left_alone():
    """The text of a ping comes back; events for others change nothing; the thread beats."""
    with serving() as server, Client(server.address) as client:
        write_event(Event(type="run-pipeline", data={"start_stage": "wake"}), client.file)
        client.send(Ping(text="hello"))
        assert client.read(Pong).text == "hello"
        assert server.beats.acquire(timeout=5)


def test_a_text_becomes_start_chunks_and_stop():
    """24 kHz, 16 bit, mono, every frame once, although the engine's array is overwritten; then the next request."""
    voice = Voice()
    with serving(voice) as server, Client(server.address) as client:
        for number, text in enumerate(("Dinner is ready.", "<speak>And now</speak>")):
            client.send(Synthesize(text=text, voice=SynthesizeVoice(name="greta", speaker="x"), text_format="text"))
            render = voice.next(number)
            assert (render.request.text, render.request.voice, render.more) == (text, "greta", False)
            render.speak(1, 2, 3)
            render.listener.on_end(None)
            start = client.read(AudioStart)
            assert (start.rate, start.width, start.channels) == (24_000, 2, 1)
            assert client.samples() == [1, 2, 3]


def test_a_voice_is_found_by_its_language():
    """The chosen one if it speaks it, else one that does; without one, the refusal is the renderer's."""
    voice = Voice()
    with serving(voice) as server, Client(server.address) as client:
        for number, language in enumerate(("en_GB", "de", "fr")):
            client.send(Synthesize(text="Hello", voice=SynthesizeVoice(language=language)))
            request = voice.next(number).request
            assert (request.voice, request.lang) == (("starter", "greta", None)[number], language)
            voice.next(number).listener.on_end(None)
            client.read(AudioStart)
            client.read(AudioStop)


def test_a_stream_speaks_what_comes_and_ignores_the_repetition():
    """Audio comes before the text ends; the whole text that follows for old servers is not spoken again."""
    voice = Voice()
    with serving(voice) as server, Client(server.address) as client:
        client.send(SynthesizeStart(), SynthesizeChunk(text="Dinner is ready. "))
        render = voice.next()
        assert render.more
        wait_until(lambda: render.pieces == ["", "Dinner is ready. "])
        render.speak(1)
        client.read(AudioStart)
        assert np.frombuffer(client.read(AudioChunk).audio, np.int16)[0] == 1
        client.send(SynthesizeChunk(text="Come."), Synthesize(text="Dinner is ready. Come."), SynthesizeStop())
        assert render.ended.wait(5)
        assert render.pieces == ["", "Dinner is ready. ", "Come."]
        render.speak(2)
        render.listener.on_end(None)
        assert client.samples() == [2]
        client.read(SynthesizeStopped)
        client.send(Synthesize(text="Alone."))
        assert voice.next(1).request.text == "Alone."
        assert len(voice.renders) == 2


def test_a_stream_without_words_ends_without_audio():
    """Nothing to say is no error of a stream: synthesize-stopped comes at once."""
    voice = Voice()
    with serving(voice) as server, Client(server.address) as client:
        client.send(SynthesizeStart(), SynthesizeStop())
        voice.next().listener.on_end(BadRequestError("empty", "nothing to say"))
        client.read(SynthesizeStopped)


@pytest.mark.parametrize(
    ("events", "code"),
    [
        ([Synthesize(text="")], "empty"),
        ([Synthesize(text="Hello", voice=SynthesizeVoice(name="nobody"))], "unknown_voice"),
        ([Synthesize(text="Hello", text_format="ssml")], "bad_request"),
        ([Synthesize(text=5)], "bad_request"),
        ([SynthesizeChunk(text="Hello")], "bad_request"),
        ([SynthesizeStop()], "bad_request"),
        ([SynthesizeStart(), SynthesizeStart()], "bad_request"),
        ([SynthesizeStart(), *[SynthesizeChunk(text="x" * 1500)] * 2], "too_long"),
        ([SynthesizeStart(), SynthesizeChunk(text=None)], "bad_request"),
    ],
)
def test_what_cannot_be_served_is_an_error_and_the_end(events, code):
    """The client is told why and disconnected, so that it waits for no audio; what was begun for it is cancelled."""
    voice = Voice()
    with serving(voice) as server:
        with Client(server.address) as client:
            client.send(*events)
            error = client.read(Error)
            assert (error.code, bool(error.text)) == (code, True)
            assert client.read() is None
        wait_until(lambda: all(render.cancelled.is_set() for render in voice.renders))
        assert_alive(server)


def test_a_failure_in_mid_speech_is_an_error_and_the_end():
    """No audio-stop after half a sentence: the client must not take it for whole."""
    voice = Voice()
    with serving(voice) as server, Client(server.address) as client:
        client.send(Synthesize(text="Hello"))
        voice.next().speak(1)
        voice.next().listener.on_end(EngineError("llama_decode failed"))
        client.read(AudioStart)
        client.read(AudioChunk)
        assert client.read(Error).code == "failed"
        assert client.read() is None


def assert_alive(server):
    with Client(server.address) as client:
        client.send(Ping(text="alive"))
        assert client.read(Pong).text == "alive"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\n",
        b"\n",
        b"[]\n",
        b"5\n",
        b"{}\n",
        b'{"type": "synthesize", "data_length": "many"}\n',
        b'{"type": "synthesize", "data_length": 5}\n[1,2]',
        b'{"type": "synthesize", "data_length": 99999999999}\n',
        b'{"type": "audio-chunk", "payload_length": 99999999999}\n',
        b"[" * 50_000 + b"\n",
        b"{" + b" " * 200_000,
    ],
    ids=lambda data: repr(data[:30]),
)
def test_garbage_ends_the_conversation_and_nothing_else(data, caplog):
    """One line in the log that says who sent it; the server serves the next."""
    wyoming_module.warnings._last.clear()
    with serving() as server:
        with Client(server.address) as client:
            client.file.write(data)
            client.file.flush()
            assert client.read() is None
        assert_alive(server)
    lines = [record for record in caplog.records if "wyoming" in record.name]
    assert [record.getMessage().startswith("event=wyoming_garbage client=('127.0.0.1'") for record in lines] == [True]
    assert len(lines[0].getMessage()) < 300


@pytest.mark.parametrize(
    "header",
    [
        {"type": "synthesize"},
        {"type": "synthesize", "data": None},
        {"type": "synthesize", "data": {"text": "Hello", "voice": 5}},
        {"type": "synthesize", "data": {"text": "Hello", "voice": {"name": 5}}},
        {"type": "synthesize-start", "data": []},
        {"type": "ping", "data": 5},
    ],
    ids=repr,
)
def test_events_of_the_wrong_shape_are_refused(header):
    """An error that names the event, and the end."""
    with serving() as server:
        with Client(server.address) as client:
            client.file.write(json.dumps(header).encode() + b"\n")
            client.file.flush()
            assert client.read(Error).code == "bad_request"
            assert client.read() is None
        assert_alive(server)


def test_a_bug_ends_one_conversation(caplog):
    """An unforeseen exception is logged with its traceback, and the next client is served."""
    with serving() as server:
        with Client(server.address) as client:
            client.send(Synthesize(text="bug"))
            assert client.read() is None
        assert_alive(server)
    assert "RuntimeError: bug" in caplog.text


@pytest.mark.parametrize("reset", [False, True])
def test_who_leaves_cancels(reset):
    """A client that hangs up or vanishes while its speech is made ends the work for it, what it had queued too."""
    voice = Voice()
    with serving(voice) as server:
        client = Client(server.address)
        client.send(Synthesize(text="One"), Synthesize(text="Two"))
        render = voice.next()
        render.speak(1)
        client.read(AudioStart)
        if reset:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.__exit__()
        assert render.cancelled.wait(2)
        assert_alive(server)
        assert len(voice.renders) == 1


def test_requests_of_one_client_are_served_in_order():
    """The second begins when the first is over, and a description does not wait for either."""
    voice = Voice()
    with serving(voice) as server, Client(server.address) as client:
        client.send(Synthesize(text="One"), Describe(), Synthesize(text="Two"))
        voice.next().speak(1)
        kinds = {client.read().type for _ in range(3)}
        assert kinds == {"info", "audio-start", "audio-chunk"}
        assert len(voice.renders) == 1
        voice.next().listener.on_end(None)
        client.read(AudioStop)
        voice.next(1).listener.on_end(None)
        client.read(AudioStart)
        client.read(AudioStop)


def test_clients_do_not_wait_for_each_other():
    """Two at once get what is theirs."""
    voice = Voice()
    with serving(voice) as server, Client(server.address) as one, Client(server.address) as two:
        one.send(Synthesize(text="One"))
        voice.next(0)
        two.send(Synthesize(text="Two"))
        second, first = voice.next(1), voice.next(0)
        for _ in range(3):
            second.speak(2)
            first.speak(1)
        for render in (first, second):
            render.listener.on_end(None)
        for client, value in ((one, 1), (two, 2)):
            client.read(AudioStart)
            assert client.samples() == [value] * 3


def test_a_client_that_reads_nothing_is_dropped():
    """What waits for it is bounded, its render is cancelled, and others are served meanwhile."""
    voice = Voice()
    with serving(voice) as server, Client(server.address, receive_bytes=4096) as client:
        client.send(Synthesize(text="Hello"))
        render = voice.next()
        sent = 0
        while not render.cancelled.is_set():
            render.speak(1)
            sent += 2 * FRAME
            assert sent < 20_000_000
            if sent % (200 * FRAME) == 0:
                assert_alive(server)
        assert sent > 10_000_000


def test_a_client_that_stalls_is_dropped(monkeypatch):
    """Less than the bound is not kept for it without end either."""
    monkeypatch.setattr(wyoming_module, "STALL_S", 0.2)
    voice = Voice()
    with serving(voice) as server, Client(server.address, receive_bytes=4096) as client:
        client.send(Synthesize(text="Hello"))
        voice.next().speak(*[1] * 1000)
        assert voice.next().cancelled.wait(5)


def test_the_idlest_client_makes_room():
    """Connections that ask for nothing do not keep others out; those that are served are not cut."""
    voice = Voice()
    with serving(voice, max_clients=2) as server, Client(server.address) as busy, Client(server.address) as idle:
        busy.send(Synthesize(text="Hello"))
        voice.next().speak(1)
        idle.send(Ping())
        idle.read(Pong)
        with Client(server.address) as third:
            third.send(Synthesize(text="Hello"))
            voice.next(1)
            assert idle.read() is None
            with Client(server.address) as fourth:
                assert fourth.read(Error).code == "queue_full"
                assert fourth.read() is None
        voice.next().listener.on_end(None)
        busy.read(AudioStart)
        assert busy.samples() == [1]


def test_a_flood_of_connections_leaves_the_bound_standing(caplog):
    """However fast they come, no more are served than are allowed, and the last one is; the log has one line of it."""
    wyoming_module.warnings._last.clear()
    with serving(max_clients=3) as server, caplog.at_level(logging.INFO):
        clients = [Client(server.address) for _ in range(60)]
        wait_until(lambda: sum(not client.dropped for client in [*server._clients]) == 3)
        clients[-1].send(Ping(text="last"))
        assert clients[-1].read(Pong).text == "last"
        wait_until(lambda: len(server._clients) == 3)
        for client in clients:
            client.__exit__()
    assert caplog.text.count("event=wyoming_idle_dropped") == 1


def test_a_unix_socket_is_bound_as_the_control_socket_is(tmp_path):
    """Mode 0660, a dead one is replaced, a live one is not taken, and it is gone at the end."""
    path = tmp_path / "wyoming.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with serving(uri=f"unix://{path}") as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert_alive(server)
        with pytest.raises(ConfigError, match="in use"), serving(uri=f"unix://{path}"):
            pass
        assert_alive(server)
    assert not path.exists()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("tcp://127.0.0.1", "needs a host and a port"),
        ("tcp://:10200", "needs a host and a port"),
        ("tcp://127.0.0.1:99999", "[Pp]ort"),
        ("tcp://[::1", "uri tcp://"),
        ("unix://relative", "absolute path"),
        ("unix:///", "absolute path"),
        ("unix:///proc/wyoming.sock", r"\[wyoming\] uri: socket path /proc/wyoming.sock: No such file"),
    ],
)
def test_unusable_addresses_are_named(uri, message):
    """One line of a configuration error."""
    with pytest.raises(ConfigError, match=message), serving(uri=uri):
        pass


@contextmanager
def waiting(uri):
    """A running server whose address cannot be had yet."""
    beats = threading.Semaphore(0)
    server = WyomingServer(WyomingConfig(uri=uri), Voice(), max_chars=2000, beat=beats.release)
    server.beats = beats
    assert server.open() == []
    server.start()
    try:
        yield server
    finally:
        server.close()
        assert not server._thread.is_alive()


@pytest.mark.parametrize("host", ["192.0.2.77", "no.such.host.invalid"])
def test_an_address_that_is_not_there_yet_is_no_mistake(host, caplog):
    """An interface or a name server that comes late: one line in the log, and the thread beats."""
    with waiting(f"tcp://{host}:10200") as server:
        for _ in range(2):
            assert server.beats.acquire(timeout=5)
    (record,) = caplog.records
    assert record.message.startswith(f"event=wyoming_waits uri=tcp://{host}:10200 error=")


def test_a_taken_port_is_served_when_it_is_free(caplog, monkeypatch):
    """The second server starts, says once why nobody reaches it, and takes over when the first has gone."""
    monkeypatch.setattr(wyoming_server, "RETRY_S", 0.05)
    with serving() as first:
        address, uri = first.address, "tcp://{}:{}".format(*first.address)
        with waiting(uri) as second:
            assert "Address already in use" in caplog.text
            threading.Event().wait(0.3)
            first.close()
            wait_until(lambda: second._listeners)
            second.address = address
            assert_alive(second)
            assert caplog.text.count("event=wyoming_waits") == 1
    with serving(uri=uri) as third:  # nothing of them is left
        assert third.address == address


def test_nobody_is_told_of_an_address_that_only_this_machine_reaches(tmp_path):
    """zeroconf on the loopback or a Unix socket is a mistake that is said."""
    for uri in ("tcp://127.0.0.1:0", f"unix://{tmp_path}/wyoming.sock"):
        with pytest.raises(ConfigError, match="zeroconf"), serving(uri=uri, zeroconf=True):
            pass
    assert not [*tmp_path.iterdir()]


async def _browse(wanted):
    """Look for servers as Home Assistant does, until one comes or goes; returns its name and port."""
    seen, names = asyncio.Event(), []

    def on_change(zeroconf, service_type, name, state_change):
        if state_change is wanted:
            names.append(name)
            seen.set()

    async with AsyncZeroconf() as zeroconf:
        browser = AsyncServiceBrowser(zeroconf.zeroconf, "_wyoming._tcp.local.", handlers=[on_change])
        await asyncio.wait_for(seen.wait(), 10)
        info = AsyncServiceInfo("_wyoming._tcp.local.", names[0])
        await info.async_request(zeroconf.zeroconf, 1000 if wanted is ServiceStateChange.Added else 1)
        await browser.async_cancel()
    return names[0], info.port


@pytest.mark.skipif(len(Path("/proc/net/route").read_text().splitlines()) < 2, reason="there is no network to tell")
def test_the_network_is_told_and_told_of_the_end():
    """An mDNS browser finds the server and its port, and sees it go."""
    with serving(uri="tcp://0.0.0.0:0", zeroconf=True) as server:
        name, port = asyncio.run(_browse(ServiceStateChange.Added))
        assert (name.startswith("crier-"), port) == (True, server.address[1])
        closing = threading.Timer(0.3, server.close)
        closing.start()
        assert asyncio.run(_browse(ServiceStateChange.Removed))[0] == name
        closing.join()
