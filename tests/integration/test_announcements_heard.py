"""What people hear: announcements over MQTT and the socket; a recording is compared to the bit.

The queue's part is recorded from a sound server; what is around and in the speech is recorded by the WAV sink, which
keeps time as a sound card does, but has no server between that drops samples when the machine is busy.
"""

import json
import socket
import time
from itertools import pairwise

import numpy as np
import pytest
from broker import start_broker, wait_online
from daemon_process import WAV_CONFIG, mqtt_section, render, run_daemon
from mqtt_running import mosquitto_pub
from soundcard import contains, start_pulse, wait_until

from daemon.audio.chimes import Chimes
from daemon.config_sections import ChimesConfig, ChimesOf
from daemon.values import SAMPLE_RATE, SpeakRequest

pytestmark = [pytest.mark.engine, pytest.mark.broker, pytest.mark.audio]

SHORT = "Dinner is ready."
OTHER = "The kettle boils."
THIRD = "Somebody is at the door."
LONG = "The front door has been left open. Please close the kitchen window."
SILENT_WITHIN = SAMPLE_RATE * 150 // 1000
"""Samples of the old speech that may follow a critical request."""
RECORDER_LAG = SAMPLE_RATE * 20 // 1000
"""What has been played and is not in the recording yet: it is written in pieces of 20 ms."""
CONFIG = """
[audio]
sink = "pyaudio"
[socket]
path = "{socket}"
"""
CHIMES = """
[chimes.before]
low = "dingdong"
[chimes.after]
low = "gong"
"""


class Room:
    """The speaker in a room: both of its doors, and what is heard."""

    def __init__(self, daemon, broker, card):
        self.broker, self.card = broker, card
        self.daemon, self.client = daemon, daemon.client()
        self._since = 0

    def begin(self):
        """Forget what was heard before."""
        self._since = len(self.card.recording())

    def heard(self):
        """What was heard since, int16 [S]."""
        return self.card.recording()[self._since :]

    def publish(self, topic, message, *options):
        """With mosquitto's client."""
        mosquitto_pub(self.broker.port, f"crier/room/{topic}", message, *options)

    def say(self, text, **fields):
        """Over the socket, to its end; what was heard, int16 [S]."""
        self.begin()
        self.client.wait_for("finished", self.client.say(text, **fields))
        return self.rest()

    def wait(self, event_type, count=1):
        """Wait until so many events of this type came since the socket was read first; the last one's id."""
        while len(ids := [e["id"] for e in self.client.events if e["event_type"] == event_type]) < count:
            self.client.events.append(self.client.line())
        return ids[-1]

    def rest(self):
        """Everything heard, once it has been silent for a quarter of a second."""
        quiet = SAMPLE_RATE // 4
        wait_until(lambda: len(self.heard()) > quiet and not self.heard()[-quiet:].any())
        return self.heard()


class Booth(Room):
    """A daemon that is recorded by its own WAV sink."""

    def __init__(self, daemon):
        super().__init__(daemon, None, daemon)

    def rest(self):
        """Everything heard; it is in the file when the event comes."""
        return self.heard()


@pytest.fixture(scope="module")
def pcm():
    """What the texts sound like."""
    return {text: render(text) for text in (SHORT, OTHER, THIRD, LONG)}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A daemon in the room, with a message that the broker has kept for it from before it came."""
    broker = start_broker(tmp_path_factory.mktemp("broker"))
    folder = tmp_path_factory.mktemp("room")
    try:
        mosquitto_pub(broker.port, "crier/room/say", "Old news.", "-r", "-q", "1")
        mosquitto_pub(broker.port, "crier/room/say/critical", "Old alarm.", "-r", "-q", "1")
        with start_pulse(folder) as pulse:
            pulse.record()
            config = CONFIG + mqtt_section(broker.port, "room")
            with run_daemon(folder, config, env=pulse.env) as daemon:
                wait_online(broker, "room")
                yield daemon, broker, pulse
    finally:
        broker.kill()


@pytest.fixture
def room(running):
    """The room, silent, with nothing heard yet."""
    room = Room(*running)
    room.begin()
    return room


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A daemon with a WAV sink."""
    with run_daemon(tmp_path_factory.mktemp("booth"), WAV_CONFIG + CHIMES) as daemon:
        yield daemon


@pytest.fixture
def booth(recorded):
    """The booth, with nothing heard yet."""
    booth = Booth(recorded)
    booth.begin()
    return booth


def places(recording, *wanted):
    """Where each of these begins, in order, each once and whole, with nothing but silence between and around them."""
    found = []
    for sound in wanted:
        index = contains(recording[sum(found[-1:]) :], sound)
        assert index >= 0, f"sound {len(found)} of {len(wanted)} is not in the recording, whole"
        found.append(index + sum(found[-1:]))
    for (start, next_start), sound in zip(pairwise(found), wanted, strict=False):
        assert start + len(sound) <= next_start
    assert np.count_nonzero(recording) == sum(np.count_nonzero(sound) for sound in wanted), "something else is heard"
    return found


