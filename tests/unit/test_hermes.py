"""Hermes: every say of the site is finished exactly once, with its ids, whatever becomes of it."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recording_speaker import RecordingSpeaker

from daemon.config_sections import HermesConfig
from daemon.inputs.hermes import Hermes
from daemon.inputs.mqtt_feature import Message
from daemon.values import Event, EventType, Reason

SAY = "hermes/tts/say"
FINISHED = "hermes/tts/sayFinished"
ERROR = "hermes/error/tts"


class Site:
    """A Hermes with a speaker, and what it has published."""

    def __init__(self, site_id="", finish=None, reason=None):
        self.speaker = RecordingSpeaker(finish=finish, reason=reason)
        self.events = []
        self.speaker.listeners.append(self.events.append)
        self.hermes = Hermes(HermesConfig(enabled=True, site_id=site_id), self.speaker, node="kitchen")
        self.published = []

    def get(self, topic, data, *, retained=False):
        """A message comes; the events that it leads to follow, as on the mqtt thread."""
        payload = data if isinstance(data, bytes) else json.dumps(data).encode()
        self._add(self.hermes.on_message(Message(topic=topic, payload=payload, retained=retained)))
        while self.events:
            self._add(self.hermes.on_event(self.events.pop(0)))

    def say(self, **fields):
        self.get(SAY, {"siteId": "kitchen", "text": "Hello", **fields})

    def _add(self, publications):
        for publication in publications:
            assert not publication.retain
            self.published.append((publication.topic, json.loads(publication.payload)))

    def topics(self):
        return [topic for topic, _ in self.published]


@pytest.mark.parametrize("finish", [EventType.FINISHED, EventType.CANCELLED, EventType.EXPIRED, EventType.FAILED])
def test_what_was_accepted_is_finished_once(finish):
    """With its ids, however it ended; a failure is told before."""
    site = Site(finish=finish, reason=Reason.ENGINE if finish is EventType.FAILED else None)
    site.say(id="1", sessionId="s")
    finished = (FINISHED, {"siteId": "kitchen", "id": "1", "sessionId": "s"})
    error = {"siteId": "kitchen", "context": "1", "sessionId": "s", "error": "not spoken: engine"}
    assert site.published == ([(ERROR, error)] if finish is EventType.FAILED else []) + [finished]
    request = site.speaker.wait_said("Hello")
    assert request.id.startswith("hermes-")
    list(site.hermes.on_event(Event(event_type=EventType.FINISHED, id=request.id)))
    assert site.topics().count(FINISHED) == 1


def test_nothing_is_finished_before_its_end():
    """queued and started, and what others say, are no end."""
    site = Site()
    site.say(id="1")
    request_id = site.speaker.wait_said("Hello").id
    for event in (
        Event(event_type=EventType.STARTED, id=request_id),
        Event(event_type=EventType.FINISHED, id="someone's"),
        Event(event_type=EventType.REJECTED, id=""),
    ):
        assert not list(site.hermes.on_event(event))
    assert [p.topic for p in site.hermes.on_event(Event(event_type=EventType.FINISHED, id=request_id))] == [FINISHED]


@pytest.mark.parametrize(
    "fields",
    [
        {"text": ""},
        {"text": None},
        {"text": 5},
        {"text": "x" * 2001},
        {"text": "bug"},
        {"volume": 2},
        {"volume": True},
        {"lang": "x"},
    ],
)
def test_a_refusal_is_told_and_finished(fields):
    """Too long, empty, wrong types, even a bug: an error with the ids, then the end, and nothing is said."""
    site = Site()
    site.say(**{"id": "1", "sessionId": "s", **fields})
    assert site.topics() == [ERROR, FINISHED]
    assert site.published[0][1]["error"]
    assert site.published[0][1]["context"] == "1"
    assert site.published[1][1] == {"siteId": "kitchen", "id": "1", "sessionId": "s"}
    assert not site.speaker.said


def test_retained_and_silenced_requests_are_finished_unheard(caplog):
    """A client that waits is let go; silence is for this site alone, until it is lifted, and the log tells of it."""
    caplog.set_level(logging.INFO)
    site = Site(finish=EventType.FINISHED)
    site.get(SAY, {"siteId": "kitchen", "text": "old", "id": "1"}, retained=True)
    site.get("hermes/audioServer/toggleOff", {"siteId": "hall"})
    site.say(text="heard", id="2")
    site.get("hermes/audioServer/toggleOff", {"siteId": "kitchen"}, retained=True)
    site.say(text="still heard", id="3")
    site.get("hermes/audioServer/toggleOff", {"siteId": "kitchen"})
    site.say(text="unheard", id="4")
    site.get("hermes/audioServer/toggleOn", {"siteId": "kitchen"})
    site.say(text="heard again", id="5")
    assert site.speaker.said == ["heard", "still heard", "heard again"]
    assert [data["id"] for topic, data in site.published if topic == FINISHED] == ["1", "2", "3", "4", "5"]
    assert [record.message for record in caplog.records[-2:]] == ["event=hermes_off", "event=hermes_on"]


def test_only_its_own_site_is_served():
    """Other sites, and messages that name none, are somebody else's; unless this one is the default."""
    site = Site(finish=EventType.FINISHED)
    for data in (
        {"text": "a", "siteId": "hall"},
        {"text": "a"},
        {"text": "a", "site_id": ""},
        {"text": "a", "siteId": 5},
    ):
        site.get(SAY, data)
    assert not site.published
    assert not site.speaker.calls
    default = Site(site_id="default", finish=EventType.FINISHED)
    default.get(SAY, {"text": "a", "siteId": None})
    default.get(SAY, {"text": "b", "siteId": "default"})
    default.get(SAY, {"text": "c", "siteId": "kitchen"})
    assert default.speaker.said == ["a", "b"]


