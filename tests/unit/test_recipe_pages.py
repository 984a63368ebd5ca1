"""What the recipes for Home Assistant, ESPHome and Node-RED send is what the speaker understands."""

import json
import re
import shlex
from datetime import datetime
from types import SimpleNamespace

import jinja2
import pytest
import yaml
from recipe_pages import README, RECIPES, ROOT, blocks

from daemon.client import build_parser
from daemon.config import load_config
from daemon.config_sections import MqttConfig
from daemon.inputs.discovery import device_payload
from daemon.inputs.messages import Say, build_request, parse_line
from daemon.inputs.mqtt_messages import COMMANDS, RETAINED, parse_command
from daemon.text.script import ScriptSegmenter
from daemon.values import Priority

PROTOCOL = ROOT / "docs" / "protocol.md"
PRESSED = SimpleNamespace(
    payload="ON", to_state=SimpleNamespace(state="on", attributes=SimpleNamespace(event_type="single", reason="ttl"))
)
STATE = {
    "states": lambda _entity: 'half "past"',
    "now": datetime.now,
    "repeat": SimpleNamespace(index=3),
    "trigger": PRESSED,
    "message": 'Dinner is ready, says "the cook".',
    "rooms": ["notify.kitchen_speaker_announce"],
}
"""What Home Assistant would put into the templates."""


class EspHomeLoader(yaml.SafeLoader):
    """Knows ESPHome's secrets."""


EspHomeLoader.add_constructor("!secret", lambda _loader, node: node.value)


def found(tree, key):
    """All values of a key, however deep."""
    if isinstance(tree, dict):
        yield from [tree[key]] if key in tree else []
        for value in tree.values():
            yield from found(value, key)
    elif isinstance(tree, list):
        for value in tree:
            yield from found(value, key)


def understood(topic, payload):
    """What the speaker makes of it; fails for a topic that no speaker listens to."""
    base, node, command = topic.split("/", 2)
    assert base == "crier"
    assert re.fullmatch(r"[a-z]+", node)
    assert command in COMMANDS
    return parse_command(command, payload.encode())


def home_assistant():
    """Every automation and script of the page, and those of the README."""
    texts = [block.text for page in (RECIPES / "home-assistant.md", README) for block in blocks(page, "yaml")]
    for tree in map(yaml.safe_load, texts):
        yield from tree if isinstance(tree, list) else tree.values()


def rendered(text):
    """As Home Assistant renders it; an unknown name is an error."""
    templates = jinja2.Environment(undefined=jinja2.StrictUndefined)  # noqa: S701 (speech is no HTML)
    return templates.from_string(text).render(STATE)


def actions(name):
    """What the automations and scripts call by that name."""
    for recipe in home_assistant():
        for step in steps(recipe):
            if step.get("action") == name:
                yield step


def steps(tree):
    """Every mapping in there."""
    if isinstance(tree, dict):
        yield tree
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from steps(value)


def test_automations_have_what_automations_need():
    """Every recipe has a name, and something that starts it or, in a script, a sequence."""
    for recipe in home_assistant():
        assert recipe["alias"]
        assert recipe.get("sequence") or (recipe["triggers"] and recipe["actions"])


def test_what_home_assistant_publishes_is_spoken():
    """Topics are a speaker's, payloads are requests even with quotation marks in a state; nothing is retained."""
    said = [step["data"] for step in actions("mqtt.publish")]
    assert len(said) >= 5
    for data in said:
        op = understood(data["topic"], rendered(data["payload"]))
        assert isinstance(op, Say)
        assert not data.get("retain")
    critical = [understood(data["topic"], rendered(data["payload"])).request.priority for data in said]
    assert critical.count(Priority.CRITICAL) == 2


def test_topics_of_the_pages_are_the_speakers():
    """Every topic of a speaker that a page names, in its text too, is one it listens to or publishes."""
    known = {*COMMANDS, *RETAINED, "event", "stats"}
    for page in (*RECIPES.glob("*.md"), README):
        named = re.findall(
            r"\bcrier/(?:kitchen|bedroom|all|NODE|\+)/([a-z]+(?:/[a-z]+)?)", page.read_text(encoding="utf-8")
        )
        assert set(named) <= known


def test_entities_of_the_recipes_are_those_the_speaker_has():
    """Every entity that is named after a kitchen speaker is in the device that a node "kitchen" announces."""
    components = device_payload(MqttConfig(node="kitchen"), ["slt"])["components"].values()
    known = {component["default_entity_id"] for component in components}
    page = "".join(path.read_text(encoding="utf-8") for path in (RECIPES / "home-assistant.md", README))
    named = set(re.findall(r"\b[a-z_]+\.kitchen_speaker_\w+", page))
    assert len(named) >= 8
    assert named <= known