def test_announcements_of_both_doors_are_heard_in_their_order(room, pcm):
    """Every sample of four announcements, from the first to the last, a gap between them, and nothing else."""
    texts = (SHORT, LONG, OTHER, THIRD)
    for number, text in enumerate(texts, 1):
        if number % 2:
            room.publish("say", text)
        else:
            room.client.say(text)
        room.wait("queued", number)
    room.wait("finished", len(texts))
    found = places(room.rest(), *(pcm[text] for text in texts))
    gap = SAMPLE_RATE * 250 // 1000
    assert all(a + len(pcm[text]) + gap <= b for (a, b), text in zip(pairwise(found), texts, strict=False))


def test_an_alarm_is_heard_at_once_and_what_it_cut_again(room, pcm):
    """The old speech ends within 150 ms, the alarm is whole, then the cut one from its start, then who waited."""
    long = room.client.say(LONG)
    other = room.client.say(OTHER)
    wait_until(lambda: room.heard().any())
    start = int(np.flatnonzero(room.heard())[0])
    wait_until(lambda: len(room.heard()) > start + SAMPLE_RATE)
    asked_at = len(room.heard())
    alarm = room.client.say(SHORT, priority="critical")
    for request_id in (alarm, long, other):
        room.client.wait_for("finished", request_id)
    recording = room.rest()
    at = contains(recording, pcm[SHORT])
    assert at > asked_at
    old_end = int(np.flatnonzero(recording[:at])[-1]) + 1
    assert old_end <= asked_at + RECORDER_LAG + SILENT_WITHIN
    fade = SAMPLE_RATE * 5 // 1000
    whole = pcm[LONG][int(np.flatnonzero(pcm[LONG])[0]) :]
    assert np.array_equal(recording[start : old_end - fade - 2], whole[: old_end - fade - 2 - start])
    assert places(recording[at:], pcm[SHORT], pcm[LONG], pcm[OTHER])[0] == 0
    finals = [event["id"] for event in room.client.events if event["event_type"] == "finished"]
    assert finals == [alarm, long, other]


def test_an_alarm_over_mqtt_cuts_too(room, pcm):
    """say/critical of a plain text, while a low one plays: that one is not heard again."""
    room.client.say(LONG, priority="low")
    wait_until(lambda: room.heard().any())
    room.publish("say/critical", SHORT)
    room.wait("finished")
    assert room.wait("cancelled")
    recording = room.rest()
    at = contains(recording, pcm[SHORT])
    assert contains(recording, pcm[LONG]) < 0
    places(recording[at:], pcm[SHORT])


