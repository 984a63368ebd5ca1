"""Speech for the doors: renders beside announcements, with the real voice."""

import contextlib
import itertools
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_scene import open_engine, request, run_service

from daemon import rendering
from daemon.errors import BadRequestError, EngineError
from daemon.output import Writer
from daemon.rendering import MAX_RENDERS
from daemon.sentences import SentenceCutter
from daemon.synthesizer import Synthesizer
from daemon.text.script import is_ssml
from daemon.text_source import TextSource
from daemon.values import EventType, SettingsChange

pytestmark = pytest.mark.engine

STORY = "The door is open. Dinner is ready now. The washing machine has finished."


class Listener:
    """Keeps what a render gives; may hold the synth thread after its first samples."""

    def __init__(self, *, hold=False, on_audio=None):
        self.pieces, self.ends = [], []
        self.begun, self.ended, self.go_on = threading.Event(), threading.Event(), threading.Event()
        self._on_audio = on_audio
        if not hold:
            self.go_on.set()

    def on_audio(self, pcm):
        self.pieces.append(pcm.copy())
        if self._on_audio is not None:
            self._on_audio()
        self.begun.set()
        assert self.go_on.wait(20)

    def on_end(self, error):
        self.ends.append(error)
        self.ended.set()

    def pcm(self):
        """All of it, once it has ended."""
        assert self.ended.wait(20)
        assert self.ends == [None]
        return np.concatenate(self.pieces) if self.pieces else np.zeros(0, np.int16)


class Memory:
    """A ring without an end."""

    def __init__(self):
        self.pcm = []

    def write(self, pcm, timeout_s):  # noqa: ARG002
        self.pcm += pcm.tolist()
        return len(pcm)

    def unwrite(self, count):  # noqa: ARG002
        return False


@pytest.fixture(scope="module")
def engine():
    """The starter voice."""
    with open_engine() as opened:
        yield opened


@pytest.fixture
def running(engine, tmp_path):
    """A running service."""
    with run_service(engine, tmp_path) as made:
        yield made


@pytest.fixture
def spoken(engine):
    """What each sentence of a text sounds like, one after the other: call it while no service runs."""

    def speak(*sentences, **fields):
        ring = Memory()
        for text in sentences:
            Synthesizer(engine).speak(
                request(text=text, **fields),
                TextSource(text, more=False),
                Writer(ring),
                voice=fields.get("voice"),
                speed=1.0,
            )
        return np.array(ring.pcm, np.int16)

    return speak


def sentences(text):
    """The sentences of a text that ends each of them with a dot."""
    return [part + "." for part in text.removesuffix(".").split(". ")]


def test_a_render_gets_all_its_speech_and_nobody_else_hears_of_it(spoken, engine, tmp_path):
    """The samples are those of its sentences; no block goes to the sink, no event and no text to anybody."""
    expected = spoken(*sentences(STORY), voice="slt", seed=7)
    with run_service(engine, tmp_path) as made:
        listener = Listener()
        made.service.render(request(STORY, voice="slt", seed=7, chime="of another place"), listener)
        np.testing.assert_array_equal(listener.pcm(), expected)
        assert made.events == []
        assert made.sink.blocks == []
        assert made.service.state().last_text is None
        metrics = made.service.status()["metrics"]
        assert metrics["renders"] == {"finished": 1}
        assert metrics["rtf"]["p50"] > 0
        with pytest.raises(BadRequestError, match="nothing has been said"):
            made.service.repeat()


def test_an_announcement_comes_first_and_the_render_is_none_the_worse(spoken, engine, tmp_path):
    """It waits for one frame at most; afterwards the sentence goes on where it was, bit for bit."""
    expected = spoken(*sentences(STORY))
    with run_service(engine, tmp_path) as made:
        listener = Listener(hold=True)
        made.service.render(request(STORY, "r"), listener)
        assert listener.begun.wait(20)
        pieces = []
        speak = made.service._synthesizer.speak

        def watch(asked, *args, **kwargs):
            pieces.append((asked.id, len(listener.pieces)))
            return speak(asked, *args, **kwargs)

        made.service._synthesizer.speak = watch
        made.service.say(request())
        before = len(listener.pieces)
        listener.go_on.set()
        assert made.final("a").event_type is EventType.FINISHED
        assert pieces[0][0] == "a"
        assert pieces[0][1] <= before + 1
        np.testing.assert_array_equal(listener.pcm(), expected)


@pytest.mark.parametrize("hindrance", ["playing", "paused", "muted"])
def test_renders_go_on_while_no_announcement_is_made(spoken, engine, tmp_path, hindrance):
    """While one plays, waits for a resume, or is silenced, the voice is free."""
    expected = spoken(*sentences(STORY))
    with run_service(engine, tmp_path) as made:
        if hindrance == "playing":
            made.service.say(request())
            made.wait("a", EventType.STARTED)
            made.sink.gate.clear()
        elif hindrance == "paused":
            made.service.pause()
            made.service.say(request())
        else:
            made.service.set(SettingsChange(mute=True))
            made.service.say(request())
        listener = Listener()
        made.service.render(request(STORY, "r"), listener)
        np.testing.assert_array_equal(listener.pcm(), expected)
        made.sink.gate.set()
        made.service.resume()
        made.final("a")


