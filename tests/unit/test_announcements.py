"""The queue's rules (PROTOCOL.md), one by one, and then against any sequence of calls."""

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from daemon.announcements import DUPLICATE_WINDOW_S, AnnouncementQueue
from daemon.config_sections import QueueConfig
from daemon.values import Event, EventType, Priority, Reason, SpeakRequest

CRITICAL, NORMAL, LOW = Priority.CRITICAL, Priority.NORMAL, Priority.LOW


def request(request_id, priority=NORMAL, **fields):
    return SpeakRequest(text=f"text of {request_id}", id=request_id, priority=priority, **fields)


def brief(events):
    """Events as "type id reason", which is what most rules are about."""
    return [" ".join(filter(None, (event.event_type, event.id, event.reason))) for event in events]


class Speaker:
    """A queue and what a service does with it: take, start, end."""

    def __init__(self, **config):
        self.queue = AnnouncementQueue(QueueConfig(**config))

    def submit(self, request_id, priority=NORMAL, now=0.0, **fields):
        decision = self.queue.submit(request(request_id, priority, **fields), now)
        return brief(decision.events), decision.cut

    def speak(self, now=0.0):
        """Take the next one and start it; its id."""
        taken, _ = self.queue.take(now)
        if taken is None:
            return None
        self.queue.started(taken.id, now)
        return taken.id

    def finish(self, now=0.0):
        return brief(self.queue.ended(self.queue.current.id, now, EventType.FINISHED, audio_s=1.0))

    def cut(self, now=0.0):
        """What the service reports once what was cut has faded out."""
        return brief(self.queue.ended(self.queue.current.id, now, EventType.CANCELLED))

    def spoken(self):
        """The ids of what is spoken from now on, in order."""
        ids = []
        while (request_id := self.speak()) is not None:
            ids.append(request_id)
            self.finish()
        return ids


@pytest.fixture
def speaker():
    return Speaker()


def test_one_request_is_queued_started_and_finished(speaker):
    """A request's life: queued, started with its times, finished with its length."""
    assert speaker.submit("a") == (["queued a"], False)
    taken, events = speaker.queue.take(0.0)
    assert (taken.id, events) == ("a", ())
    assert speaker.queue.current is taken
    assert speaker.queue.started("a", 0.0, ttfa_ms=90.0, wait_s=0.5) == (
        Event(event_type=EventType.STARTED, id="a", ttfa_ms=90.0, wait_s=0.5),
    )
    assert speaker.queue.ended("a", 1.0, EventType.FINISHED, audio_s=1.0, truncated=True) == (
        Event(event_type=EventType.FINISHED, id="a", audio_s=1.0, truncated=True),
    )
    assert speaker.queue.current is None


def test_normals_are_first_in_first_out_and_never_interrupt(speaker):
    """A normal waits for the one that speaks and for those before it."""
    speaker.submit("a")
    assert speaker.speak() == "a"
    assert speaker.submit("b") == (["queued b"], False)
    assert speaker.submit("c") == (["queued c"], False)
    assert speaker.queue.take(0.0) == (None, ())
    assert [speaker.queue.position(request_id) for request_id in "abc"] == [0, 1, 2]
    speaker.finish()
    assert speaker.spoken() == ["b", "c"]


def test_criticals_come_first_in_their_own_order(speaker):
    """Criticals pass every normal, not one another, and do not cut one another."""
    speaker.submit("n")
    speaker.submit("c1", CRITICAL)
    speaker.submit("c2", CRITICAL)
    assert speaker.speak() == "c1"
    assert speaker.submit("c3", CRITICAL) == (["queued c3"], False)
    speaker.finish()
    assert speaker.spoken() == ["c2", "c3", "n"]


def test_interrupted_normal_is_spoken_again_before_the_other_normals(speaker):
    """A critical cuts a normal, which gets no final event, no second start, and goes on first."""
    speaker.submit("n1")
    speaker.speak()
    speaker.submit("n2")
    assert speaker.submit("c", CRITICAL) == (["queued c"], True)
    assert speaker.queue.waiting == 3
    assert speaker.cut() == []
    assert speaker.speak() == "c"
    speaker.finish()
    assert speaker.queue.take(0.0)[0].id == "n1"
    assert speaker.queue.started("n1", 0.0) == ()
    assert speaker.finish() == ["finished n1"]
    assert speaker.spoken() == ["n2"]


