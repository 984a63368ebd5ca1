"""What the wire's bytes become."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recording_speaker import RecordingSpeaker

from daemon.errors import BadRequestError
from daemon.inputs.messages import (
    Append,
    Command,
    End,
    Say,
    Set,
    Stop,
    execute,
    failure,
    make_id,
    parse_line,
    rejection,
    to_json,
)
from daemon.inputs.mqtt_messages import COMMANDS, Hints, parse_command
from daemon.values import Priority, Reason, SettingsChange, SpeakRequest, Turn

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
)
KEYS = st.sampled_from(
    [
        "op",
        "id",
        "text",
        "priority",
        "voice",
        "key",
        "ttl_s",
        "volume",
        "speed",
        "seed",
        "lang",
        "more",
        "what",
        "mute",
        "context",
    ]
)
NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=128)
OPS = st.sampled_from(["say", "append", "end", "stop", "pause", "set", "status", "subscribe", "dance"])


def refused(line: bytes) -> BadRequestError:
    with pytest.raises(BadRequestError) as caught:
        parse_line(line)
    return caught.value


@given(st.binary())
def test_any_line_is_an_operation_or_a_refusal(line):
    """Whatever the bytes, BadRequestError is the only exception."""
    try:
        parse_line(line)
    except BadRequestError as err:
        json.loads(to_json(failure(err)))


@given(st.dictionaries(KEYS | st.text(max_size=5), JSON | OPS, max_size=6), OPS)
def test_any_object_is_an_operation_or_a_refusal(data, op):
    """Whatever the keys and types, BadRequestError is the only exception, and its reply can be sent."""
    try:
        parse_line(json.dumps({"op": op, **data}).encode())
    except BadRequestError as err:
        json.loads(to_json(failure(err)))


@given(st.sampled_from(COMMANDS), st.binary() | JSON.map(lambda value: json.dumps(value).encode()), st.text())
def test_any_payload_is_an_operation_or_a_refusal(command, payload, user):
    """The same for every MQTT topic, with any user properties."""
    hints = Hints(user=dict.fromkeys(("id", "priority", "ttl_s", "voice"), user))
    for each in (None, hints):
        try:
            parse_command(command, payload, each)
        except BadRequestError as err:
            rejection(err)


@given(
    st.fixed_dictionaries(
        {"text": st.text(), "id": NAMES},
        optional={
            "priority": st.sampled_from(["normal", "critical", "low"]),
            "key": NAMES,
            "ttl_s": st.floats(0.5, 86_400),
            "volume": st.integers(0, 100),
            "seed": st.integers(0, 2**63 - 1),
        },
    )
)
def test_a_request_survives_the_wire(data):
    """What is written as JSON is what arrives, on both doors."""
    line = to_json({"op": "say", **data})
    op = parse_line(line)
    assert op == Say(request=SpeakRequest(**data))
    assert parse_command("say/json", to_json(data)) == op


@pytest.mark.parametrize(
    ("line", "op"),
    [
        (b'{"op":"append","id":"a","text":""}', Append(id="a", text="")),
        (b'{"op":"end","id":"a"}', End(id="a")),
        (b'{"op":"stop"}', Stop(what="all")),
        (b' {"op":"stop","what":"a"} ', Stop(what="a")),
        (b'{"op":"pause"}', Command(name="pause")),
        (b'{"op":"set","volume":40,"mute":true}', Set(change=SettingsChange(volume=40, mute=True))),
        (b'{"op":"say","id":"a","text":"b","context":null}', Say(request=SpeakRequest(text="b", id="a"))),
        (
            b'{"op":"say","id":"a","text":"b","context":["c",{"text":"d","speaker":1}]}',
            Say(request=SpeakRequest(text="b", id="a", context=("c", Turn(text="d", speaker=1)))),
        ),
        (b'{"op":"set","volume":"-5","speed":1}', Set(change=SettingsChange(volume_step=-5, speed=1.0))),
        (b'{"op":"set","speed":1.25}', Set(change=SettingsChange(speed=1.25))),
        (
            b'{"op":"say","id":"a","text":"b","speed":0.5,"chime":"ding"}',
            Say(request=SpeakRequest(text="b", id="a", speed=0.5, chime="ding")),
        ),
        (b'{"op":"say","id":"a","more":true}', Say(request=SpeakRequest(text="", id="a"), more=True)),
    ],
)
def test_operations(line, op):
    """Each operation of the protocol parses to its value."""
    assert parse_line(line) == op


@pytest.mark.parametrize(
    ("line", "code", "named"),
    [
        (b"\xff\xfe", "bad_request", "UTF-8"),
        (b'{"text":', "bad_json", "JSON"),
        (b'{"op":"say","text":"\xff"}', "bad_json", "JSON"),
        (b'{"a":' + b"[" * 50_000, "bad_json", "JSON"),
        (b'{"op":"say","text":"a","seed":' + b"9" * 50_000 + b"}", "bad_json", "JSON"),
        (b'{"op":"say","text":"a","ttl_s":NaN}', "bad_json", "JSON"),
        (b'{"op":"say","text":"a","ttl_s":1e999}', "bad_request", "ttl_s"),
        (b'{"op":"say","text":"\\ud800"}', "bad_json", "JSON"),
        (b"[1]", None, ""),
        (b'{"op":"dance"}', "unknown_op", "dance"),
        (b'{"op":["say"]}', "unknown_op", "say"),
        (b'{"text":"a"}', "unknown_op", "op"),
        (b'{"op":"say"}', "bad_request", '"text" is missing'),
        (b'{"op":"say","txet":"a","text":"a"}', "bad_request", '"txet" (did you mean text?)'),
        (b'{"op":"say","text":5}', "bad_request", "text: "),
        (b'{"op":"say","text":"a","volume":"50"}', "bad_request", "volume: "),
        (b'{"op":"say","text":"a","volume":101}', "bad_request", "volume: "),
        (b'{"op":"say","text":"a","volume":true}', "bad_request", "volume: "),
        (b'{"op":"say","text":"a","priority":"urgent"}', "bad_request", "priority: "),
        (b'{"op":"say","text":"a","more":1}', "bad_request", "more"),
        (b'{"op":"say","text":"a","context":"b"}', "bad_request", "context: must be a list of request ids and {"),
        (b'{"op":"say","text":"a","context":[3]}', "bad_request", "context: must be a list of request ids and {"),
        (b'{"op":"say","text":"a","context":["b",""]}', "bad_request", "context.1: "),
        (b'{"op":"say","text":"a","context":[{"txt":"b"}]}', "bad_request", '"context.0.text" is missing'),
        (b'{"op":"say","text":"a","context":[{"text":"b","speaker":"1"}]}', "bad_request", "context.0.speaker: "),
        (b'{"op":"say","text":"a","context":[' + b'"b",' * 32 + b'"b"]}', "bad_request", "at most 32 entries, got 33"),
        (b'{"op":"say","text":"a","speed":2.1}', "bad_request", "speed: "),
        (b'{"op":"say","text":"a","speed":"1"}', "bad_request", "speed: "),
        (b'{"op":"say","text":"a","chime":"a\\nb"}', "bad_request", "chime: "),
        (b'{"op":"set","speed":0.4}', "bad_request", "speed: "),
        (b'{"op":"set"}', "bad_request", "volume"),
        (b'{"op":"set","volume_step":3}', "bad_request", "volume_step"),
        (b'{"op":"set","volume":"loud"}', "bad_request", "volume"),
        (b'{"op":"pause","name":"stop"}', "bad_request", "name"),
        (b'{"op":"end"}', "bad_request", '"id" is missing'),
        (b"x" * 70_000, "too_long", "65536"),
    ],
)
def test_refusals_name_what_is_wrong(line, code, named):
    """Each bad line gets its code and a message that names the fault."""
    if code is None:  # does not start with {, so it is text
        assert parse_line(line).request.text == line.decode()
        return
    err = refused(line)
    assert err.code == code
    assert named in str(err)
    assert len(str(err)) < 400


def test_a_refusal_knows_the_id_that_was_given():
    """The sender can match the rejected event to its request."""
    assert refused(b'{"op":"say","id":"mine","text":"a","volume":"x"}').request_id == "mine"


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "a\u2028b", "\0", "", "x" * 129])
@pytest.mark.parametrize("field", ["id", "key", "voice"])
def test_names_cannot_forge_a_line_of_the_log(field, name):
    """Control characters and line separators are refused in whatever is written to logs and topics."""
    err = refused(to_json({"op": "say", "text": "a", field: name}))
    assert err.code == "bad_request"
    assert field in str(err)


def test_a_byte_order_mark_is_no_text():
    """What an editor puts before JSON or text is not read aloud."""
    assert parse_line(b'\xef\xbb\xbf{"op":"pause"}') == Command(name="pause")
    assert parse_line(b"\xef\xbb\xbfHello").request.text == "Hello"
    assert parse_command("say", b'\xef\xbb\xbf{"text":"a"}').request.text == "a"


def test_ssip_priorities_and_made_ids():
    """SSIP's names are understood, and requests without an id get distinct ones."""
    say = parse_line(b'{"op":"say","text":"a","priority":"important","id":null}')
    assert say.request.priority is Priority.CRITICAL
    assert len({make_id() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("command", "payload", "expected"),
    [
        ("say/critical", b"Fire", Priority.CRITICAL),
        ("say/low", b"Rain", Priority.LOW),
        ("say", b'{"text":"Fire","priority":"critical"}', Priority.CRITICAL),
        ("say/low", b'{"text":"Fire","priority":"normal"}', Priority.NORMAL),
        ("say/json", b'{"text":"Hello"}', Priority.NORMAL),
    ],
)
def test_the_topic_gives_the_priority_unless_the_request_does(command, payload, expected):
    """say/critical and say/low need no JSON; JSON may still say otherwise."""
    assert parse_command(command, payload).request.priority is expected


@pytest.mark.parametrize("command", ["say", "say/critical", "say/low", "say/json", "volume/set", "mute/set"])
def test_empty_payloads_of_say_and_set_are_nothing_to_do(command):
    """Clearing a retained message is no request."""
    assert parse_command(command, b"") is None


def test_home_assistants_clear_notification_is_not_spoken():
    """The literal that takes a notification back is ignored, as text and as JSON."""
    assert parse_command("say", b"clear_notification") is None
    assert parse_command("say", b'{"text": "clear_notification"}') is None


@pytest.mark.parametrize("payload", [b"{", b'{"txt":"a"}', b"{hello}", b'  {"text":1}'])
def test_broken_json_is_never_read_aloud(payload):
    """What starts with { and is no request is rejected as bad_json."""
    with pytest.raises(BadRequestError) as caught:
        parse_command("say", payload)
    assert rejection(caught.value) is Reason.BAD_JSON


@pytest.mark.parametrize(
    ("command", "payload", "op"),
    [
        ("stop", b"", Stop(what="all")),
        ("stop", b"PRESS", Stop(what="all")),
        ("stop", b"current", Stop(what="current")),
        ("stop", b"id-7", Stop(what="id-7")),
        ("pause", b"whatever", Command(name="pause")),
        ("get", b"", Command(name="status")),
        ("volume/set", b"35", Set(change=SettingsChange(volume=35))),
        ("volume/set", b"+5", Set(change=SettingsChange(volume_step=5))),
        ("volume/set", b"-10", Set(change=SettingsChange(volume_step=-10))),
        ("mute/set", b"on", Set(change=SettingsChange(mute=True))),
        ("mute/set", b"0", Set(change=SettingsChange(mute=False))),
        ("voice/set", b"starter", Set(change=SettingsChange(voice="starter"))),
        ("speed/set", b"1.5", Set(change=SettingsChange(speed=1.5))),
    ],
)
def test_mqtt_commands(command, payload, op):
    """Each command topic parses to its operation."""
    assert parse_command(command, payload) == op


@pytest.mark.parametrize(
    ("command", "payload"),
    [("volume/set", b"101"), ("volume/set", "\u0663\u0665".encode()), ("mute/set", b"maybe"), ("speed/set", b"3")],
)
def test_settings_out_of_range_are_refused(command, payload):
    """A */set payload that means nothing changes nothing."""
    with pytest.raises(BadRequestError):
        parse_command(command, payload)


def test_user_properties_serve_plain_text_only():
    """id, priority, ttl_s and voice may come beside plain text; JSON has its own; others are ignored."""
    user = {"id": "x", "priority": "important", "ttl_s": "5", "voice": "starter", "traceparent": "00"}
    request = parse_command("say", b"Hello", Hints(user=user)).request
    assert request == SpeakRequest(text="Hello", id="x", priority=Priority.CRITICAL, ttl_s=5.0, voice="starter")
    assert parse_command("say", b'{"text":"Hello"}', Hints(user=user)).request.id != "x"


def test_message_expiry_goes_with_the_request():
    """What is left of the expiry is handed on; the queue makes a cap of it."""
    op = parse_command("say", b"Hello", Hints(expiry_s=5))
    assert isinstance(op, Say)
    assert op.expiry_s == 5


def test_execute_replies_to_every_operation():
    """Each operation reaches the speaker and its reply is the protocol's."""
    speaker = RecordingSpeaker()
    assert execute(Command(name="repeat"), speaker)["error"]["code"] == "bad_request"
    say = Say(request=SpeakRequest(text="a", id="a"))
    assert execute(say, speaker) == {"ok": True, "id": "a", "queue": 0}
    assert execute(Append(id="a", text="b"), speaker) == {"ok": True, "id": "a"}
    assert execute(End(id="a"), speaker) == {"ok": True, "id": "a"}
    assert execute(Stop(what="all"), speaker) == {"ok": True}
    assert execute(Set(change=SettingsChange(volume=3)), speaker) == {"ok": True}
    assert execute(Command(name="pause"), speaker) == execute(Command(name="resume"), speaker) == {"ok": True}
    assert execute(Command(name="repeat"), speaker) == {"ok": True, "id": "again", "queue": 0}
    assert execute(Command(name="status"), speaker)["status"]["volume"] == 70
    assert execute(Command(name="voices"), speaker)["voices"][0]["name"] == "starter"
    assert execute(Say(request=SpeakRequest(text="a", id="b", voice="nobody")), speaker) == {
        "ok": False,
        "error": {"code": "unknown_voice", "message": "no voice nobody"},
    }
    assert [call[0] for call in speaker.calls] == ["say", "append", "end", "stop", "set", "pause", "resume", "repeat"]


@pytest.mark.parametrize("name", ["all", "current"])
def test_what_stop_takes_for_something_else_is_no_id(name):
    """Such a request could never be stopped by its id."""
    with pytest.raises(BadRequestError, match="cannot be ids"):
        parse_line(json.dumps({"op": "say", "text": "a", "id": name}).encode())
    assert parse_line(json.dumps({"op": "stop", "what": name}).encode()) == Stop(what=name)