def test_both_spellings_and_empty_values():
    """site_id and session_id as some of Rhasspy's programs write and want them; "" and null are nothing."""
    site = Site(finish=EventType.FINISHED)
    rhasspy = {"text": "Hi", "site_id": "kitchen", "lang": "", "id": "1", "session_id": "", "volume": None}
    site.get(SAY, rhasspy)
    site.say(id="1", lang="en_US", volume=0.355, session_id="s")  # ids come again
    first, second = (call[1] for call in site.speaker.calls if call[0] == "say")
    assert (first.lang, first.volume, first.text) == (None, None, "Hi")
    assert (second.lang, second.volume) == ("en_US", 36)
    assert first.id != second.id
    ids = [{"site_id": "kitchen", "id": "1"}, {"siteId": "kitchen", "id": "1", "sessionId": "s"}]
    assert site.published == [(FINISHED, data) for data in ids]


def test_voices_and_volume():
    """The voices are listed for whoever asks; a wrong volume changes nothing and finishes nothing."""
    site = Site()
    site.get("rhasspy/tts/getVoices", {"siteId": "kitchen", "id": "q"})
    listed = {"voices": [{"voiceId": "starter", "description": "The starter voice"}], "siteId": "kitchen", "id": "q"}
    assert site.published == [("rhasspy/tts/voices", listed)]
    site.get("rhasspy/audioServer/setVolume", {"siteId": "kitchen", "volume": 0.4})
    site.get("rhasspy/audioServer/setVolume", {"siteId": "kitchen", "volume": "loud"})
    site.get("rhasspy/audioServer/setVolume", {"siteId": "kitchen"})
    assert [call[1].volume for call in site.speaker.calls] == [40]
    assert len(site.published) == 1


def test_a_request_whose_end_is_never_heard_of_does_not_stay():
    """However many there are, a bounded number is remembered, and the oldest is let go."""
    site = Site()
    for number in range(1500):
        site.say(id=str(number))
    finished = [data["id"] for topic, data in site.published if topic == FINISHED]
    assert finished == [str(number) for number in range(1500 - 1024)]


NUMBERS = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers())
KEYS = ["siteId", "site_id", "text", "id", "sessionId", "lang", "volume"]
VALUES = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5), st.just("kitchen"))


@given(st.sampled_from(Hermes.topics), st.dictionaries(st.sampled_from(KEYS), VALUES), st.binary(max_size=20))
def test_no_payload_does_harm(topic, data, noise):
    """Whatever comes, nothing is raised, and a say of this site ends once."""
    site = Site(finish=EventType.FINISHED)
    site.get(topic, noise)
    site.get(topic, data)
    site_id = next((data[key] for key in ("siteId", "site_id") if data.get(key) not in (None, "")), None)
    assert site.topics().count(FINISHED) == (topic == SAY and site_id == "kitchen")


def test_a_message_that_is_too_long_is_not_read():
    """64 KiB are enough for everyone."""
    site = Site()
    site.say(text="x" * 70_000, id="1")
    assert not site.published
