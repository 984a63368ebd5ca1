"""A player and what renderers may send it: parts twice, too few, from two, errors; a test plays the renderer."""

import json

import numpy as np
import pytest
from daemon_process import render
from sharing_scene import CANCEL, JOBS, TEXT, TONE, FakeRenderer, final_event, hear, node
from soundcard import contains

pytestmark = pytest.mark.broker


@pytest.fixture
def broker(own_broker):
    """A broker of its own for each test: some restart it."""
    return own_broker


def test_a_voice_that_only_a_renderer_has(broker, tmp_path):
    """The player accepts its name; nobody having it, the default speaks; a language that nobody has is a failure."""
    with FakeRenderer(broker) as fake, node(broker, tmp_path, "player", wait_s=1.0) as player:
        client = player.client()
        request_id = client.say(TEXT, voice="aunt")
        job = fake.job()
        assert json.loads(fake.payloads(JOBS)[0])["voice"] == "aunt"
        fake.answer(job, 0, TONE)
        fake.answer(job, 1, TONE, end="true")
        client.wait_for("finished", request_id)
        assert contains(player.recording(), np.tile(TONE, 2)) >= 0

        request_id = client.say(TEXT, voice="uncle")
        fake.answer(fake.job(1), 0, b"no voice 'uncle'", error="unknown_voice", end="true")
        client.wait_for("finished", request_id)
        assert contains(player.recording(), render(TEXT)) >= 0

        request_id = client.say(TEXT, lang="de")
        fake.answer(fake.job(2), 0, b"no German", error="unknown_voice", end="true")
        assert final_event(client, request_id)["reason"] == "unknown_voice"


def test_parts_that_come_twice_or_from_two_renderers(broker, tmp_path):
    """Each part is heard once, in order, from the renderer that answered first; what is no part is ignored."""
    with FakeRenderer(broker) as fake, node(broker, tmp_path, "player", wait_s=2.0) as player:
        client = player.client()
        request_id = client.say(TEXT)
        job = fake.job()
        parts = [np.roll(TONE, 10 * seq) for seq in range(4)]
        for seq in (0, 0, 1, 0, 2, 1):
            fake.answer(job, seq, parts[seq])
        fake.answer(job, 3, TONE, renderer="another")
        fake.answer(job, 3, b"odd")
        fake.answer(b"no such job", 3, TONE)
        fake.answer(job, 3, parts[3], end="true")
        assert final_event(client, request_id)["event_type"] == "finished"
        assert contains(player.recording(), np.concatenate(parts)) >= 0
        assert not fake.payloads(CANCEL)


def test_what_breaks_off_unheard_is_spoken_by_the_local_voice(broker, tmp_path):
    """A renderer that dies before enough has come to start: nothing of its speech is heard, all of the local one."""
    with FakeRenderer(broker) as fake, node(broker, tmp_path, "player", wait_s=0.5) as player:
        client = player.client()
        request_id = client.say(TEXT)
        first = fake.job()
        fake.answer(first, 0, TONE[:2400])
        second = fake.job(1)
        fake.answer(second, 0, b"", error="engine", end="true")
        assert final_event(client, request_id)["event_type"] == "finished"
        heard = player.recording()
        assert contains(heard, render(TEXT)) >= 0
        assert contains(heard, TONE[:2400]) < 0
        assert fake.payloads(CANCEL) == [first]


@pytest.mark.parametrize("alike", [True, False])
def test_what_breaks_off_in_the_middle_goes_on_or_fails(broker, tmp_path, alike):
    """A second answer that begins like the first is heard from where that stopped; another is a failure, once."""
    with FakeRenderer(broker) as fake, node(broker, tmp_path, "player", wait_s=1.0) as player:
        client = player.client()
        request_id = client.say(TEXT, id="dryer")
        speech = np.concatenate([np.roll(TONE, 100 * seq) for seq in range(4)])
        first = fake.job()
        for seq in range(2):
            fake.answer(first, seq, speech[12_000 * seq : 12_000 * (seq + 1)])
        client.wait_for("started", request_id)
        second = fake.job(1)
        if not alike:
            speech = speech // 2
        for seq in range(4):
            fake.answer(second, seq, speech[12_000 * seq : 12_000 * (seq + 1)], **({"end": "true"} if seq == 3 else {}))
        final = final_event(client, request_id)
        client.op("status")
        kinds = [event["event_type"] for event in client.events if event["id"] == "dryer"]
        assert kinds == ["queued", "started", final["event_type"]]
        heard = player.recording()
        if alike:
            assert final["event_type"] == "finished"
            assert contains(heard, speech[:12_000]) >= 0
            assert np.array_equal(heard[heard != 0], speech[speech != 0])  # silent while nobody sent anything
        else:
            assert (final["event_type"], final["reason"]) == ("failed", "engine")
        assert hear(player, "Next.", voice="slt", seed=1)[0]["event_type"] == "finished"


def test_busy_renderers_are_asked_again(broker, tmp_path):
    """Busy is told at once and another is asked, until wait_s is over; then the local voice speaks."""
    with FakeRenderer(broker) as fake, node(broker, tmp_path, "player", wait_s=1.0) as player:
        client = player.client()
        request_id = client.say(TEXT)
        for number in range(2):
            fake.answer(fake.job(number), 0, b"enough to do", error="busy", end="true")
        fake.answer(fake.job(2), 0, TONE, end="true")
        assert final_event(client, request_id)["event_type"] == "finished"
        assert contains(player.recording(), TONE) >= 0