def redeliver(port, topic, payload):
    """Publish with QoS 1, then again as a client does that saw no acknowledgement (MQTT 3.1.1, by hand)."""

    def text(value):
        return len(value).to_bytes(2, "big") + value

    def packet(kind, body):
        length = bytes([len(body) % 128 | 128, len(body) // 128]) if len(body) > 127 else bytes([len(body)])
        return bytes([kind]) + length + body

    message = text(topic) + b"\0\7" + payload
    with socket.create_connection(("127.0.0.1", port), timeout=10) as broker:
        broker.sendall(packet(0x10, text(b"MQTT") + b"\x04\x02\0\x3c" + text(b"again")))
        assert broker.recv(4) == b"\x20\x02\0\0"
        for kind in (0x32, 0x3A):
            broker.sendall(packet(kind, message))
            assert broker.recv(4) == b"\x40\x02\0\7"


def test_nothing_is_heard_twice_nor_is_old_news(room, pcm):
    """Retained messages, the same id by both doors, a redelivery, a broker that is killed in mid speech."""
    room.publish("say/json", json.dumps({"text": SHORT, "id": "first"}))
    room.wait("queued")
    room.publish("say/json", json.dumps({"text": SHORT, "id": "first"}))
    assert room.client.op("say", text=SHORT, id="first")["error"]["message"].startswith("duplicate")
    redeliver(room.broker.port, b"crier/room/say", json.dumps({"text": LONG, "id": "second"}).encode())
    room.client.wait_for("started", "second")
    room.broker.restart()
    mosquitto_pub(room.broker.port, "crier/room/say", "Old news again.", "-r", "-q", "1")
    room.client.wait_for("finished", "second")
    wait_online(room.broker, "room")
    room.publish("say/json", json.dumps({"text": LONG, "id": "second"}))
    room.publish("say", OTHER)
    room.wait("finished", 3)
    places(room.rest(), pcm[SHORT], pcm[LONG], pcm[OTHER])
    rejected = [(e["id"], e["reason"]) for e in room.client.events if e["event_type"] == "rejected"]
    assert sorted(reason for _, reason in rejected if reason != "retained") == ["duplicate"] * 4
    everything = room.card.recording()
    assert contains(everything, render("Old news.")) < 0
    assert contains(everything, render("Old alarm.")) < 0


@pytest.fixture(scope="module")
def chimes():
    """The built-in sounds, int16 [S] each."""
    sounds = Chimes(ChimesConfig(before=ChimesOf(low="dingdong"), after=ChimesOf(low="gong")))

    def sound(name):
        return sounds.before(SpeakRequest(text="", id="x", chime=name))

    return {name: sound(name) for name in sounds.names}


def test_chimes_are_whole_around_the_speech(booth, pcm, chimes):
    """The configured ones before and after, and no more than a breath from the speech."""
    recording = booth.say(SHORT, priority="low")
    before, speech, after = places(recording, chimes["dingdong"], pcm[SHORT], chimes["gong"])
    assert speech - before - len(chimes["dingdong"]) < SAMPLE_RATE // 2
    assert after - speech - len(pcm[SHORT]) < SAMPLE_RATE // 2


def test_a_request_chooses_its_chime(booth, pcm, chimes):
    """One of the built-in sounds, or none; a priority without chimes stays without."""
    places(booth.say(SHORT, chime="alarm"), chimes["alarm"], pcm[SHORT])
    places(booth.say(SHORT, priority="low", chime="none"), pcm[SHORT], chimes["gong"])
    places(booth.say(SHORT), pcm[SHORT])


def split(pcm, longer):
    """Where one recording has a silence that the other has longer: the start and the length of the shorter one's."""
    same = int(np.argmin(pcm == longer[: len(pcm)]))  # the first sample after the shorter silence
    before = int(np.flatnonzero(pcm[:same])[-1]) + 1
    return before, same - before


def test_a_pause_is_exactly_as_long_as_it_says(booth):
    """With the same seed, [pause 500ms] and [pause 1000ms] differ by half a second of silence and nothing else."""
    texts = [f"Dinner is ready. [pause {ms}ms] Come, everybody." for ms in (500, 1000)]
    short, long = (render(text, "--seed", "7") for text in texts)
    assert len(long) - len(short) == SAMPLE_RATE // 2
    before, silence = split(short, long)
    assert silence >= SAMPLE_RATE // 2
    assert np.array_equal(long[: before + silence], short[: before + silence])
    assert not long[before + silence :][: SAMPLE_RATE // 2].any()
    assert np.array_equal(long[before + silence + SAMPLE_RATE // 2 :], short[before + silence :])
    for text, expected in zip(texts, (short, long), strict=True):
        places(booth.say(text, seed=7), expected)


def loudness(pcm):
    """Root mean square of what is not silence."""
    return float(np.sqrt(np.mean(pcm[np.abs(pcm) > 50].astype(float) ** 2)))


def test_ssml_is_heard_and_not_read_aloud(booth):
    """Volume and rate change the sound, a break is silence, the marks are not spoken."""
    plain = render(SHORT, "--seed", "7")
    quiet, fast, pausing = (
        f"<speak><prosody volume='-6dB'>{SHORT}</prosody></speak>",
        f"<speak><prosody rate='150%'>{SHORT}</prosody></speak>",
        f"<speak>{SHORT}<break time='1s'/>{OTHER}</speak>",
    )
    heard = booth.say(quiet, seed=7)
    assert loudness(heard) == pytest.approx(loudness(plain) / 2, rel=0.1)
    places(heard, render(quiet, "--seed", "7"))
    places(booth.say(fast, seed=7), render(fast, "--seed", "7"))
    assert len(render(fast, "--seed", "7")) == pytest.approx(len(plain) / 1.5, rel=0.1)
    heard = booth.say(pausing, seed=7)
    places(heard, render(pausing, "--seed", "7"))
    sounding = np.flatnonzero(heard)
    assert np.diff(sounding).max() >= SAMPLE_RATE


def test_bad_ssml_is_silent(booth):
    """It is refused with a reason, and nothing of it is heard."""
    reply = booth.client.op("say", text="<speak>Hello <audio src='x'/></speak>")
    assert (reply["ok"], reply["error"]["code"]) == (False, "bad_request")
    assert "SSML" in reply["error"]["message"]
    time.sleep(0.5)
    assert not booth.heard().any()


def test_faster_speech_is_shorter_and_whole(booth, pcm):
    """speed 1.5 of a request and the speed that is set are the same samples, two thirds as long."""
    expected = render(SHORT, "--speed", "1.5")
    assert len(expected) == pytest.approx(len(pcm[SHORT]) / 1.5, rel=0.1)
    places(booth.say(SHORT, speed=1.5), expected)
    assert booth.client.op("set", speed=1.5)["ok"]
    try:
        places(booth.say(SHORT), expected)
        places(booth.say(SHORT, speed=1), pcm[SHORT])
    finally:
        assert booth.client.op("set", speed=1)["ok"]


def test_what_was_said_before_sounds_the_same(booth):
    """The second time comes from the phrase cache, and every sample is that of the first."""
    text = "The washing machine has finished its work."

    def hits():
        return booth.client.op("status")["status"]["metrics"]["phrases"]["hits"]

    expected = render(text)
    before = hits()
    places(booth.say(text), expected)
    assert hits() == before
    wait_until(lambda: [*booth.daemon.folder.rglob("home/.cache/crier/phrases/*")])
    places(booth.say(text), expected)
    assert hits() == before + 1
