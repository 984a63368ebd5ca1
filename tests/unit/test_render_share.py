"""Both sides of shared speech with a broker that only remembers: jobs, parts, pace, limits."""

import time

import numpy as np
import pytest

from daemon.config_sections import MqttConfig, ShareConfig
from daemon.errors import BadRequestError, EngineError
from daemon.inputs import render_player, render_share
from daemon.inputs.mqtt_feature import Message
from daemon.inputs.render_messages import BUSY, AudioPart, parse_audio
from daemon.inputs.render_player import Answer, RenderPlayer
from daemon.inputs.render_share import MAX_JOBS, RenderShare
from daemon.values import SAMPLE_RATE, SpeakRequest

JOBS, AUDIO, CANCEL = (f"crier/render/crier/{name}" for name in ("jobs", "audio/kitchen", "cancel"))


class Ticket:
    """Remembers that it was cancelled."""

    cancelled = False

    def cancel(self):
        self.cancelled = True


class FakeRenderer:
    """Takes renders; a test hands their speech over."""

    def __init__(self):
        self.renders = []

    def render(self, request, listener, *, more=False):
        assert not more
        if request.text == "bad":
            raise BadRequestError("unknown_voice", "no such voice")
        ticket = Ticket()
        self.renders.append((request, listener, ticket))
        return ticket


class Bench:
    """A RenderShare and what it has published."""

    def __init__(self):
        self.renderer = FakeRenderer()
        self.publications = []
        self.connected = True
        self.share = RenderShare(ShareConfig(), MqttConfig(node="box"), self.renderer, self.publish, lambda: 0.25)

    def publish(self, publication):
        if self.connected:
            self.publications.append(publication)
        return self.connected

    def job(self, key=b"k", payload=b'{"text": "Hi"}', *, topic=AUDIO, expiry_s=None, user=None, retained=False):
        """Have a job arrive; the render that comes of it."""
        message = Message(
            topic=JOBS,
            payload=payload,
            retained=retained,
            response_topic=topic,
            correlation=key,
            expiry_s=expiry_s,
            user=user or {},
        )
        before = len(self.renderer.renders)
        self.publications += self.share.on_message(message)
        return self.renderer.renders[-1] if len(self.renderer.renders) > before else None

    def cancel(self, key=b"k"):
        list(self.share.on_message(Message(topic=CANCEL, payload=key, retained=False)))

    def tick(self):
        list(self.share.tick(time.monotonic()))

    @property
    def parts(self):
        return [parse_audio(each.payload, each.user) for each in self.publications]

    @property
    def pcm(self):
        return np.concatenate([part.pcm for part in self.parts])


@pytest.fixture
def bench():
    return Bench()


def seconds(count, start=0):
    """Samples that tell where they belong."""
    return (np.arange(int(count * SAMPLE_RATE)) + start).astype(np.int16)


def test_speech_goes_out_in_parts(bench):
    """The first samples at once, then at most half a second a message, numbered, the last one marked."""
    _, listener, _ = bench.job()
    listener.on_audio(seconds(0.08))
    assert [len(part.pcm) for part in bench.parts] == [1920]
    listener.on_audio(seconds(0.08, 1920))
    assert len(bench.parts) == 1
    listener.on_audio(seconds(1.2, 3840))
    listener.on_end(None)
    assert np.array_equal(bench.pcm, seconds(1.36))
    assert [part.seq for part in bench.parts] == list(range(len(bench.parts)))
    assert [part.end for part in bench.parts] == [False] * (len(bench.parts) - 1) + [True]
    assert max(len(part.pcm) for part in bench.parts) == SAMPLE_RATE // 2
    for publication, part in zip(bench.publications, bench.parts, strict=True):
        assert (publication.topic, publication.correlation, publication.qos) == (AUDIO, b"k", 1)
        assert (part.renderer, part.rtf) == ("box", 0.25)


def test_what_ends_without_speech_is_told(bench):
    """A last part without samples, or the error."""
    bench.job(b"1")[1].on_end(None)
    bench.job(b"2")[1].on_end(EngineError("broken"))
    bench.job(b"3")[1].on_end(BadRequestError("queue_full", "shutting down"))
    assert [(part.end, part.error) for part in bench.parts] == [(True, ""), (False, "engine"), (False, BUSY)]


def test_no_more_is_sent_than_time_has_passed(bench, monkeypatch):
    """Ten seconds ahead and no more, but for what the player has heard already; the rest goes out second by second."""
    clock = [100.0]
    monkeypatch.setattr(render_share.time, "monotonic", lambda: clock[0])
    _, listener, _ = bench.job(b"1")
    for start in range(15):
        listener.on_audio(seconds(1, start * SAMPLE_RATE))
    listener.on_end(None)
    assert 10 <= len(bench.pcm) / SAMPLE_RATE <= 11
    clock[0] += 2
    bench.tick()
    assert 12 <= len(bench.pcm) / SAMPLE_RATE <= 13
    clock[0] += 3
    bench.tick()
    assert np.array_equal(bench.pcm, seconds(15))

    bench.publications.clear()
    _, listener, _ = bench.job(b"2", user={"heard": str(5 * SAMPLE_RATE)})
    listener.on_audio(seconds(30))
    assert 15 <= len(bench.pcm) / SAMPLE_RATE <= 16


def test_what_cannot_be_published_waits(bench):
    """A full queue to the broker loses nothing."""
    _, listener, _ = bench.job()
    bench.connected = False
    listener.on_audio(seconds(1))
    listener.on_end(None)
    bench.connected = True
    bench.tick()
    assert np.array_equal(bench.pcm, seconds(1))
    assert bench.parts[-1].end


