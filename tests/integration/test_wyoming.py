"""The Wyoming server of a real daemon, asked by clients that are not ours: speech comes back, to the bit."""

import asyncio
import contextlib
import io
import subprocess
import sys
import time
import urllib.request
import wave
from urllib.parse import quote

import numpy as np
import pytest
from broker import free_port
from daemon_process import WAV_CONFIG, render, run_daemon
from soundcard import contains, wait_until
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.error import Error
from wyoming.info import Describe, Info
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeStopped, SynthesizeVoice

from daemon.values import SAMPLE_RATE

pytestmark = pytest.mark.engine

SHORT = "Dinner is ready."
LONG = "The front door has been left open. Please close the kitchen window. The washing machine has finished."
STORY = " ".join(f"The washing machine has finished wash number {number}." for number in ("one", "two", "six", "ten"))
ENDLESS = " ".join(f"This is sentence number {number} of a very long story." for number in range(30))
CONFIG = WAV_CONFIG + '[phrases]\ncache = false\n[wyoming]\nenabled = true\nuri = "{uri}"\n'


def config(uri):
    """A configuration with a server there."""
    return CONFIG.replace("{uri}", uri)


@pytest.fixture(scope="module")
def uri():
    """Where the server listens."""
    return f"tcp://127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def crier(tmp_path_factory, uri):
    """A running daemon."""
    with run_daemon(tmp_path_factory.mktemp("wyoming"), config(uri)) as daemon:
        yield daemon


async def read_audio(client, *, until=AudioStop):
    """PCM up to the end, int16 [S]."""
    pcm, started = b"", False
    while True:
        event = await client.read_event()
        assert event is not None, "the server closed the connection"
        assert not Error.is_type(event.type), event
        if AudioStart.is_type(event.type):
            started = True
            start = AudioStart.from_event(event)
            assert (start.rate, start.width, start.channels) == (SAMPLE_RATE, 2, 1)
        elif AudioChunk.is_type(event.type):
            assert started
            pcm += AudioChunk.from_event(event).audio
        elif until.is_type(event.type):
            return np.frombuffer(pcm, np.int16)


async def speak(uri, text, **voice):
    """Have a text rendered."""
    async with AsyncClient.from_uri(uri, connect_timeout=5, read_timeout=20) as client:
        await client.write_event(Synthesize(text=text, voice=SynthesizeVoice(**voice) if voice else None).event())
        return await read_audio(client)


async def stream(uri, pieces):
    """Have a text rendered that comes in pieces, in the order of events that Home Assistant sends."""
    async with AsyncClient.from_uri(uri, connect_timeout=5, read_timeout=20) as client:
        await client.write_event(SynthesizeStart().event())
        for piece in pieces:
            await client.write_event(SynthesizeChunk(text=piece).event())
        await client.write_event(Synthesize(text="".join(pieces)).event())
        await client.write_event(SynthesizeStop().event())
        return await read_audio(client, until=SynthesizeStopped)


@pytest.fixture(scope="module")
def alone(crier, uri):
    """What the texts sound like when nobody else asks for anything."""
    return {text: asyncio.run(speak(uri, text)) for text in (SHORT, LONG)}


def renders(client):
    """How the renders so far ended."""
    return client.op("status")["status"]["metrics"]["renders"]


def test_the_library_s_client_is_told_the_voices(crier, uri):
    """describe lists what crier voices lists, all installed, with a language each."""

    async def describe():
        async with AsyncClient.from_uri(uri, connect_timeout=5, read_timeout=5) as client:
            await client.write_event(Describe().event())
            return Info.from_event(await client.read_event())

    began = time.monotonic()
    (program,) = asyncio.run(describe()).tts
    assert time.monotonic() - began < 1  # Home Assistant waits no longer
    known = {voice["name"]: [voice["language"]] for voice in crier.client().op("voices")["voices"]}
    assert {voice.name: voice.languages for voice in program.voices if voice.installed} == known
    assert program.supports_synthesize_streaming


