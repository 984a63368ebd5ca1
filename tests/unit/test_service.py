"""Service, queue, synth thread and player in one process, with the real voice and a sink that plays at once."""

import contextlib
import threading
import time

import numpy as np
import pytest
from service_scene import CONFIG, Running, open_engine, request, run_service

from daemon.audio.utterance import PlayOutcome
from daemon.config_sections import ChimesConfig, ChimesOf
from daemon.engine.voices import Voice
from daemon.errors import BadRequestError, EngineError
from daemon.phrases import PhraseCache
from daemon.recent_ids import RecentIds
from daemon.values import EventType, Priority, Reason, SettingsChange, SpeakerState

pytestmark = pytest.mark.engine

LONG = "The washing machine has finished, please empty it before the evening."


@pytest.fixture
def engine():
    """The starter voice; each test may break its own."""
    with open_engine() as opened:
        yield opened


@pytest.fixture
def running(engine, tmp_path):
    """A running service."""
    with run_service(engine, tmp_path) as made:
        yield made


def test_a_request_is_queued_started_finished(running):
    """Three events in order, with audio_s and ttfa_ms; the state goes synthesizing, speaking, idle."""
    accepted = running.service.say(request())
    assert (accepted.id, accepted.queue) == ("a", 0)
    done = running.final("a")
    assert [e.event_type for e in running.events] == [EventType.QUEUED, EventType.STARTED, EventType.FINISHED]
    assert done.audio_s == pytest.approx(len(np.trim_zeros(running.sink.heard())) / 24_000, abs=0.3)
    assert running.events[1].ttfa_ms > 0
    states = [s.state for s in running.states]
    first = [states.index(kind) for kind in (SpeakerState.SYNTHESIZING, SpeakerState.SPEAKING)]
    assert first == sorted(first)
    assert states[-1] is SpeakerState.IDLE
    assert running.service.state().last_text == "Dinner is ready."


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"text": "😀 🎉"}, "empty", Reason.EMPTY),
        ({"text": "..."}, "empty", Reason.EMPTY),
        ({"text": "a" * 301}, "too_long", Reason.TOO_LONG),
        ({"voice": "bob"}, "unknown_voice", Reason.UNKNOWN_VOICE),
        ({"lang": "de"}, "unknown_voice", Reason.UNKNOWN_VOICE),
        ({"context": ("earlier",)}, "bad_request", Reason.BAD_JSON),
    ],
)
def test_refusals_are_raised_and_published_once(running, fields, code, reason):
    """What cannot be spoken is an error for the asker and one event for everybody; the next request is spoken."""
    with pytest.raises(BadRequestError) as caught:
        running.service.say(request(**fields))
    assert caught.value.code == code
    assert [(e.event_type, e.reason) for e in running.events] == [(EventType.REJECTED, reason)]
    assert running.events[0].message == str(caught.value)
    running.service.say(request(request_id="b"))
    assert running.final("b").event_type is EventType.FINISHED


def test_a_slow_voice_says_how_long_the_wait_is(engine, tmp_path):
    """At a real-time factor of 2 playback is held back by the length of the speech: reply and event tell it.

    A voice that has said nothing may speak longer than is expected, but no longer than its synthesis takes."""
    expected_s = engine.expected_s(engine.count_tokens("dinner is ready."))
    with run_service(engine, tmp_path) as made:
        for name in "abcdef":
            engine.rtf = 2.0
            reply = made.service.say(request(f"Dinner is ready. {name}", request_id=name, chime="none"))
            assert made.wait(name, EventType.QUEUED).wait_s == reply.wait_s
            made.final(name)
            assert expected_s < reply.wait_s < 3 * expected_s
        engine.rtf = 0.1
        assert made.service.say(request(request_id="fast")).wait_s is None


def test_the_wait_counts_what_is_heard_before(engine, tmp_path):
    """Each of a queue waits for the rest of the ones before it; a critical one for those of its kind alone."""
    with run_service(engine, tmp_path) as made:
        made.sink.gate.clear()
        engine.rtf = 2.0
        replies = [made.service.say(request(LONG, request_id=name)) for name in "abc"]
        alone = replies[0].wait_s
        lasts_s = engine.expected_s(engine.count_tokens(LONG))
        for number, reply in enumerate(replies):
            assert reply.wait_s == pytest.approx(alone + number * (alone + lasts_s), rel=0.2)
        critical = made.service.say(request(LONG, request_id="now", priority=Priority.CRITICAL))
        assert critical.wait_s <= alone
        made.service.set(SettingsChange(mute=True))
        assert made.service.say(request(request_id="muted")).wait_s is None
        made.sink.gate.set()