def test_normal_that_is_interrupted_twice_is_preempted(speaker):
    """One replay, no more."""
    speaker.submit("n")
    speaker.speak()
    speaker.submit("c1", CRITICAL)
    speaker.cut()
    speaker.speak()
    speaker.finish()
    assert speaker.speak() == "n"
    assert speaker.submit("c2", CRITICAL) == (["queued c2", "cancelled n preempted"], True)
    assert speaker.cut() == []
    assert speaker.spoken() == ["c2"]


def test_interruption_before_the_first_sample_does_not_use_up_the_replay(speaker):
    """What was never heard is not spoken "again"."""
    speaker.submit("n")
    speaker.queue.take(0.0)
    assert speaker.submit("c1", CRITICAL) == (["queued c1"], True)
    assert speaker.queue.started("n", 0.0) == ()
    speaker.cut()
    speaker.speak()
    speaker.finish()
    assert speaker.speak() == "n"
    assert speaker.submit("c2", CRITICAL) == (["queued c2"], True)
    speaker.cut()
    speaker.speak()
    speaker.finish()
    assert speaker.queue.take(0.0)[0].id == "n"
    assert speaker.submit("c3", CRITICAL) == (["queued c3"], True)
    speaker.cut()
    assert speaker.spoken() == ["c3", "n"]


def test_interrupted_normal_is_dropped_where_so_configured():
    """interrupted = "drop" ends what was cut at once."""
    speaker = Speaker(interrupted="drop")
    speaker.submit("n")
    speaker.speak()
    assert speaker.submit("c", CRITICAL) == (["queued c", "cancelled n preempted"], True)
    assert speaker.cut() == []
    assert speaker.spoken() == ["c"]


def test_interrupted_normal_expires_by_its_first_ttl(speaker):
    """The TTL of a replay counts from when the request came."""
    speaker.submit("n", ttl_s=10.0)
    speaker.speak(now=9.0)
    speaker.submit("c", CRITICAL, now=9.5)
    speaker.cut(now=9.6)
    speaker.speak(now=9.7)
    assert brief(speaker.queue.expire(9.999)) == []
    assert brief(speaker.queue.expire(10.0)) == ["expired n ttl"]
    assert speaker.queue.take(10.0) == (None, ())


def test_interrupted_normal_can_be_stopped_while_it_fades_or_waits(speaker):
    """What was put back answers to stop, once."""
    speaker.submit("n")
    speaker.speak()
    speaker.submit("c", CRITICAL)
    decision = speaker.queue.stop("current", 0.0)
    assert (brief(decision.events), decision.cut) == (["cancelled n stopped"], False)
    assert speaker.cut() == []
    assert speaker.queue.stop("n", 0.0).events == ()


@pytest.mark.parametrize("priority", [NORMAL, CRITICAL])
def test_lows_give_way(speaker, priority):
    """The low that plays and the low that waits are preempted by anything else."""
    speaker.submit("l1", LOW)
    speaker.speak()
    assert speaker.submit("l2", LOW) == (["queued l2"], False)
    expected = ["cancelled l2 preempted", "queued n", "cancelled l1 preempted"]
    assert speaker.submit("n", priority) == (expected, True)
    assert speaker.cut() == []
    assert speaker.spoken() == ["n"]


def test_low_beside_anything_else_is_preempted_at_once(speaker):
    """A low is queued and cancelled if another priority plays or waits."""
    speaker.submit("n")
    assert speaker.submit("l1", LOW) == (["queued l1", "cancelled l1 preempted"], False)
    speaker.speak()
    assert speaker.submit("l2", LOW) == (["queued l2", "cancelled l2 preempted"], False)
    assert speaker.queue.position("l2") == 0
    assert speaker.spoken() == []


def test_newest_low_replaces_the_waiting_one(speaker):
    """One low waits at most; the one that speaks goes on."""
    speaker.submit("l1", LOW)
    speaker.speak()
    speaker.submit("l2", LOW)
    assert speaker.submit("l3", LOW) == (["cancelled l2 replaced", "queued l3"], False)
    speaker.finish()
    assert speaker.spoken() == ["l3"]


