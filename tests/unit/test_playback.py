"""The player's state machine, one block at a time: everything is counted in samples of what the sink got."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from playback_rig import BLOCK, GAP, LATENCY, LEAD, TAIL, MemorySink, Rig, speech

from daemon.audio import device
from daemon.audio.utterance import Hold, PlayOutcome

FINISHED, CUT, FAILED = PlayOutcome.FINISHED, PlayOutcome.CUT, PlayOutcome.FAILED


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch):
    monkeypatch.setattr(device, "_BACKOFF_MIN_S", 0.0)
    monkeypatch.setattr(device, "_BACKOFF_MAX_S", 0.0)


def test_an_utterance_is_whole_between_lead_and_tail():
    """Lead silence, every sample, latency and tail silence; then the device is closed and all is reported."""
    rig, pcm = Rig(), speech(5 * BLOCK + 77)
    rig.begin("a", pcm)
    rig.rest()
    got = rig.sink.pcm
    assert not got[:LEAD].any()
    assert np.array_equal(got[LEAD : LEAD + len(pcm)], pcm)
    rest = got[LEAD + len(pcm) :]
    assert LATENCY + TAIL <= len(rest) < LATENCY + TAIL + BLOCK
    assert not rest.any()
    assert rig.events == [("started", "a"), ("a", FINISHED, len(pcm))]
    assert (rig.sink.opened, rig.playback.device.is_open) == (1, False)


@given(
    sizes=st.lists(st.integers(1, 2000), min_size=1, max_size=12),
    turns=st.lists(st.integers(0, 6), min_size=12, max_size=12),
    pauses=st.sets(st.integers(0, 11)),
)
def test_speech_survives_any_pace_and_pauses(sizes, turns, pauses):
    """However writing, playing and pausing interleave, the non-silent samples are the utterance, in order, once."""
    rig, pcm, position = Rig(), speech(sum(sizes)), 0
    rig.begin("a", finish=False)
    for index, (size, count) in enumerate(zip(sizes, turns, strict=False)):
        rig.playback.paused = index in pauses
        rig.ring.write(pcm[position : position + size], 0)
        position += size
        for _ in range(count):
            rig.playback.step()
    rig.playback.paused = False
    rig.playback.finish("a", rig.ring.total_written)
    rig.rest()
    got = rig.sink.pcm
    assert np.array_equal(got[got != 0], pcm)
    assert rig.events[-1] == ("a", FINISHED, len(pcm))


def test_finished_is_said_only_when_the_last_sample_has_been_heard():
    """The event comes after the device's latency in silence, not with the last block."""
    rig = Rig()
    rig.begin("a", speech(BLOCK))
    rig.steps(LEAD // BLOCK + 1 + LATENCY // BLOCK)
    assert rig.events == [("started", "a")]
    rig.steps(1)
    assert rig.events[-1] == ("a", FINISHED, BLOCK)


def test_wake_opens_the_device_before_there_is_speech_and_lets_go_if_none_comes():
    """Silence goes out for two seconds at most; speech that comes meanwhile needs no second lead."""
    rig = Rig()
    rig.playback.wake()
    assert rig.rest() == 48_000
    rig = Rig()
    rig.playback.wake()
    rig.steps(10)
    rig.begin("a", speech(BLOCK))
    rig.steps(1)
    assert rig.sink.got[-1].all()


def test_a_gap_parts_two_utterances_and_the_device_stays_open():
    """From the last sample of one to the first of the next: gap_ms, rounded up to a block."""
    rig, first, second = Rig(), speech(3 * BLOCK), speech(2 * BLOCK, 2)
    rig.begin("a", first)
    rig.begin("b", second)
    rig.rest()
    got = rig.sink.pcm
    start = LEAD + len(first) + GAP
    assert not got[LEAD + len(first) : start].any()
    assert np.array_equal(got[start : start + len(second)], second)
    assert rig.sink.opened == 1
    assert [event[0] for event in rig.events] == ["started", "a", "started", "b"]


def test_prebuffer_holds_speech_back_until_enough_or_finished_or_full():
    """Silence goes out meanwhile."""
    rig = Rig(capacity=4000)
    rig.begin("a", speech(1000), finish=False, hold=Hold(2000))
    rig.steps(20)
    assert not rig.sink.pcm.any()
    rig.ring.write(speech(1000), 0)
    rig.steps(1)
    assert rig.sink.got[-1].all()
    for finish, count in ((True, 1000), (False, 4000)):
        rig = Rig(capacity=4000)
        rig.begin("a", speech(count), finish=finish, hold=Hold(Hold.UNKNOWN))
        rig.steps(6)
        assert rig.sink.got[-1].all()


def test_a_dry_ring_is_silence_and_counted_once_with_its_samples():
    """An underrun inside an utterance; waiting for the first sample and the end are none."""
    rig = Rig()
    rig.begin("a", finish=False)
    rig.steps(8)
    rig.ring.write(speech(BLOCK + 100), 0)
    rig.steps(4)
    assert (rig.playback.underrun_count, rig.playback.underrun_samples) == (1, 380 + 2 * BLOCK)
    rig.ring.write(speech(BLOCK + 100), 0)
    rig.playback.finish("a", rig.ring.total_written)
    rig.rest()
    assert (rig.playback.underrun_count, rig.playback.underrun_samples) == (1, 380 + 2 * BLOCK)
    assert rig.events[-1] == ("a", FINISHED, 2 * BLOCK + 200)


def test_cut_fades_within_5_ms_and_drops_the_rest():
    """120 faded samples follow the last whole block, then silence alone; what was heard is reported."""
    rig, pcm = Rig(), np.full(20 * BLOCK, 12_000, dtype=np.int16)
    rig.begin("a", pcm)
    rig.steps(LEAD // BLOCK + 3)
    rig.cut()
    rig.rest()
    speech_part = rig.sink.pcm[LEAD : LEAD + 3 * BLOCK + 120]
    assert (speech_part[: 3 * BLOCK] == 12_000).all()
    assert (np.diff(speech_part[3 * BLOCK - 1 :].astype(int)) <= 0).all()
    assert not rig.sink.pcm[LEAD + len(speech_part) - 1 :].any()
    assert rig.events[-1] == ("a", CUT, 3 * BLOCK + 120)
    assert rig.ring.available == 0


@pytest.mark.parametrize("late_samples", [0, 700])
def test_cut_loses_no_sample_of_the_next_utterance(late_samples):
    """The next one may be in the ring before the cut is obeyed, and a last late write of the old is dropped."""
    rig, second = Rig(), speech(3 * BLOCK, 2)
    rig.begin("a", speech(10 * BLOCK), finish=False)
    rig.steps(LEAD // BLOCK + 2)
    rig.cut()
    rig.ring.write(np.full(late_samples, 25_000, dtype=np.int16), 0)
    rig.begin("b", second)
    rig.rest()
    got = rig.sink.pcm[LEAD + 2 * BLOCK + 120 :]
    assert np.array_equal(got[got != 0], second)
    assert rig.events[-1] == ("b", FINISHED, len(second))


def test_cut_before_the_first_sample_and_of_one_that_waits():
    """Neither is ever heard, both are reported at once or with the next block, and others are untouched."""
    rig, third = Rig(), speech(BLOCK, 3)
    rig.begin("a", speech(BLOCK))
    rig.begin("b", speech(BLOCK, 2))
    rig.begin("c", third)
    rig.cut("b")
    rig.steps(2)
    rig.cut("a")
    rig.rest()
    got = rig.sink.pcm
    assert np.array_equal(got[got != 0], third)
    assert rig.events == [("b", CUT, 0), ("a", CUT, 0), ("started", "c"), ("c", FINISHED, BLOCK)]


def test_cut_of_what_the_device_has_already_is_too_late():
    """It ends as finished; so does one that was never begun, without any event."""
    rig = Rig()
    rig.begin("a", speech(BLOCK))
    rig.steps(LEAD // BLOCK + 1)
    rig.cut()
    rig.cut("unknown")
    rig.rest()
    assert rig.events[-1] == ("a", FINISHED, BLOCK)


def test_the_same_name_can_be_spoken_again_after_a_cut():
    """An interrupted announcement is replayed under its own id."""
    rig, again = Rig(), speech(3 * BLOCK, 2)
    rig.begin("a", speech(10 * BLOCK))
    rig.steps(LEAD // BLOCK + 1)
    rig.cut()
    rig.begin("a", again)
    rig.rest()
    assert [event[1:] for event in rig.events if event[0] == "a"] == [(CUT, BLOCK + 120), (FINISHED, 3 * BLOCK)]


def test_an_empty_utterance_is_finished_without_being_started():
    """No sample, no start, one end."""
    rig = Rig()
    rig.begin("a")
    rig.rest()
    assert rig.events == [("a", FINISHED, 0)]
    assert rig.sink.got == []


def test_a_long_pause_closes_the_device_and_resume_goes_on_with_the_next_sample():
    """Tail silence, closed; then lead silence and the rest. A cut while paused is silent and at once."""
    rig, pcm = Rig(), speech(6 * BLOCK)
    rig.begin("a", pcm)
    rig.steps(LEAD // BLOCK + 2)
    rig.playback.paused = True
    assert rig.rest() == LATENCY + TAIL
    assert not rig.playback.device.is_open
    rig.playback.paused = False
    rig.rest()
    got = rig.sink.pcm
    assert np.array_equal(got[got != 0], pcm)
    rig.begin("b", speech(6 * BLOCK))
    rig.steps(LEAD // BLOCK + 2)
    rig.playback.paused = True
    rig.steps(1)
    rig.cut("b")
    rig.rest()
    assert rig.events[-1] == ("b", CUT, 2 * BLOCK)


def test_keep_open_sends_silence_until_closing():
    """With keep_open the device never rests; the next utterance needs no lead."""
    rig = Rig(keep_open=True)
    rig.steps(50)
    rig.begin("a", speech(BLOCK))
    rig.steps(1)
    assert rig.sink.got[-1].all()
    rig.playback.closing = True
    rig.rest()
    assert not rig.playback.device.is_open


def test_cut_all_ends_everything():
    """For shutdown: what plays fades, what waits is dropped, and the device comes to rest."""
    rig = Rig()
    rig.begin("a", speech(10 * BLOCK))
    rig.begin("b", speech(10 * BLOCK))
    rig.steps(LEAD // BLOCK + 1)
    rig.playback.cut_all()
    assert rig.rest() == BLOCK + LATENCY + TAIL
    assert rig.events[1:] == [("b", CUT, 0), ("a", CUT, BLOCK + 120)]


def test_volume_of_an_utterance_and_of_the_player():
    """An utterance's own volume counts for it alone, from its first sample; 100 % is exact again after it."""
    rig, pcm = Rig(), np.full(2 * BLOCK, 16_000, dtype=np.int16)
    rig.begin("a", pcm, volume=50)
    rig.begin("b", pcm)
    rig.rest()
    got = rig.sink.pcm
    assert np.array_equal(got[got != 0], np.concatenate([pcm // 8, pcm]))


def test_a_change_of_volume_takes_one_block():
    """It ramps inside an utterance."""
    rig = Rig()
    rig.begin("a", np.full(4 * BLOCK, 16_000, dtype=np.int16))
    rig.steps(LEAD // BLOCK + 1)
    rig.playback.volume = 50
    rig.steps(2)
    assert np.abs(np.diff(rig.sink.got[-2].astype(int))).max() < 16_000 / BLOCK + 2
    assert set(rig.sink.got[-1].tolist()) == {2000}


def test_a_lost_device_keeps_the_block_and_speaks_it_after_a_new_lead():
    """No sample the device refused is lost; the listener hears of the loss and the return once each."""
    rig, pcm = Rig(), speech(6 * BLOCK)
    rig.begin("a", pcm)
    rig.steps(LEAD // BLOCK + 2)
    rig.sink.broken = True
    for _ in range(5):
        rig.playback.step()
    rig.sink.broken = False
    rig.rest()
    got = rig.sink.pcm
    first = LEAD + 2 * BLOCK
    assert np.array_equal(got[:first][LEAD:], pcm[: 2 * BLOCK])
    assert not got[first : first + LEAD].any()
    assert np.array_equal(got[first + LEAD : first + LEAD + 4 * BLOCK], pcm[2 * BLOCK :])
    assert rig.events == [("started", "a"), ("ok", False), ("ok", True), ("a", FINISHED, len(pcm))]
    assert rig.sink.opened == 2


def test_an_utterance_fails_when_the_device_does_not_come_back():
    """device_wait_s counts for each utterance; its samples are dropped, and the next one is tried anew."""
    rig = Rig(device_wait_s=0.0)
    rig.sink.broken = True
    rig.begin("a", speech(BLOCK))
    assert rig.rest() == 0
    assert rig.events == [("ok", False), ("a", FAILED, 0)]
    assert rig.ring.available == 0
    rig.sink.broken = False
    rig.begin("b", speech(BLOCK))
    rig.rest()
    assert rig.events[2:] == [("ok", True), ("started", "b"), ("b", FINISHED, BLOCK)]


def test_a_cut_is_obeyed_while_the_device_is_away():
    """The kept block is never heard; nor is a device sought for nothing."""
    rig, second = Rig(), speech(BLOCK, 2)
    rig.begin("a", speech(6 * BLOCK))
    rig.steps(LEAD // BLOCK + 1)
    rig.sink.broken = True
    rig.playback.step()
    rig.cut()
    rig.rest()
    assert rig.events[-1] == ("a", CUT, BLOCK)
    rig.sink.broken = False
    rig.begin("b", second)
    rig.rest()
    got = rig.sink.pcm[LEAD + BLOCK :]
    assert np.array_equal(got[got != 0], second)


def test_backoff_grows_from_half_a_second_to_thirty(monkeypatch):
    """Each failure waits longer, with jitter, and one success starts over."""
    monkeypatch.undo()
    sink, now = MemorySink(), [0.0]
    monkeypatch.setattr(device.time, "monotonic", lambda: now[0])
    dev, waits = device.Device(sink, lambda _ok: None), []
    sink.broken = True
    for _ in range(8):
        assert not dev.open()
        waits.append(dev.retry_in_s())
        assert not dev.open()  # not before its time
        now[0] += waits[-1]
    for wait_s, most in zip(waits, [0.5, 1, 2, 4, 8, 16, 30, 30], strict=True):
        assert 0.75 * most <= wait_s <= most
    sink.broken = False
    assert dev.open()
    assert dev.write(np.zeros(1, dtype=np.int16))
    sink.broken = True
    assert not dev.write(np.zeros(1, dtype=np.int16))
    assert dev.retry_in_s() <= 0.5
    dev.retry_now()  # there is something to say
    assert not dev.open()
    assert dev.retry_in_s() <= 0.5


def test_playing_allocates_no_array():
    """Block after block of speech, at a volume that needs arithmetic, without an allocation the size of a block."""
    rig = Rig(volume=70)
    rig.sink.write = lambda _block: None
    rig.begin("a", speech(90 * BLOCK))
    rig.steps(20)
    tracemalloc.start()
    try:
        rig.steps(60)
        assert tracemalloc.get_traced_memory()[1] < 2 * BLOCK * 4
    finally:
        tracemalloc.stop()