@pytest.mark.parametrize("action", ["notify.send_message", "script.announce", "text.set_value", "number.set_value"])
def test_templates_of_the_recipes_render(action):
    """No template uses what Home Assistant does not give."""
    data = [step["data"] for step in actions(action)]
    assert data
    assert all(rendered(str(value)) for entry in data for value in entry.values())


@pytest.mark.parametrize(
    "page", [RECIPES / "home-assistant.md", ROOT / "docs" / "speakers.md", README], ids=lambda page: page.name
)
def test_configurations_are_accepted(page, tmp_path):
    """What the pages put into config.toml is taken as it stands."""
    for block in blocks(page, "toml"):
        path = tmp_path / "config.toml"
        path.write_text(block.text, encoding="utf-8")
        assert load_config(path) != load_config(None)


def test_example_configurations_are_accepted():
    """The files in examples/ are taken as they stand."""
    paths = sorted((ROOT / "examples").glob("*.toml"))
    assert paths
    for path in paths:
        assert load_config(path) != load_config(None)


def test_what_esphome_publishes_is_spoken():
    """Topics and payloads of the board are a speaker's."""
    (block,) = blocks(RECIPES / "esphome.md", "yaml")
    tree = yaml.load(block.text, EspHomeLoader)  # noqa: S506 (a SafeLoader's)
    plain = [understood(data["topic"], data["payload"]) for data in found(tree, "mqtt.publish")]
    assert [type(op).__name__ for op in plain] == ["Say", "Stop"]
    for data in found(tree, "mqtt.publish_json"):
        lines = re.findall(r'^root\["(\w+)"\] = (.+);$', data["payload"], re.MULTILINE)
        assert len(lines) == len(data["payload"].splitlines())
        request = understood(data["topic"], json.dumps({key: json.loads(value) for key, value in lines})).request
        assert request.key
        assert request.text


def test_node_red_flows_are_wired_and_what_they_send_is_spoken():
    """Every wire ends in a node, every broker is there; what a button sends straight to the broker is understood."""
    (block,) = blocks(RECIPES / "node-red.md", "json")
    nodes = {node["id"]: node for node in json.loads(block.text)}
    for node in nodes.values():
        for output in node.get("wires", []):
            assert all(end in nodes for end in output)
        if node["type"] == "mqtt out":
            assert node["topic"].removeprefix("crier/").split("/", 1)[1] in COMMANDS
            assert (node["retain"], nodes[node["broker"]]["type"]) == ("false", "mqtt-broker")
    bell = nodes["crier_bell"]
    op = understood(nodes[bell["wires"][0][0]]["topic"], bell["payload"])
    assert op.request.key == "doorbell"


def test_requests_of_the_protocol_are_requests():
    """Every request that the page on the wire shows is taken, and its SSML is good."""
    lines = [line for block in blocks(PROTOCOL, "json") for line in block.text.splitlines() if '"text"' in line]
    assert len(lines) >= 2
    for line in lines:
        segmenter = ScriptSegmenter(str.strip, len, 200)
        text = build_request(json.loads(line)).text
        assert segmenter.push(text) + segmenter.flush()


def test_lines_of_the_protocol_are_lines():
    """Every line of the socket that the page shows is an operation."""
    lines = [
        line.replace(", …}", "}")
        for row in PROTOCOL.read_text(encoding="utf-8").splitlines()
        for line in re.findall(r'`({"op": .+?})`', row)
    ]
    assert len(lines) >= 12
    for line in lines:
        parse_line(line.encode())


def headings(page):
    """The anchors that a page's headings make."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    lines = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", [README, *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """Every link to another file of the repository, and to a heading in it, finds what it names."""
    for path, _, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#([^)]+))?\)", page.read_text(encoding="utf-8")):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        assert not anchor or anchor in headings(target), anchor


def test_commands_of_the_readme_are_commands():
    """Every ``crier`` in a shell block of the README is a command, with options that exist."""
    lines = [line.split(" #")[0] for block in blocks(README, "sh") for line in block.text.splitlines()]
    begin = re.compile(r"(?:sudo |.*\| |\w+=\$\()?(?:\.venv/bin/)?crier ([^|)]+)")
    calls = [match[1] for line in lines if (match := begin.match(line))]
    assert len(calls) >= 15
    for call in calls:
        build_parser().parse_args(shlex.split(call))