def test_key_replaces_the_waiting_one_in_its_place(speaker):
    """The newer request takes the place of the older one of its key; the one that plays finishes."""
    speaker.submit("k1", key="door")
    speaker.speak()
    speaker.submit("k2", key="door")
    speaker.submit("n")
    assert speaker.submit("k3", key="door") == (["cancelled k2 replaced", "queued k3"], False)
    assert speaker.finish() == ["finished k1"]
    assert speaker.spoken() == ["k3", "n"]


def test_key_of_another_priority_takes_its_own_place(speaker):
    """A critical of the key of a waiting normal replaces it among the criticals."""
    speaker.submit("n1")
    speaker.submit("n2", key="smoke")
    assert speaker.submit("c", CRITICAL, key="smoke") == (["cancelled n2 replaced", "queued c"], False)
    assert speaker.spoken() == ["c", "n1"]


def test_interrupted_one_is_replaced_by_a_newer_one_of_its_key(speaker):
    """What would be spoken again is out of date if a newer one of its key waits."""
    speaker.submit("k1", key="door")
    speaker.speak()
    speaker.submit("k2", key="door")
    assert speaker.submit("c", CRITICAL) == (["queued c", "cancelled k1 replaced"], True)
    speaker.cut()
    assert speaker.spoken() == ["c", "k2"]


def test_low_that_gives_way_replaces_nothing(speaker):
    """An older request of its key is not lost to a low that is not spoken; alone, it gives its place."""
    speaker.queue.pause()
    speaker.submit("k1", key="k")
    assert speaker.submit("l1", LOW, key="k") == (["cancelled k1 replaced", "queued l1"], False)
    speaker.submit("k2", key="k")
    speaker.submit("n")
    assert speaker.submit("l2", LOW, key="k") == (["queued l2", "cancelled l2 preempted"], False)
    speaker.queue.resume()
    assert speaker.spoken() == ["k2", "n"]


def test_ttl_runs_until_speech_starts(speaker):
    """60 s, critical 300 s, or the request's own; what has been taken does not expire."""
    speaker.submit("taken", ttl_s=1.0)
    speaker.queue.take(0.5)
    speaker.submit("own", ttl_s=5.0)
    speaker.submit("default")
    assert brief(speaker.queue.expire(4.999)) == []
    assert brief(speaker.queue.expire(5.0)) == ["expired own ttl"]
    assert brief(speaker.queue.expire(59.999)) == []
    assert brief(speaker.queue.ended("taken", 60.0, EventType.FINISHED)) == ["finished taken"]
    assert speaker.submit("c", CRITICAL, now=60.0) == (["expired default ttl", "queued c"], False)
    assert brief(speaker.queue.expire(359.999)) == []
    assert brief(speaker.queue.expire(360.0)) == ["expired c ttl"]


def test_expired_ones_make_room_before_a_newcomer_is_judged():
    """No outcome depends on when a timer fires."""
    speaker = Speaker(max_waiting=1)
    speaker.submit("a")
    assert speaker.submit("b", now=60.0) == (["expired a ttl", "queued b"], False)


def test_duplicates_are_rejected_for_ten_minutes(speaker):
    """The same id is refused within 10 minutes, also when it has ended; then it is new."""
    speaker.submit("a")
    assert speaker.submit("a", CRITICAL) == (["rejected a duplicate"], False)
    speaker.spoken()
    assert speaker.submit("a", now=DUPLICATE_WINDOW_S - 0.1) == (["rejected a duplicate"], False)
    assert speaker.submit("a", now=DUPLICATE_WINDOW_S) == (["queued a"], False)


def test_id_that_is_still_alive_is_a_duplicate_at_any_age(speaker):
    """Two live requests never share an id."""
    speaker.submit("a", ttl_s=5000.0)
    assert speaker.submit("a", now=1000.0) == (["rejected a duplicate"], False)
    speaker.speak(now=1000.0)
    assert speaker.submit("a", now=2000.0) == (["rejected a duplicate"], False)


