"""Five hundred random requests over both doors while the broker is killed: every one has exactly one ending."""

import json
import random
import time
from collections import Counter, defaultdict

import pytest
from broker import Watcher, start_broker
from daemon_process import NULL_CONFIG, mqtt_section, run_daemon
from soundcard import wait_until

from daemon.values import EventType

pytestmark = [pytest.mark.engine, pytest.mark.broker]

REQUESTS = 500
RESTARTS = (130, 260, 390)
"""After so many requests the broker is killed."""
WARM_UP = 200
"""Requests after which memory is looked at."""
SPEAK_S = 10.0
"""So long it may speak what waits after the storm; then it is stopped."""
GROWTH_BYTES = 8_000_000
FINAL = {kind.value for kind in EventType if kind.final} - {"rejected"}
GOOD = (
    "Dinner is ready.",
    "The door is open.",
    "It is 18:30.",
    "Mail has come. [pause 200ms] Two letters.",
    "<speak>The <emphasis>kettle</emphasis> boils.</speak>",
    "<speak>One <break time='100ms'/> two.</speak>",
    "Fire!",
)
BAD = ("", "...", "\U0001f389", "<speak>never closed", "<speak><audio src='x'/></speak>", "too long " * 250)
"""Texts that must be refused."""


class Storm:
    """Sends requests and writes down what must become of them.

    Attributes:
        sent: how often a request of an id reached the daemon for certain.
        unsure: the same for what was on the way when the broker died.
        accepted, refused: what the socket replied.
    """

    def __init__(self, crier, broker, rng):
        self.crier, self.broker, self.rng = crier, broker, rng
        self.listener = crier.client()
        self.clients = [crier.client(subscribe=False) for _ in range(4)]
        self.mqtt = Watcher(broker.port, "test/#")
        self.voices = [voice["name"] for voice in self.listener.op("voices")["voices"]]
        self.sent, self.unsure = Counter(), Counter()
        self.accepted, self.refused = Counter(), Counter()
        self.must_fail = set()

    def fields(self, request_id):
        """A random request; what it says may be nonsense, and its id that of an earlier one."""
        rng = self.rng
        fields = {"text": rng.choice(GOOD), "id": request_id}
        fields["priority"] = rng.choice(("normal", "normal", "normal", "critical", "low", "message", "progress"))
        for chance, name, values in (
            (0.3, "key", ("door", "laundry", "mail")),
            (0.5, "ttl_s", (0.01, 0.3, 3.0, 60.0)),
            (0.3, "voice", self.voices),
            (0.2, "volume", (0, 30, 100)),
            (0.2, "seed", (1, 2)),
        ):
            if rng.random() < chance:
                fields[name] = rng.choice(values)
        luck = rng.random()
        if luck < 0.12:
            fields["text"] = rng.choice(BAD)
        elif luck < 0.16:
            fields["voice"] = "nobody"
        elif luck < 0.22 and self.sent:
            fields["id"] = rng.choice(sorted({*self.sent} - self.must_fail - {""}) or [fields["id"]])
        if luck < 0.16:
            self.must_fail.add(fields["id"])
        return fields

    def over_socket(self, fields):
        """A request with its reply; sometimes its text comes in pieces."""
        client, more = self.rng.choice(self.clients), self.rng.random() < 0.1
        self.sent[fields["id"]] += 1
        reply = client.op("say", **fields, **({"more": True} if more and fields["text"] in GOOD else {}))
        (self.accepted if reply["ok"] else self.refused)[fields["id"]] += 1
        if more and reply["ok"] and fields["text"] in GOOD:
            client.op("append", id=fields["id"], text=" And that is all.")  # it may have ended already
            if self.rng.random() < 0.8:
                client.op("end", id=fields["id"])

    def over_mqtt(self, fields, ledger):
        """A request that nobody answers; QoS 0, so that it comes once or not at all."""
        payload = json.dumps(fields)
        if self.rng.random() < 0.08:
            payload, fields = payload[:-1], {"id": ""}  # broken: its id is not known
        ledger[fields["id"]] += 1
        self.mqtt.publish(f"crier/{self.rng.choice(('storm', 'all'))}/say/json", payload, qos=0)

    def disturb(self):
        """Stop, pause or mute something, through either door."""
        rng = self.rng
        what = rng.choice(("all", "current", "current", "current", *rng.choices(sorted(self.sent), k=4)))
        topic, payload, op = rng.choice(
            (
                ("stop", what, {"op": "stop", "what": what}),
                ("pause", "", {"op": "pause"}),
                *[("resume", "", {"op": "resume"})] * 3,
                ("mute/set", "ON", {"op": "set", "mute": True}),
                *[("mute/set", "OFF", {"op": "set", "mute": False})] * 3,
            )
        )
        if rng.random() < 0.5:
            assert rng.choice(self.clients).op(**op)["ok"]
        else:
            self.mqtt.publish(f"crier/storm/{topic}", payload, qos=0)

    def catch_up(self):
        """Wait until the daemon has obeyed all that came over MQTT."""
        topic = f"test/{self.rng.random()}"
        deadline = time.monotonic() + 20
        while topic not in {message.topic for message in list(self.mqtt.messages)}:
            assert time.monotonic() < deadline, "the daemon does not answer over MQTT"
            self.mqtt.publish("crier/storm/get", ResponseTopic=topic)
            time.sleep(0.2)

    def restart_broker(self, number):
        """Kill the broker with messages on their way."""
        self.catch_up()
        for extra in range(3):
            self.over_mqtt(self.fields(f"lost{number}-{extra}"), self.unsure)
        self.mqtt.__exit__()
        self.broker.restart()
        self.mqtt = Watcher(self.broker.port, "test/#")
        self.catch_up()

    def rage(self):
        """All the requests; returns the daemon's memory after the warm-up."""
        rss = 0
        for number in range(REQUESTS):
            if number in RESTARTS:
                self.restart_broker(number)
            if number == WARM_UP:
                rss = self.crier.info().memory_info().rss
            fields = self.fields(f"r{number}")
            if self.rng.random() < 0.5:
                self.over_mqtt(fields, self.sent)
            else:
                self.over_socket(fields)
            if self.rng.random() < 0.2:
                self.disturb()
            time.sleep(self.rng.choice((0, 0, 0.02, 0.2)))
        self.catch_up()
        return rss

    def calm(self):
        """Let it speak for a while, stop the rest, and wait until it is idle."""
        for op in ({"op": "resume"}, {"op": "set", "mute": False}):
            assert self.listener.op(**op)["ok"]
        for hurry in (False, True):
            if hurry:
                assert self.listener.op("stop", what="all")["ok"]
            end = time.monotonic() + SPEAK_S
            while time.monotonic() < end:
                status = self.listener.op("status")["status"]
                if (status["state"], status["queue"]) == ("idle", 0):
                    return
                time.sleep(0.1)
        raise AssertionError(f"it does not come to rest: {status}")

    def close(self):
        """Disconnect from the broker."""
        self.mqtt.__exit__()