def test_an_announcement_ends_while_a_render_goes_on(running):
    """Its finished event and the next one's turn do not wait for the render's sentence."""
    listener = Listener(on_audio=lambda: time.sleep(0.02))
    running.sink.gate.clear()
    running.service.say(request())
    running.service.say(request(request_id="b"))
    running.service.render(request("The washing machine and the dryer have finished, " * 3, "r"), listener)
    assert listener.begun.wait(20)
    running.sink.gate.set()
    assert running.final("a").event_type is EventType.FINISHED
    assert running.final("b").event_type is EventType.FINISHED
    assert not listener.ended.is_set()
    assert len(listener.pcm()) > 0


def test_renders_take_turns_sentence_by_sentence(running):
    """The second does not wait for the end of the first."""
    order = []
    first = Listener(hold=True, on_audio=lambda: order.append("first"))
    second = Listener(on_audio=lambda: order.append("second"))
    running.service.render(request(STORY, "r1"), first)
    assert first.begun.wait(20)
    running.service.render(request(STORY, "r2"), second)
    first.go_on.set()
    assert first.ended.wait(20)
    assert second.ended.wait(20)
    turns = [name for name, before in zip(order, ["", *order], strict=False) if name != before]
    assert turns == ["first", "second"] * 3


def test_a_cancelled_render_stops_within_a_frame(running):
    """One more frame at most, then the end, which is told once; what comes later is refused."""
    listener = Listener(hold=True)
    ticket = running.service.render(request(STORY, "r"), listener, more=True)
    assert listener.begun.wait(20)
    ticket.cancel()
    listener.go_on.set()
    assert listener.ended.wait(20)
    ticket.cancel()
    ticket.end()
    with pytest.raises(BadRequestError, match="has ended"):
        ticket.append("more")
    assert len(listener.pieces) <= 2
    assert listener.ends == [None]
    assert running.metrics.snapshot()["renders"] == {"cancelled": 1}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"text": "..."}, "empty"),
        ({"text": "a" * 301}, "too_long"),
        ({"voice": "bob"}, "unknown_voice"),
        ({"context": ("earlier",)}, "bad_request"),
    ],
)
def test_what_cannot_be_rendered_is_refused_without_an_event(running, fields, code):
    """The asker alone is told, and its listener hears nothing."""
    listener = Listener()
    with pytest.raises(BadRequestError) as caught:
        running.service.render(request(**fields), listener)
    assert caught.value.code == code
    assert (running.events, listener.ends) == ([], [])


def test_the_number_of_renders_is_bounded(running):
    """One more than MAX_RENDERS is refused until another has ended."""
    listeners = [Listener() for _ in range(MAX_RENDERS + 1)]
    tickets = [running.service.render(request("", f"r{i}"), listeners[i], more=True) for i in range(MAX_RENDERS)]
    with pytest.raises(BadRequestError) as caught:
        running.service.render(request(), listeners[-1])
    assert caught.value.code == "queue_full"
    tickets[3].end()
    assert listeners[3].ended.wait(20)
    running.service.render(request(), listeners[-1])
    assert len(listeners[-1].pcm()) > 0
    for ticket in tickets:
        ticket.cancel()
    assert all(listener.ended.wait(20) for listener in listeners)


def test_open_text_is_spoken_as_it_comes(spoken, engine, tmp_path):
    """A sentence is made once it is known to be one; the pieces do not matter; the limit is that of append."""
    expected = spoken(*sentences(STORY))
    with run_service(engine, tmp_path) as made:
        listener = Listener()
        ticket = made.service.render(request("The door ", "r"), listener, more=True)
        ticket.append("is open. Dinner is")
        assert listener.begun.wait(20)
        assert not listener.ended.is_set()
        ticket.append(" ready now. The washing machine has finished.")
        with pytest.raises(BadRequestError) as caught:
            ticket.append("x" * 300)
        assert caught.value.code == "too_long"
        ticket.end()
        np.testing.assert_array_equal(listener.pcm(), expected)


def test_text_left_open_is_taken_as_ended(running, monkeypatch):
    """After the timeout what there is has been said, and the render ends; waiting takes no processor time."""
    monkeypatch.setattr(rendering, "OPEN_TEXT_TIMEOUT_S", 0.5)
    listener = Listener()
    running.service.render(request("The door is open", "r"), listener, more=True)
    used = time.process_time()
    time.sleep(0.4)
    assert time.process_time() - used < 0.1
    assert len(listener.pcm()) > 0