def test_memory_of_ids_is_bounded(speaker):
    """However many ids come, a bounded number is remembered, the newest ones."""
    for number in range(10_100):
        speaker.submit(f"id{number}", LOW)
    assert len(speaker.queue._known) <= 10_001
    assert speaker.submit("id10099", LOW)[0] == ["rejected id10099 duplicate"]
    assert speaker.submit("id0", LOW)[0][-1] == "queued id0"


def test_overflow_rejects_a_normal_newcomer_which_may_come_again():
    """A full queue refuses; the refused id is not held against a second try."""
    speaker = Speaker(max_waiting=2)
    for request_id in "ab":
        speaker.submit(request_id)
    assert speaker.submit("c") == (["rejected c queue_full"], False)
    speaker.speak()
    assert speaker.submit("c") == (["queued c"], False)


def test_replacing_needs_no_room():
    """In a full queue a newer request of a waiting key is taken."""
    speaker = Speaker(max_waiting=2)
    speaker.submit("a", key="k")
    speaker.submit("b")
    assert speaker.submit("c", key="k") == (["cancelled a replaced", "queued c"], False)


def test_low_newcomer_replaces_the_waiting_low_of_a_full_queue():
    """One place is enough for any number of lows, and a normal takes it from them."""
    speaker = Speaker(max_waiting=1)
    speaker.submit("l1", LOW)
    assert speaker.submit("l2", LOW) == (["cancelled l1 replaced", "queued l2"], False)
    assert speaker.submit("n") == (["cancelled l2 preempted", "queued n"], False)


def test_critical_newcomer_drops_the_newest_normal():
    """In a full queue a critical takes the place of the normal that came last, never of a critical."""
    speaker = Speaker(max_waiting=2)
    for request_id in "ab":
        speaker.submit(request_id)
    assert speaker.submit("c1", CRITICAL) == (["cancelled b queue_full", "queued c1"], False)
    assert speaker.submit("c2", CRITICAL) == (["cancelled a queue_full", "queued c2"], False)
    assert speaker.submit("c3", CRITICAL) == (["rejected c3 queue_full"], False)
    assert speaker.spoken() == ["c1", "c2"]


def test_interrupted_normal_finds_room_in_a_full_queue():
    """An interruption does not cost the announcement it interrupts."""
    speaker = Speaker(max_waiting=1)
    speaker.submit("n", key="k")
    speaker.speak()
    assert speaker.submit("c1", CRITICAL) == (["queued c1"], True)
    assert speaker.queue.waiting == 2
    assert speaker.submit("c2", CRITICAL, key="k") == (["rejected c2 queue_full"], False)
    speaker.cut()
    assert speaker.spoken() == ["c1", "n"]


def test_mute_ends_normals_and_lows_unspoken_and_lets_criticals_speak(speaker):
    """Muted, a normal is finished with reason muted and no audio; a critical is spoken."""
    speaker.queue.set_mute(True, 0.0)
    speaker.submit("n")
    speaker.submit("c", CRITICAL)
    taken, events = speaker.queue.take(0.0)
    assert taken.id == "c"
    assert events == (Event(event_type=EventType.FINISHED, id="n", reason=Reason.MUTED, audio_s=0.0),)
    assert speaker.queue.set_mute(True, 0.0) == speaker.queue.set_mute(False, 0.0)
    assert speaker.finish() == ["finished c"]
    speaker.submit("m")
    assert speaker.spoken() == ["m"]


@pytest.mark.parametrize("priority", [NORMAL, LOW])
def test_muting_cuts_what_plays(speaker, priority):
    """A normal or low that plays falls silent and ends once, as muted."""
    speaker.submit("n", priority)
    speaker.speak()
    decision = speaker.queue.set_mute(True, 0.0)
    assert (brief(decision.events), decision.cut) == (["finished n muted"], True)
    assert decision.events[0].audio_s is None
    assert speaker.cut() == []


def test_pause_holds_everything_but_criticals(speaker):
    """While paused criticals are taken, TTLs run on, and a paused one that is cut is spoken again."""
    speaker.submit("n1")
    speaker.speak()
    speaker.submit("n2", ttl_s=5.0)
    speaker.queue.pause()
    assert speaker.queue.paused
    assert speaker.submit("c", CRITICAL) == (["queued c"], True)
    speaker.cut()
    assert speaker.speak() == "c"
    speaker.finish()
    assert speaker.queue.take(1.0) == (None, ())
    assert brief(speaker.queue.expire(5.0)) == ["expired n2 ttl"]
    speaker.queue.resume()
    assert speaker.spoken() == ["n1"]


