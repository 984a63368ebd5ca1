"""Whatever comes in over the socket and MQTT is answered as documented, and the same daemon speaks on."""

import json
import socket
import time

import pytest
from broker import Watcher, start_broker
from daemon_process import NULL_CONFIG, Client, mqtt_section, render, run_daemon
from soundcard import contains

pytestmark = pytest.mark.engine

SHORT = "Dinner is ready."


def say(**fields):
    """A say request as it is sent."""
    return json.dumps({"op": "say", **fields}).encode()


def socket_cases():
    """Lines, the error code of each, and a word that its message must hold."""
    deep = b"[" * 60_000
    return {
        "empty": (b"", "empty", "nothing"),
        "blank": (b" \t ", "empty", "nothing"),
        "emoji": ("😀 🎉".encode(), "empty", "spoken"),
        "punctuation": (b"... !? --- ,;", "empty", "spoken"),
        "nul_only": (b"\0\0", "empty", "spoken"),
        "one_megabyte": (b"x" * 1_000_000, "too_long", "65536 bytes"),
        "one_megabyte_of_json": (say(text="x" * 1_000_000), "too_long", "65536 bytes"),
        "2001_characters": (b"a " * 1000 + b"b", "too_long", "2000 characters"),
        "2001_letters_of_three_bytes": (say(text="ก" * 2001), "too_long", "2000 characters"),
        "invalid_utf8": (b"Hello \xff\xfe", "bad_request", "UTF-8 at byte 6"),
        "invalid_utf8_in_json": (b'{"op": "say", "text": "\xff"}', "bad_json", "JSON"),
        "lone_surrogate": (b'{"op": "say", "text": "\\ud800"}', "bad_json", "hex escape"),
        "nul_in_json": (b'{"op": "say", "text": "a\0b"}', "bad_json", "control character"),
        "broken_json": (b'{"op": "say", "text": "never read aloud"', "bad_json", "JSON"),
        "two_objects": (b'{"op": "status"}{"op": "stop"}', "bad_json", "JSON"),
        "deep_nesting": (b'{"op": "say", "text": ' + deep, "bad_json", "JSON"),
        "nan": (b'{"op": "say", "text": "x", "speed": NaN}', "bad_json", "JSON"),
        "text_is_a_number": (say(text=5), "bad_request", "text"),
        "text_is_null": (say(text=None), "bad_request", "text"),
        "text_is_a_list": (say(text=["a"]), "bad_request", "text"),
        "no_text": (say(), "bad_request", '"text" is missing'),
        "volume_is_text": (say(text="x", volume="50"), "bad_request", "volume"),
        "volume_is_true": (say(text="x", volume=True), "bad_request", "volume"),
        "volume_of_101": (say(text="x", volume=101), "bad_request", "volume"),
        "huge_ttl": (b'{"op": "say", "text": "x", "ttl_s": 1e999}', "bad_request", "finite"),
        "negative_ttl": (say(text="x", ttl_s=-1), "bad_request", "ttl_s"),
        "negative_seed": (say(text="x", seed=-1), "bad_request", "seed"),
        "unknown_priority": (say(text="x", priority="urgent"), "bad_request", "priority"),
        "empty_id": (say(text="x", id=""), "bad_request", "id"),
        "long_id": (say(text="x", id="i" * 129), "bad_request", "id"),
        "more_is_a_word": (say(text="x", more="yes"), "bad_request", "more"),
        "unknown_key": (say(text="x", prioritty="low"), "bad_request", "did you mean priority"),
        "unknown_voice": (say(text="x", voice="nobody"), "unknown_voice", "slt"),
        "voice_is_a_path": (say(text="x", voice="../../etc/passwd"), "unknown_voice", "slt"),
        "unknown_language": (say(text="x", lang="xx"), "unknown_voice", "xx"),
        "unknown_op": (b'{"op": "shout", "text": "x"}', "unknown_op", "shout"),
        "op_is_a_number": (b'{"op": 5}', "unknown_op", "5"),
        "no_op": (b'{"text": "x"}', "unknown_op", "op must be"),
        "append_to_nothing": (b'{"op": "append", "id": "nobody", "text": "x"}', "bad_request", "nobody"),
        "end_of_nothing": (b'{"op": "end", "id": "nobody"}', "bad_request", "nobody"),
        "set_nothing": (b'{"op": "set"}', "bad_request", "set needs"),
        "set_volume_of_900": (b'{"op": "set", "volume": 900}', "bad_request", "volume"),
        "set_unknown_voice": (b'{"op": "set", "voice": "nobody"}', "unknown_voice", "slt"),
        "set_unknown_key": (b'{"op": "set", "volum": 1}', "bad_request", "did you mean volume"),
    }