def test_a_phrase_that_was_said_before_waits_for_nothing(engine, tmp_path):
    """However slow the voice: it plays from the cache, at once."""
    with run_service(engine, tmp_path, phrases=PhraseCache(tmp_path / "phrases", 10**7)) as made:
        made.service.say(request(request_id="first"))
        made.final("first")
        engine.rtf = 5.0
        assert made.service.say(request("It was not said before.", request_id="other")).wait_s > 5
        made.service.stop("all")
        made.final("other")
        assert made.service.say(request(request_id="again")).wait_s is None
        assert made.final("again").event_type is EventType.FINISHED
        assert made.wait("again", EventType.STARTED).wait_s is None


def test_a_duplicate_does_not_harm_the_first(running):
    """The same id twice: the second is rejected, the first is spoken."""
    running.sink.gate.clear()
    running.service.say(request(request_id="x"))
    running.service.say(request(request_id="same"))
    with pytest.raises(BadRequestError, match="duplicate"):
        running.service.say(request(request_id="same"))
    running.sink.gate.set()
    kinds = [EventType.QUEUED, EventType.REJECTED, EventType.STARTED, EventType.FINISHED]
    running.wait("same", EventType.FINISHED)
    assert [e.event_type for e in running.events if e.id == "same"] == kinds


def test_a_failing_engine_fails_one_utterance_and_is_rebuilt(running, engine, monkeypatch):
    """The request ends as failed, engine; after the rebuild the next one is spoken."""

    def fail(*_args):
        raise EngineError("llama_decode returned -1")

    monkeypatch.setattr(engine._model, "next_frames", fail)
    running.service.say(request())
    done = running.final("a")
    assert (done.event_type, done.reason) == (EventType.FAILED, Reason.ENGINE)
    running.service.say(request(request_id="b"))
    assert running.final("b").event_type is EventType.FINISHED
    assert running.service.fatal is None


def test_an_engine_that_stays_broken_is_fatal(running, engine, monkeypatch):
    """When the self-test phrase fails too, the daemon is told to exit with 70, and the state says error."""

    def fail(*_args):
        raise EngineError("llama_decode returned -1")

    monkeypatch.setattr(engine._model, "next_frames", fail)
    monkeypatch.setattr(engine, "rebuild", fail)
    running.service.say(request())
    assert running.final("a").event_type is EventType.FAILED
    end = time.monotonic() + 10
    while running.service.fatal is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert running.service.fatal.exit_code == 70
    assert running.service.state().state is SpeakerState.ERROR


def test_a_bug_in_synthesis_is_an_engine_failure(running, engine, monkeypatch):
    """An unexpected exception ends the utterance, not the thread."""
    monkeypatch.setattr(engine._model, "start", lambda *_args: 1 / 0)
    running.service.say(request())
    assert running.final("a").reason is Reason.ENGINE
    running.service.say(request(request_id="b"))
    assert running.final("b").event_type is EventType.FINISHED


def test_a_device_that_stays_away_fails_the_utterance(running):
    """failed, audio; when it is back the next one is heard."""
    running.sink.broken = True
    running.service.say(request())
    done = running.final("a")
    assert (done.event_type, done.reason) == (EventType.FAILED, Reason.AUDIO)
    assert running.service.state().audio_ok is False
    running.sink.broken = False
    running.service.say(request(request_id="b"))
    assert running.final("b").event_type is EventType.FINISHED
    assert running.service.state().audio_ok is True


def test_a_device_that_comes_back_while_idle_is_noticed(running):
    """The state says so without waiting for the next announcement."""
    running.sink.broken = True
    running.service.say(request())
    running.final("a")
    assert running.service.state().state is SpeakerState.ERROR
    running.sink.broken = False
    end = time.monotonic() + 15
    while not running.service.state().audio_ok:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert running.service.state().state is SpeakerState.IDLE
    assert not running.sink.heard().any()