def test_stop_all_current_and_one(speaker):
    """Stop ends what it names, cuts only what plays, and ignores what it does not know."""
    for request_id in ("a", "b", "c", "d"):
        speaker.submit(request_id)
    speaker.speak()
    stop = speaker.queue.stop
    assert stop("nobody", 0.0) == stop("", 0.0)
    assert (brief(stop("c", 0.0).events), speaker.queue.current.id) == (["cancelled c stopped"], "a")
    decision = stop("current", 0.0)
    assert (brief(decision.events), decision.cut) == (["cancelled a stopped"], True)
    assert stop("current", 0.0).events == ()
    assert speaker.cut() == []
    speaker.speak()
    decision = stop("all", 0.0)
    assert (brief(decision.events), decision.cut) == (["cancelled b stopped", "cancelled d stopped"], True)
    assert speaker.cut() == []
    assert stop("current", 0.0).events == ()
    assert speaker.queue.waiting == 0


def test_what_fades_out_is_not_in_the_way_of_a_low(speaker):
    """Between a stop and the end of its fade nothing plays; still only one is current."""
    speaker.submit("n")
    speaker.speak()
    speaker.queue.stop("all", 0.0)
    assert speaker.submit("l", LOW) == (["queued l"], False)
    assert speaker.submit("c", CRITICAL) == (["cancelled l preempted", "queued c"], False)
    assert speaker.queue.take(0.0) == (None, ())
    assert speaker.cut() == []
    assert speaker.spoken() == ["c"]


def test_late_reports_of_others_change_nothing(speaker):
    """A start or end of what is not current is no news."""
    speaker.submit("a")
    assert speaker.queue.started("a", 0.0) == ()
    assert speaker.queue.ended("a", 0.0, EventType.FAILED) == ()
    assert speaker.spoken() == ["a"]


def test_new_configuration_applies_to_newcomers(speaker):
    """A reload changes the limits, not what already waits."""
    speaker.submit("a")
    speaker.queue.update(QueueConfig(max_waiting=1, ttl_s=1.0))
    assert speaker.submit("b") == (["rejected b queue_full"], False)
    assert brief(speaker.queue.expire(59.999)) == []
    assert brief(speaker.queue.expire(60.0)) == ["expired a ttl"]


def test_what_was_heard_to_its_end_is_not_spoken_again(speaker):
    """A critical one that comes when the device already has the last sample: the normal one has finished."""
    speaker.submit("n")
    speaker.speak()
    assert speaker.submit("c", CRITICAL) == (["queued c"], True)
    assert brief(speaker.queue.ended("n", 1.0, EventType.FINISHED)) == ["finished n"]
    assert speaker.spoken() == ["c"]


def test_message_expiry_caps_the_ttl_and_never_lengthens_it(speaker):
    """What is left of the expiry is an upper bound of the request's own TTL, and of the default."""
    for name, ttl_s, expiry_s in [("a", None, 5.0), ("b", 10.0, 600.0), ("c", 10.0, 3.0), ("d", None, 600.0)]:
        request = SpeakRequest(text="x", id=name, ttl_s=ttl_s)
        speaker.queue.submit(request, 0.0, expiry_s=expiry_s)
    ends = [(now, brief(speaker.queue.expire(now))) for now in (3.0, 5.0, 10.0, 60.0)]
    assert ends == [
        (3.0, ["expired c ttl"]),
        (5.0, ["expired a ttl"]),
        (10.0, ["expired b ttl"]),
        (60.0, ["expired d ttl"]),
    ]