SPEAKABLE = {
    "nul_between_words": b"Dinner\0is ready",
    "very_long_word": b"a" * 1999,
    "url": b"https://user:pw@example.com:8080/a/b.php?q=%20x&y[]=1#top",
    "2000_characters": b"ready " * 333 + b"ok",
    "unknown_letters": "Ωμέγα 晩ご飯 обед \u202e\ufeff\ufffd".encode(),
    "combining_marks": ("Z" + "\u0301" * 1500).encode(),
    "digits": b"9" * 1500,
    "looks_like_json": b'[{"text": "x"}]',
}


@pytest.fixture(scope="module")
def pcm():
    """What the text sounds like."""
    return render(SHORT)


@pytest.fixture(scope="module")
def crier(tmp_path_factory):
    """One daemon for all lines."""
    with run_daemon(tmp_path_factory.mktemp("crier")) as daemon:
        yield daemon


def assert_still_speaks(daemon, client):
    """A request is heard to its end, in the process that was started, with no traceback in its log."""
    event = client.wait_for("finished", client.say(SHORT))
    assert event["audio_s"] > 0.5
    assert daemon.process.poll() is None
    assert "Traceback" not in daemon.log.read_text()


@pytest.mark.parametrize("case", socket_cases())
def test_a_bad_line_gets_its_code_and_one_reply(crier, case):
    """The documented code, a message of one line that says what is wrong, and the connection goes on."""
    line, code, word = socket_cases()[case]
    client = crier.client(subscribe=False)
    reply = client.raw(line)
    assert reply == {"ok": False, "error": {"code": code, "message": reply["error"]["message"]}}
    assert word in reply["error"]["message"]
    assert "\n" not in reply["error"]["message"]
    assert len(reply["error"]["message"]) < 300
    assert client.op("status")["status"]["queue"] == 0
    client.close()


@pytest.mark.parametrize("case", SPEAKABLE)
def test_an_odd_text_is_begun_and_can_be_stopped(crier, case):
    """Speech comes of it in spite of all, and a stop ends it."""
    client = crier.client()
    reply = client.raw(SPEAKABLE[case])
    assert reply["ok"], reply
    client.wait_for("started", reply["id"])
    client.op("stop", what=reply["id"])
    assert client.wait_for("cancelled", reply["id"])["reason"] == "stopped"
    client.close()


def test_the_same_daemon_speaks_after_all_that(crier, pcm):
    """One that has been sent everything above, over one connection, is as good as new, to the bit."""
    client = crier.client()
    for line, _, _ in socket_cases().values():
        assert not client.raw(line)["ok"]
    assert_still_speaks(crier, client)
    assert contains(crier.recording(), pcm) >= 0
    client.close()


def test_half_a_line_and_a_hung_up_client_hurt_nobody(crier):
    """Clients that say half a request, nothing, or go away in the middle of one leave the others served."""
    idle, half, gone = (Client(crier.socket) for _ in range(3))
    half._socket.sendall(b'{"op": "say", "te')
    for _ in range(50):
        gone._socket.sendall(b'{"op": "status"}\n')
    gone.close()
    client = crier.client()
    assert_still_speaks(crier, client)
    assert half.raw(b'xt": "x", "voice": "nobody"}')["error"]["code"] == "unknown_voice"
    assert idle.op("status")["ok"]
    idle.close()
    half.close()


def test_a_subscriber_that_never_reads_is_dropped_and_the_others_hear_everything(crier):
    """Its unread events are bounded; the client beside it gets each reply and each event."""
    deaf = Client(crier.socket)
    deaf._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    assert deaf.op("subscribe")["ok"]
    client = crier.client()
    long_id = "i" * 120
    sent = 0
    end = time.monotonic() + 20
    while "slow_client_dropped" not in crier.log.read_text():
        assert time.monotonic() < end
        for _ in range(50):
            assert client.op("say", id=f"{long_id}{sent}", text="😀")["error"]["code"] in ("empty", "bad_request")
            sent += 1
    assert client.wait_for("rejected", f"{long_id}0")["reason"] == "empty"
    assert_still_speaks(crier, client)
    deaf.close()