def test_too_much_waiting_speech_ends_the_job(bench, monkeypatch):
    """What is there is sent, then the error; no more is made."""
    monkeypatch.setattr(render_share, "MAX_BACKLOG_BYTES", 2 * SAMPLE_RATE)
    _, listener, ticket = bench.job()
    bench.connected = False
    for _ in range(3):
        listener.on_audio(seconds(0.6))
    assert ticket.cancelled
    bench.connected = True
    bench.tick()
    assert len(bench.pcm) == 2 * 0.6 * SAMPLE_RATE
    assert bench.parts[-1].error == "too_long"


def test_busy_is_told_at_once(bench):
    """One job more than fit hears busy; one that has ended makes room."""
    listeners = [bench.job(f"{number}".encode())[1] for number in range(MAX_JOBS)]
    assert bench.job(b"more") is None
    assert bench.parts[-1].error == BUSY
    listeners[0].on_end(None)
    assert bench.job(b"room") is not None


def test_refusals_are_told_and_bad_topics_are_not_answered(bench):
    """What the renderer refuses has its code; a job without a place for its answer, or a retained one, is dropped."""
    bench.job(b"1", b'{"text": "bad"}')
    bench.job(b"2", b"no json")
    assert [part.error for part in bench.parts] == ["unknown_voice", "bad_json"]
    for topic in (None, "crier/kitchen/say", "crier/render/crier/audio/#"):
        assert bench.job(b"3", topic=topic) is None
    assert bench.job(b"4", retained=True) is None
    assert len(bench.publications) == 2


def test_a_job_that_comes_twice_is_made_once(bench):
    """QoS 1 may bring it again while it is under way and afterwards."""
    _, listener, _ = bench.job()
    assert bench.job() is None
    listener.on_end(None)
    assert bench.job() is None
    assert len(bench.renderer.renders) == 1


def test_cancelled_and_expired_jobs_end(bench, monkeypatch):
    """Nothing more is made or sent; a job that has begun does not expire."""
    _, listener, ticket = bench.job(b"1")
    bench.cancel(b"1")
    listener.on_audio(seconds(1))
    listener.on_end(None)
    assert ticket.cancelled
    late = bench.job(b"2", expiry_s=3)
    begun = bench.job(b"3", expiry_s=3)
    begun[1].on_audio(seconds(0.1))
    now = time.monotonic() + 4
    monkeypatch.setattr(render_share.time, "monotonic", lambda: now)
    bench.tick()
    assert (late[2].cancelled, begun[2].cancelled) == (True, False)
    assert len(bench.publications) == 1


def test_a_new_connection_forgets_the_jobs_of_the_old(bench):
    """Players ask again; a renderer says that it is there."""
    _, _, ticket = bench.job()
    assert [each.topic for each in bench.share.on_connect(mqtt5=True)] == ["crier/render/crier/ready"]
    assert ticket.cancelled


@pytest.fixture
def player():
    """A connected player, with what it has published."""
    player = RenderPlayer(ShareConfig(wait_s=2.5), MqttConfig(node="kitchen"))
    player.published = []
    player.attach(lambda publication: player.published.append(publication) or True, lambda: True)
    player.on_connect(mqtt5=True)
    return player


def send(player, key, seq, pcm=b"", **user):
    user = {"seq": str(seq), "renderer": "box", **user}
    player.on_message(Message(topic=AUDIO, payload=pcm, retained=False, correlation=key, user=user))


def test_a_player_gets_the_parts_of_its_own_job(player):
    """In order and once, from one renderer; leaving early cancels, leaving after the end does not."""
    with player.ask(SpeakRequest(text="Hi", id="1"), heard_samples=5) as answer:
        job = player.published[0]
        assert (job.topic, job.response_topic, job.expiry_s, job.user) == (JOBS, AUDIO, 3, {"heard": "5"})
        for seq in (0, 1, 0, 1):
            send(player, job.correlation, seq, bytes([seq, 0]))
        send(player, job.correlation, 2, b"xx", renderer="other")
        send(player, b"other", 2, b"xx")
        send(player, job.correlation, 2, b"odd")
        assert [answer.take(0).pcm[0] for _ in range(2)] == [0, 1]
        assert answer.take(0) is None
        assert not answer.broken
    assert [(each.topic, each.payload) for each in player.published[1:]] == [(CANCEL, job.correlation)]
    with player.ask(SpeakRequest(text="Hi", id="1")) as answer:
        send(player, player.published[-1].correlation, 0, end="true")
        assert answer.take(0).end
    assert len(player.published) == 3
    send(player, job.correlation, 2)


def test_a_part_that_is_missing_breaks_the_answer(player, monkeypatch):
    """What came before it counts; so it is with more than can wait."""
    answer = Answer(lambda _ended: None)
    answer.put(AudioPart(seq=0))
    answer.put(AudioPart(seq=2))
    answer.put(AudioPart(seq=1))
    assert answer.take(0).seq == 0
    assert answer.take(0) is None
    assert answer.broken
    monkeypatch.setattr(render_player, "MAX_PARTS", 2)
    answer = Answer(lambda _ended: None)
    for seq in range(3):
        answer.put(AudioPart(seq=seq))
    assert answer.broken


def test_nobody_is_asked_where_nobody_can_be(player):
    """No connection, an old broker, or too much that waits to be published."""
    request = SpeakRequest(text="Hi", id="1")
    player.attach(lambda _: False, lambda: True)
    assert player.ask(request) is None
    player.attach(lambda _: True, lambda: True)
    player.on_connect(mqtt5=False)
    assert not player.reachable
    assert player.ask(request) is None
    assert not player._answers