def test_a_hanging_device_is_told_at_close(engine, tmp_path):
    """close says that a thread has not ended, so that nobody frees the models under it."""
    made = Running(engine, tmp_path)
    made.service.say(request())
    made.wait("a", EventType.STARTED)
    made.sink.gate.clear()
    assert not made.service.close(drain_s=0)
    made.sink.gate.set()
    assert made.service.close(drain_s=0)


def test_repeat_says_the_last_text_again(running):
    """A new request with a new id; before anything was said there is nothing to repeat."""
    with pytest.raises(BadRequestError, match="nothing has been said"):
        running.service.repeat()
    running.service.say(request())
    running.final("a")
    again = running.service.repeat()
    assert again.id != "a"
    assert running.final(again.id).event_type is EventType.FINISHED
    third = running.service.repeat()
    assert running.final(third.id).event_type is EventType.FINISHED


def test_text_in_pieces_is_limited_and_closed(running):
    """append after end and beyond the limit are errors; an open text can be ended later."""
    running.service.say(request(text="Dinner", request_id="open"), more=True)
    running.service.append("open", " is ready.")
    with pytest.raises(BadRequestError) as caught:
        running.service.append("open", "x" * 300)
    assert caught.value.code == "too_long"
    running.service.end("open")
    with pytest.raises(BadRequestError):
        running.service.append("open", "more")
    assert running.final("open").event_type is EventType.FINISHED
    assert running.service.state().last_text == "Dinner is ready."
    with pytest.raises(BadRequestError, match="no request"):
        running.service.end("open")


def test_an_open_request_without_text_just_ends(running):
    """Nothing was ever said: finished, without a sound."""
    running.service.say(request(text="", request_id="open"), more=True)
    running.service.end("open")
    assert running.final("open").audio_s == 0


def test_settings_are_kept_and_clamped(running, tmp_path):
    """Volume steps stay within 0..100; the file can be read by the next start."""
    running.service.set(SettingsChange(volume=95))
    running.service.set(SettingsChange(volume_step=20))
    assert running.service.state().volume == 100
    running.service.set(SettingsChange(volume_step=-100, mute=True, voice="slt"))
    state = running.service.state()
    assert (state.volume, state.mute, state.voice, state.state) == (0, True, "slt", SpeakerState.MUTED)
    assert not (tmp_path / "settings.json").exists()
    running.service.tick()
    assert '"volume": 0' in (tmp_path / "settings.json").read_text()
    with pytest.raises(BadRequestError):
        running.service.set(SettingsChange(voice="bob"))


def test_speed_is_a_setting_that_a_request_may_replace(engine, tmp_path):
    """Half the speed takes twice the time, the request's own comes first, and the setting survives a restart."""
    with run_service(engine, tmp_path) as made:
        made.service.say(request())
        made.final("a")
        made.service.set(SettingsChange(speed=0.5))
        made.service.say(request(request_id="slow"))
        made.service.say(request(request_id="own", speed=1.0))
        plain, slow, own = (made.final(name).audio_s for name in ("a", "slow", "own"))
        assert made.service.state().speed == 0.5
        assert slow == pytest.approx(2 * plain, rel=0.1)
        assert own == plain
    with run_service(engine, tmp_path) as again:
        assert again.service.state().speed == 0.5
        again.service.set(SettingsChange(volume=40))
        assert again.service.state().speed == 0.5


def test_settings_of_an_older_version_still_load(engine, tmp_path):
    """A file without a speed: its volume, mute and voice hold."""
    (tmp_path / "settings.json").write_text('{"volume": 40, "mute": true, "voice": "rms"}')
    with run_service(engine, tmp_path) as made:
        state = made.service.state()
        assert (state.volume, state.mute, state.voice, state.speed) == (40, True, "rms", 1.0)


def test_the_wait_of_a_slow_voice_depends_on_the_speed(engine, tmp_path):
    """At half the speed the same synthesis lasts for twice the time: there is less to wait for."""
    with run_service(engine, tmp_path) as made:
        for name, speed in (("a", 1.0), ("b", 0.5)):
            engine.rtf = 3.0
            made.service.say(request(request_id=name, speed=speed))
            made.final(name)
        waits = [made.wait(name, EventType.QUEUED).wait_s for name in ("a", "b")]
        assert waits[1] < 0.85 * waits[0]