def test_a_flood_is_held_off_and_its_neighbour_is_not(crier):
    """Above the rate a client is refused, with the limit named; another one is served, and later it is again."""
    flood, neighbour = Client(crier.socket), crier.client()
    refused = {}
    for _ in range(100):
        flood._socket.sendall(b'{"op": "voices"}\n' * 200)
        replies = [flood.line() for _ in range(200)]
        refused = next((reply for reply in replies if not reply["ok"]), {})
        if refused:
            break
    assert refused["error"] == {"code": "bad_request", "message": "rate limit: more than 1000 requests a second"}
    assert_still_speaks(crier, neighbour)
    assert flood.op("status")["ok"]
    flood.close()


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory):
    """One daemon on a broker for all messages."""
    folder = tmp_path_factory.mktemp("kitchen")
    broker = start_broker(folder)
    try:
        with run_daemon(folder, NULL_CONFIG + mqtt_section(broker.port)) as daemon:
            with Watcher(broker.port, "crier/kitchen/availability") as watcher:
                watcher.wait("crier/kitchen/availability", lambda payload: payload == b"online")
            daemon.broker = broker
            yield daemon
    finally:
        broker.kill()


@pytest.mark.broker
@pytest.mark.parametrize(
    ("topic", "payload", "code", "reason"),
    [
        ("say", b"   ", "empty", "empty"),
        ("say", "😀".encode(), "empty", "empty"),
        ("say", b"?!", "empty", "empty"),
        ("say", b"\0", "empty", "empty"),
        ("say", b"x" * 1_000_000, "too_long", "too_long"),
        ("say", b"x" * 2001, "too_long", "too_long"),
        ("say", b"\xff\xfe\xfd", "bad_request", "bad_json"),
        ("say", b"{never read aloud}", "bad_json", "bad_json"),
        ("say", b'{"txt": "never read aloud"}', "bad_request", "bad_json"),
        ("say", b'{"text": "x", "voice": "nobody"}', "unknown_voice", "unknown_voice"),
        ("say", b'{"text": ' + b"[" * 60_000, "bad_json", "bad_json"),
        ("say/json", b"not json", "bad_json", "bad_json"),
        ("say/json", b'["text"]', "bad_json", "bad_json"),
        ("say/json", b'{"text": ""}', "empty", "empty"),
        ("say/critical", b'{"text": 5}', "bad_request", "bad_json"),
        ("say/low", b'{"text": "x", "volume": "loud"}', "bad_request", "bad_json"),
        ("volume/set", b"loud", "bad_request", None),
        ("volume/set", b"\xff", "bad_request", None),
        ("volume/set", b"101", "bad_request", None),
        ("mute/set", b"perhaps", "bad_request", None),
        ("voice/set", b"nobody", "unknown_voice", None),
        ("speed/set", b"fast", "bad_request", None),
        ("stop", b"\xff", "bad_request", None),
        ("stop", b"i" * 129, "bad_request", None),
    ],
)
def test_a_bad_message_gets_its_reply_and_its_event(kitchen, topic, payload, code, reason):
    """The response topic gets the socket's code; what was to be said gives one rejected event with the reason."""
    with Watcher(kitchen.broker.port) as watcher:
        watcher.publish(f"crier/kitchen/{topic}", payload, ResponseTopic="reply")
        reply = json.loads(watcher.wait("reply").payload)
        assert reply["error"]["code"] == code
        assert "\n" not in reply["error"]["message"]
        if reason is not None:
            event = json.loads(watcher.wait("crier/kitchen/event").payload)
            message = reply["error"]["message"]
            assert event == {"event_type": "rejected", "id": event["id"], "reason": reason, "message": message}


@pytest.mark.broker
def test_unknown_topics_and_empty_messages_are_passed_over(kitchen):
    """No reply, no event, no speech; the next message is spoken by the same daemon."""
    with Watcher(kitchen.broker.port, "crier/kitchen/event") as watcher:
        for topic in ("say", "say/json", "volume/set", "shout", "say/loud", "state", "event/x"):
            watcher.publish(f"crier/kitchen/{topic}", b"")
        watcher.publish("crier/kitchen/shout", b"x")
        watcher.publish("crier/kitchen/say", b"clear_notification")
        watcher.publish("crier/bathroom/say", b"elsewhere")
        watcher.publish("crier/kitchen/say/json", json.dumps({"text": SHORT, "id": "last"}))
        watcher.wait("crier/kitchen/event", lambda payload: b"finished" in payload)
        events = [json.loads(payload) for payload in watcher.payloads("crier/kitchen/event")]
    assert [(event["event_type"], event["id"]) for event in events] == [
        ("queued", "last"),
        ("started", "last"),
        ("finished", "last"),
    ]
    assert "Traceback" not in kitchen.log.read_text()