def test_a_failing_engine_ends_the_render_and_is_rebuilt(running, engine, monkeypatch):
    """Its listener is told why; the next one is made."""

    def fail(*_args):
        raise EngineError("llama_decode returned -1")

    monkeypatch.setattr(engine._model, "next_frames", fail)
    listener = Listener()
    running.service.render(request(), listener)
    assert listener.ended.wait(20)
    assert [str(error) for error in listener.ends] == ["llama_decode returned -1"]
    again = Listener()
    running.service.render(request(), again)
    assert len(again.pcm()) > 0
    assert running.service.fatal is None


def test_a_listener_that_raises_harms_only_itself(running):
    """Its render ends, and so it is told; another's goes on."""
    bad, good = Listener(on_audio=lambda: 1 / 0), Listener()
    running.service.render(request(STORY, "bad"), bad)
    running.service.render(request(STORY, "good"), good)
    assert len(good.pcm()) > 0
    assert bad.ended.wait(20)
    assert len(bad.pieces) == 1


def test_shutdown_ends_every_render_with_an_error(engine, tmp_path):
    """The one being made, the one that waits, and whoever comes too late."""
    with run_service(engine, tmp_path) as made:
        listeners = [Listener(hold=True), Listener()]
        made.service.render(request(STORY, "r0"), listeners[0])
        assert listeners[0].begun.wait(20)
        made.service.render(request("", "r1"), listeners[1], more=True)
        threading.Timer(0.1, listeners[0].go_on.set).start()
        assert made.service.close(drain_s=0)
        for listener in listeners:
            assert [error.code for error in listener.ends] == ["queue_full"]
        with pytest.raises(BadRequestError, match="shutting down"):
            made.service.render(request(), Listener())


def test_random_renders_and_announcements_end_exactly_once(running):
    """Whatever is said, stopped, cancelled and appended meanwhile: one end each, for announcements too."""
    rng = np.random.default_rng(5)
    renders, said = [], []
    for index in range(40):
        listener = Listener()
        text = " ".join(["Yes.", "The door is open."][rng.integers(2)] for _ in range(rng.integers(1, 4)))
        with contextlib.suppress(BadRequestError):  # queue_full
            more = bool(rng.integers(2))
            ticket = running.service.render(request(text, f"r{index}"), listener, more=more)
            renders.append((listener, ticket))
        if rng.random() < 0.4:
            said.append(f"a{index}")
            running.service.say(request("Yes.", said[-1], priority=["normal", "critical"][rng.integers(2)]))
        _, ticket = renders[rng.integers(len(renders))]
        action = rng.integers(6)
        if action == 0:
            ticket.cancel()
        elif action == 1:
            ticket.end()
        elif action == 2:
            running.service.stop("current")
        elif action == 3:
            with contextlib.suppress(BadRequestError):  # it has ended
                ticket.append(" No.")
        time.sleep(float(rng.uniform(0, 0.03)))
    for listener, ticket in renders:
        ticket.end()
        assert listener.ended.wait(20)
    finals = [running.final(request_id) for request_id in said]
    assert all(listener.ends == [None] for listener, _ in renders)
    assert all(final.event_type in (EventType.FINISHED, EventType.CANCELLED) for final in finals)
    assert sum(running.metrics.snapshot()["renders"].values()) == len(renders)


@given(st.text(alphabet="ab.!?\n A1", max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_sentences_do_not_depend_on_the_pieces(text, cuts):
    """However the text is cut, the same sentences come out, and nothing but blanks is lost."""
    whole, pieces = SentenceCutter("en"), SentenceCutter("en")
    expected = whole.push(text) + whole.flush()
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    found = [s for a, b in itertools.pairwise(edges) for s in pieces.push(text[a:b])]
    assert found + pieces.flush() == expected
    assert "".join("".join(expected).split()) == "".join(text.split())


@pytest.mark.parametrize("start", [" <speak>", "\ufeff<speak>", "<?xml version='1.0'?><speak>", "<!DOCTYPE speak> "])
def test_ssml_is_one_sentence(start):
    """Tags would be torn apart otherwise; whatever the segmenter takes for SSML, complete when the text has ended."""
    cutter = SentenceCutter("en")
    ssml = f"{start}One. Two.\nThree.</speak>"
    assert is_ssml(ssml)
    assert [cutter.push(char) for char in ssml] == [[]] * len(ssml)
    assert cutter.flush() == [ssml]


def test_a_render_does_not_wait_for_a_long_announcement_that_is_paused(engine, tmp_path):
    """The voice is free as soon as the announcement's speech is made, however long it takes to be heard."""
    with run_service(engine, tmp_path) as running:
        running.service.say(request("The washing machine has finished, please empty it. " * 5, request_id="long"))
        running.wait("long", EventType.STARTED)
        running.service.pause()
        listener = Listener()
        running.service.render(request(request_id="r"), listener)
        assert len(listener.pcm()) > 0
        assert all(event.id != "long" or not event.event_type.final for event in running.events)