def test_what_is_returned_is_what_crier_render_makes(crier, uri, alone):
    """A sentence is the same to the bit; another voice sounds different; nothing of it reaches the speaker."""
    assert np.array_equal(alone[SHORT], render(SHORT))
    voices = [voice["name"] for voice in crier.client().op("voices")["voices"] if not voice["default"]]
    other = asyncio.run(speak(uri, SHORT, name=voices[0]))
    assert np.array_equal(other, render(SHORT, "--voice", voices[0]))
    assert not np.array_equal(other, alone[SHORT])
    assert contains(crier.recording(), alone[SHORT]) < 0


def test_a_stream_sounds_as_the_whole_text(uri, alone):
    """However it is cut, every sentence is there once."""
    for size in (1, 7, len(LONG)):
        pieces = [LONG[at : at + size] for at in range(0, len(LONG), size)]
        assert np.array_equal(asyncio.run(stream(uri, pieces)), alone[LONG])


def test_two_clients_at_once_get_what_they_would_get_alone(uri, alone):
    """The sentences of both are made in turns, and neither is heard in the other."""

    async def both():
        return await asyncio.gather(speak(uri, LONG), speak(uri, SHORT), stream(uri, [LONG]))

    one, two, three = asyncio.run(both())
    assert np.array_equal(one, alone[LONG])
    assert np.array_equal(two, alone[SHORT])
    assert np.array_equal(three, alone[LONG])


def test_announcements_go_first_and_nobody_hears_of_it(crier, uri, alone):
    """With announcements queued and playing, they are whole and without gaps, and so is what the client gets."""
    client = crier.client()
    texts = [f"Announcement number {number}. The door is open." for number in ("one", "two", "three")]
    expected = [render(text) for text in texts]

    story = asyncio.run(speak(uri, STORY))

    async def with_announcements():
        rendering = asyncio.create_task(speak(uri, STORY))
        ids = [await asyncio.to_thread(client.say, text) for text in texts]
        overlapped = not rendering.done()
        return ids, overlapped, await rendering, await speak(uri, LONG)

    ids, overlapped, during, after = asyncio.run(with_announcements())
    assert client.op("status")["status"]["state"] == "speaking"  # all that was rendered while it played
    for request_id in ids:
        client.wait_for("finished", request_id)
    assert overlapped
    assert np.array_equal(during, story)
    assert np.array_equal(after, alone[LONG])
    places = [contains(crier.recording(), pcm) for pcm in expected]
    assert -1 not in places
    assert places == sorted(places)
    assert client.op("status")["status"]["metrics"]["underruns"] == 0


def test_who_leaves_is_worked_for_no_longer(crier, uri, alone):
    """The render is cancelled in mid sentence, and the next client is served at once."""
    client = crier.client()
    before = renders(client).get("cancelled", 0)

    async def leave():
        async with AsyncClient.from_uri(uri, connect_timeout=5, read_timeout=20) as leaving:
            await leaving.write_event(Synthesize(text=ENDLESS).event())
            while not AudioChunk.is_type((await leaving.read_event()).type):
                pass

    asyncio.run(leave())
    wait_until(lambda: renders(client).get("cancelled", 0) == before + 1, timeout_s=2)
    assert np.array_equal(asyncio.run(speak(uri, SHORT)), alone[SHORT])


def test_a_refusal_says_why_and_the_daemon_goes_on(crier, uri, alone):
    """Nothing to say, no such voice, bad SSML, too long: an error and the end of the connection."""

    async def refused(text, name=None):
        async with AsyncClient.from_uri(uri, connect_timeout=5, read_timeout=20) as client:
            await client.write_event(Synthesize(text=text, voice=SynthesizeVoice(name=name) if name else None).event())
            error = Error.from_event(await client.read_event())
            assert await client.read_event() is None
            return error.code

    assert asyncio.run(refused("!!!")) == "empty"
    assert asyncio.run(refused(SHORT, "nobody")) == "unknown_voice"
    assert asyncio.run(refused("<speak>Hello <break</speak>")) == "bad_request"
    assert asyncio.run(refused("Hello. " * 1000)) == "too_long"
    assert np.array_equal(asyncio.run(speak(uri, SHORT)), alone[SHORT])
    assert "Traceback" not in crier.log.read_text()