def test_stats_are_plain_numbers(running):
    """None before anything was said; then the latest medians and the counts."""
    before = running.service.stats()
    assert (before["rtf"], before["ttfa_ms"], before["requests"]) == (None, None, 0)
    running.service.say(request())
    running.final("a")
    after = running.service.stats()
    assert set(after) == {"rtf", "ttfa_ms", "underruns", "requests", "phrases", "uptime_s", "rss_bytes"}
    assert after["ttfa_ms"] == running.events[1].ttfa_ms
    assert after["rtf"] > 0
    assert (after["requests"], set(after["phrases"])) == (1, {"hits", "misses"})


def test_chosen_voice_that_is_gone_gives_way_to_the_default(running, engine, monkeypatch):
    """What names no voice itself is spoken with the default one; what names the voice that is gone is refused."""
    gone = Voice("guest", "", "en", 0)
    known = engine.voices.get
    with monkeypatch.context() as patch:
        patch.setattr(engine.voices, "get", lambda name, *rest: gone if name == "guest" else known(name, *rest))
        running.service.set(SettingsChange(voice="guest"))
    assert running.service.state().voice == "guest"
    running.service.say(request())
    assert running.final("a").event_type is EventType.FINISHED
    assert running.service.state().voice == engine.voices.default
    with pytest.raises(BadRequestError, match="no voice 'guest'"):
        running.service.say(request(request_id="b", voice="guest"))


def test_voice_that_goes_while_its_request_waits_fails_it_with_the_reason(running, engine, monkeypatch):
    """The request ends, and says why; the next one is spoken."""
    known = engine.voices.get
    with monkeypatch.context() as patch:
        patch.setattr(engine.voices, "get", lambda _name, *rest: known(None, *rest))
        running.sink.gate.clear()
        running.service.say(request())
        running.service.say(request(request_id="b", voice="guest"))
    running.sink.gate.set()
    failed = running.final("b")
    assert (failed.event_type, failed.reason) == (EventType.FAILED, Reason.UNKNOWN_VOICE)
    running.service.say(request(request_id="c"))
    assert running.final("c").event_type is EventType.FINISHED


def test_damaged_settings_do_not_stop_the_start(engine, tmp_path):
    """Rubbish, a wrong type or an unknown voice in the file gives the defaults."""
    for content in (b"\x00rubbish", b'{"volume": "loud"}', b'{"volume": 40, "voice": "bob"}'):
        (tmp_path / "settings.json").write_bytes(content)
        made = Running(engine, tmp_path)
        assert made.service.state().voice == "slt"
        made.service.close(drain_s=0)


def test_bad_ssml_in_pieces_is_the_requests_fault(running, caplog):
    """The reason is that of bad SSML which comes whole, and the log speaks of no failure."""
    running.service.say(request("<speak>Hello", request_id="open"), more=True)
    running.service.append("open", " <nonsense/></speak>")
    running.service.end("open")
    assert running.wait("open", EventType.FAILED).reason is Reason.BAD_JSON
    assert "refused request_id=open code=bad_request: SSML" in caplog.text
    assert "failed" not in caplog.text


def test_close_gives_every_request_its_end(engine, tmp_path):
    """What waits and what plays is cancelled, stopped; nothing is accepted afterwards."""
    made = Running(engine, tmp_path)
    made.sink.gate.clear()
    for index in range(3):
        made.service.say(request(request_id=f"r{index}"))
    made.sink.gate.set()
    made.service.close(drain_s=0)
    for index in range(3):
        finals = [e for e in made.events if e.id == f"r{index}" and e.event_type.final]
        assert len(finals) == 1
    with pytest.raises(BadRequestError, match="shutting down"):
        made.service.say(request(request_id="late"))


def test_a_slow_disk_does_not_hold_up_the_sound(engine, tmp_path, monkeypatch):
    """Speech and the chime behind it are heard to the end before the phrase cache is written."""
    phrases, disk = PhraseCache(tmp_path / "phrases", 2**24), threading.Event()
    put = phrases.put
    monkeypatch.setattr(phrases, "put", lambda *content: disk.wait(20) and put(*content))
    config = CONFIG.model_copy(update={"chimes": ChimesConfig(after=ChimesOf(normal="ding"))})
    with run_service(engine, tmp_path, config, phrases) as made:
        made.service.say(request())
        made.wait("a", EventType.STARTED)
        job = made.service._desk.job
        assert job.done.wait(10)
        assert job.outcome is PlayOutcome.FINISHED
        assert not (tmp_path / "phrases").exists()
        disk.set()
        made.wait("a", EventType.FINISHED)
        assert len(list((tmp_path / "phrases").iterdir())) == 1