@pytest.fixture
def storm(tmp_path):
    """A daemon on a broker of its own, and the storm to come."""
    broker = start_broker(tmp_path)
    try:
        with run_daemon(tmp_path, NULL_CONFIG + mqtt_section(broker.port, "storm")) as crier:
            storm = Storm(crier, broker, random.Random(5))
            storm.catch_up()
            yield storm
            storm.close()
    finally:
        broker.kill()


def by_id(events):
    """Event types of each id, in order."""
    stories = defaultdict(list)
    for event in events:
        stories[event["id"]].append(event["event_type"])
    return stories


def wrong_stories(storm, stories):
    """Ids whose events do not add up, with the events and what was written down of them."""
    wrong = {}
    for request_id in {*storm.sent, *storm.unsure, *stories}:
        story = stories[request_id]
        count = Counter(story)
        came = count["queued"] + count["rejected"]
        own = [kind for kind in story if kind != "rejected"]
        right = (
            storm.sent[request_id] <= came <= storm.sent[request_id] + storm.unsure[request_id]
            and count["queued"] == sum(count[kind] for kind in FINAL) <= 1
            and own[:1] in ([], ["queued"])
            and (not own or own[-1] in FINAL)
            and own[1:-1] in ([], ["started"])
            and storm.accepted[request_id] <= count["queued"]
            and storm.refused[request_id] <= count["rejected"]
            and not (request_id in storm.must_fail and own)
        )
        if not right:
            ledgers = (storm.sent, storm.unsure, storm.accepted, storm.refused)
            wrong[request_id] = (story, [ledger[request_id] for ledger in ledgers], request_id in storm.must_fail)
    return wrong


@pytest.mark.timeout(180)
def test_every_request_has_exactly_one_ending(storm):
    """Accepted: queued, started at most once, one final event. Refused: one rejected. Then the daemon is at rest."""
    rss = storm.rage()
    storm.calm()
    wait_until(lambda: storm.listener.op("status")["status"]["state"] == "idle")
    status = storm.listener.op("status")["status"]
    stories = by_id(storm.listener.events)
    assert wrong_stories(storm, stories) == {}
    seen = Counter(event["event_type"] for event in storm.listener.events)
    print(f"\n{dict(seen)} {status['metrics']['requests']}")
    told = Counter()
    for name, number in status["metrics"]["requests"].items():
        told[name.split(".")[0]] += number
    assert told == seen
    assert min(seen[kind] for kind in ("finished", "cancelled", "expired", "rejected")) >= 10
    assert status["metrics"]["reconnects"] == len(RESTARTS)
    assert status["metrics"]["runaways"] == 0
    assert storm.crier.info().memory_info().rss - rss < GROWTH_BYTES
    assert "Traceback" not in storm.crier.log.read_text()