def health_check(uri):
    """The health check of wyoming-piper's container."""
    command = [sys.executable, "-m", "wyoming_piper.health_check", "--uri", uri, "--timeout", "5"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_health_check_of_wyoming_piper_is_content(crier, uri, tmp_path):
    """Over TCP and over a Unix socket, whose place is free afterwards; without a daemon it complains."""
    assert health_check(uri).returncode == 0
    path = tmp_path / "wyoming.sock"
    with run_daemon(tmp_path, config(f"unix://{path}")) as other:
        done = health_check(f"unix://{path}")
        assert (done.returncode, done.stderr) == (0, "")
        other.terminate()
    assert not path.exists()
    assert health_check(f"unix://{path}").returncode == 1


@contextlib.contextmanager
def http_server(uri, log):
    """The text-to-speech gateway of the library; gives its port."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "wyoming.http.tts_server",
        "--uri",
        uri,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            yield port
        finally:
            process.kill()


def test_the_library_s_http_gateway_gets_a_wav_file(crier, uri, alone, tmp_path):
    """A second client that is not ours: GET /api/text-to-speech."""
    with http_server(uri, tmp_path / "http.log") as port:
        url = f"http://127.0.0.1:{port}/api/text-to-speech?text={quote(SHORT)}"

        def fetch():
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=20) as reply:
                return reply.read()

        with wave.open(io.BytesIO(wait_until(fetch, timeout_s=20))) as file:
            assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (SAMPLE_RATE, 2, 1)
            pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    assert np.array_equal(pcm, alone[SHORT])


def test_a_stopped_daemon_leaves_no_half_sentence_that_looks_whole(tmp_path):
    """SIGTERM in mid render: the client gets an error or the end of the connection, never audio-stop."""
    uri = f"tcp://127.0.0.1:{free_port()}"

    async def interrupted(daemon):
        async with AsyncClient.from_uri(uri, connect_timeout=5, read_timeout=20) as client:
            await client.write_event(Synthesize(text=ENDLESS).event())
            while not AudioChunk.is_type((await client.read_event()).type):
                pass
            terminating = asyncio.create_task(asyncio.to_thread(daemon.terminate))
            last = None
            with contextlib.suppress(OSError):
                while (event := await client.read_event()) is not None:
                    last = event
            assert await terminating < 2.5
            return last.type

    with run_daemon(tmp_path, config(uri)) as daemon:
        assert asyncio.run(interrupted(daemon)) in {"error", "audio-chunk"}
        assert daemon.process.returncode == 0
        assert "Traceback" not in daemon.log.read_text()


def test_a_port_that_is_taken_silences_nobody(crier, uri, tmp_path):
    """One line names it; the daemon speaks, and the one who has the port goes on."""
    with run_daemon(tmp_path, config(uri)) as second:
        client = second.client()
        assert client.wait_for("finished", client.say("Dinner is ready."))["audio_s"] > 0.5
        assert f"event=wyoming_waits uri={uri} error=Address already in use" in second.log.read_text()
    assert health_check(uri).returncode == 0


def test_without_the_package_the_daemon_says_what_to_install(tmp_path):
    """Exit code 78 and the command; a daemon that does not want it starts without."""
    package = tmp_path / "shadow" / "wyoming"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'wyoming'\", name='wyoming')")
    env = {"PYTHONPATH": str(package.parent)}
    with run_daemon(tmp_path, config("tcp://127.0.0.1:0"), env=env, ready=False) as daemon:
        assert daemon.process.wait(20) == 78
        assert "[wyoming] needs the package wyoming: pip install 'crier[wyoming]'" in daemon.log.read_text()
    with run_daemon(tmp_path, env=env) as daemon:
        assert daemon.client().op("status")["ok"]


def test_an_idle_server_costs_next_to_nothing(crier, uri):
    """With a client that stays connected, the daemon uses under 1 % of a core."""

    async def stay():
        async with AsyncClient.from_uri(uri, connect_timeout=5, read_timeout=5):
            await asyncio.sleep(1)
            before, began = sum(crier.info().cpu_times()[:2]), time.monotonic()
            await asyncio.sleep(4)
            return (sum(crier.info().cpu_times()[:2]) - before) / (time.monotonic() - began)

    assert asyncio.run(stay()) < 0.01