class AnyOrder(RuleBasedStateMachine):
    """Whatever is called in whatever order, every accepted request ends exactly once."""

    LIMIT = 3

    def __init__(self):
        super().__init__()
        self.queue = AnnouncementQueue(QueueConfig(max_waiting=self.LIMIT))
        self.now = 0.0
        self.numbers = itertools.count()
        self.requests = {}
        self.events = {}
        self.cut_pending = False

    def record(self, events):
        for event in events:
            if event.reason is Reason.DUPLICATE:
                continue
            seen = self.events.setdefault(event.id, [])
            assert not any(earlier.final for earlier in seen), f"{event} after the final event"
            assert event.event_type not in seen, f"{event} twice"
            assert (event.event_type in (EventType.QUEUED, EventType.REJECTED)) == (not seen)
            seen.append(event.event_type)

    def decide(self, decision):
        before = self.queue.current
        self.record(decision.events)
        if decision.cut:
            assert before is not None
            assert not self.cut_pending, "cut twice"
            self.cut_pending = True

    @rule(key=st.sampled_from([None, None, "k"]), ttl_s=st.sampled_from([None, 0.5, 3.0]))
    def submit_normal(self, key, ttl_s):
        self.submit(NORMAL, key=key, ttl_s=ttl_s)

    @rule(key=st.sampled_from([None, None, "k"]))
    def submit_critical(self, key):
        before = self.queue.current
        decision = self.submit(CRITICAL, key=key)
        if before is not None and before.priority is not CRITICAL:
            refused = decision.events[-1].event_type is EventType.REJECTED
            assert refused or self.cut_pending, "a critical waits for what is not"

    @rule(key=st.sampled_from([None, None, "k"]))
    def submit_low(self, key):
        self.submit(LOW, key=key)

    def submit(self, priority, **fields):
        new = request(str(next(self.numbers)), priority, **fields)
        self.requests[new.id] = new
        decision = self.queue.submit(new, self.now)
        self.decide(decision)
        return decision

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def submit_again(self, data):
        known = [i for i in self.requests if self.events[i] != [EventType.REJECTED]]
        if known:
            again = self.queue.submit(request(data.draw(st.sampled_from(known))), self.now)
            assert again.events[-1].reason is Reason.DUPLICATE
            self.decide(again)

    @rule()
    def take(self):
        busy = self.queue.current is not None
        taken, events = self.queue.take(self.now)
        self.record(events)
        if taken is not None:
            assert not busy
            assert taken.priority is CRITICAL or not self.queue.paused
            self.cut_pending = False
            rivals = [i for i, seen in self.events.items() if not seen[-1].final and i != taken.id]
            ahead = [self.requests[i].priority for i in rivals]
            assert taken.priority is CRITICAL or CRITICAL not in ahead

    @precondition(lambda self: self.queue.current is not None)
    @rule()
    def start(self):
        self.record(self.queue.started(self.queue.current.id, self.now))

    @precondition(lambda self: self.queue.current is not None)
    @rule(how=st.sampled_from([EventType.FINISHED, EventType.FAILED]))
    def end(self, how):
        self.record(self.queue.ended(self.queue.current.id, self.now, how))
        self.cut_pending = False
        assert self.queue.current is None

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def stop(self, data):
        what = data.draw(st.sampled_from(["all", "current", *sorted(self.requests)]))
        self.decide(self.queue.stop(what, self.now))

    @rule(switch=st.sampled_from(["pause", "resume", "mute", "unmute", "replay", "drop"]))
    def control(self, switch):
        if switch in ("pause", "resume"):
            getattr(self.queue, switch)()
        elif switch in ("mute", "unmute"):
            self.decide(self.queue.set_mute(switch == "mute", self.now))
        else:
            self.queue.update(QueueConfig(max_waiting=self.LIMIT, interrupted=switch))

    @rule(seconds=st.sampled_from([0.1, 1.0, 30.0]))
    def wait(self, seconds):
        self.now += seconds
        self.record(self.queue.expire(self.now))
        assert self.queue.expire(self.now) == ()

    @invariant()
    def bounded(self):
        assert self.queue.waiting <= self.LIMIT + 1

    def teardown(self):
        """Drain: resume, and let everything be spoken."""
        self.queue.resume()
        while True:
            if self.queue.current is not None:
                self.end(EventType.FINISHED)
            self.take()
            if self.queue.current is None:
                break
        assert self.queue.waiting == 0
        assert set(self.events) == set(self.requests)
        assert all(seen[-1].final for seen in self.events.values())


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=250, stateful_step_count=40)