def test_an_id_may_come_again_when_it_has_just_expired(running, monkeypatch):
    """Ten minutes later, in the second in which the first one's time is up: the second is spoken."""
    monkeypatch.setattr(running.service._desk.queue, "_known", RecentIds(0.0, 10))
    running.service.pause()
    running.service.say(request(ttl_s=0.05))
    time.sleep(0.1)
    running.service.say(request())
    running.service.resume()
    running.wait("a", EventType.FINISHED)
    kinds = [event.event_type for event in running.events]
    assert kinds == [EventType.QUEUED, EventType.EXPIRED, EventType.QUEUED, EventType.STARTED, EventType.FINISHED]


def test_random_requests_end_exactly_once(running):
    """60 requests with random priorities, keys, stops, pauses and mutes: one final event each, and then silence."""
    rng = np.random.default_rng(11)
    sent = []
    for index in range(60):
        request_id = f"n{index}"
        fields = {"priority": list(Priority)[rng.integers(3)], "ttl_s": float(rng.uniform(0.05, 30))}
        if rng.random() < 0.3:
            fields["key"] = f"k{rng.integers(3)}"
        with contextlib.suppress(BadRequestError):  # the queue is full: rejected
            running.service.say(request(text="yes.", request_id=request_id, **fields))
        sent.append(request_id)
        action = rng.integers(12)
        if action == 0:
            running.service.stop(["all", "current", sent[rng.integers(len(sent))]][rng.integers(3)])
        elif action == 1:
            running.service.pause()
        elif action in (2, 3):
            running.service.resume()
        elif action == 4:
            running.service.set(SettingsChange(mute=bool(rng.integers(2))))
        time.sleep(float(rng.uniform(0, 0.04)))
    running.service.resume()
    running.service.set(SettingsChange(mute=False))
    for request_id in sent:
        running.final(request_id)
    for request_id in sent:
        kinds = [e.event_type for e in running.events if e.id == request_id]
        assert sum(kind.final for kind in kinds) == 1
        assert kinds[-1].final
    assert running.service.state().queue == 0
    assert running.service._desk.entries == {}


def test_an_announcement_whose_turn_never_came_is_in_the_log_once(running, caplog):
    """Muted, expired or stopped while it waited: one line each; what was spoken has its own line, and no other."""
    caplog.set_level("INFO")
    running.sink.gate.clear()
    running.service.say(request(request_id="spoken"))
    running.service.say(request(request_id="stopped"))
    running.service.say(request(request_id="late", ttl_s=0.01))
    running.service.stop("stopped")
    time.sleep(0.02)
    running.service.tick()
    running.sink.gate.set()
    running.final("spoken")
    running.service.set(SettingsChange(mute=True))
    running.service.say(request(request_id="muted"))
    running.final("muted")
    lines = [record.getMessage() for record in caplog.records if record.name in ("daemon.desk", "daemon.speaking")]
    unspoken = [line for line in lines if line.startswith("unspoken")]
    assert unspoken == [
        "unspoken request_id=stopped outcome=cancelled reason=stopped",
        "unspoken request_id=late outcome=expired reason=ttl",
        "unspoken request_id=muted outcome=finished reason=muted",
    ]
    assert sum("request_id=spoken" in line for line in lines) == 1


def test_a_critical_request_does_not_wait_for_text_that_is_still_open(running):
    """What it cuts may be waiting for more text: that wait ends at once, not when it looks around again."""
    running.service.say(request("Dinner is ready. And", request_id="open"), more=True)
    running.wait("open", EventType.STARTED)
    time.sleep(0.3)  # all that there is has been made: the synth thread waits for text
    waits = []
    for number in range(4):
        running.service.say(request("Fire!", request_id=f"fire{number}", priority=Priority.CRITICAL))
        waits.append(running.wait(f"fire{number}", EventType.STARTED).ttfa_ms)
        running.final(f"fire{number}")
        time.sleep(0.1)
    assert min(waits[:2]) < 150, waits
