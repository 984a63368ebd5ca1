"""config.toml and what is said about a wrong one."""

import os
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from daemon.config import Config, load_config, user_path
from daemon.errors import ConfigError

CONFIG_TOML = Path(__file__).parents[2] / "config.toml"


def _load(tmp_path: Path, text: str | bytes) -> Config:
    path = tmp_path / "config.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(path)


def test_shipped_file_is_the_defaults():
    """config.toml sets every key, each to its default."""
    assert tomllib.loads(CONFIG_TOML.read_text(encoding="utf-8")) == Config().model_dump()
    assert load_config(CONFIG_TOML) == load_config(None) == Config()


def test_shipped_file_explains_itself():
    """Every section begins with a comment, and no line is longer than 120 characters."""
    lines = CONFIG_TOML.read_text(encoding="utf-8").splitlines()
    assert max(map(len, lines)) <= 120
    assert all(after.startswith("#") for line, after in pairwise(lines) if line.startswith("["))


def test_missing_keys_keep_their_defaults(tmp_path: Path):
    """A file with one key changes that key alone."""
    expected = Config().model_dump()
    expected["mqtt"]["node"] = "kitchen"
    assert _load(tmp_path, '[mqtt]\nnode = "kitchen"\n').model_dump() == expected


def test_empty_file_is_the_defaults(tmp_path: Path):
    """Nothing has to be set."""
    assert _load(tmp_path, "") == Config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[mqtt]\nhots = 'x'", "unknown key mqtt.hots (did you mean host?)"),
        ("[audoi]\nvolume = 1", "unknown key audoi (did you mean audio?)"),
        ("[engine]\nzzzz = 1", "unknown key engine.zzzz"),
    ],
)
def test_unknown_key_gets_a_suggestion(tmp_path: Path, text: str, message: str):
    """A misspelt key or section is refused with the nearest known one."""
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, text)
    assert str(caught.value) == f"{tmp_path / 'config.toml'}: {message}"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("engine = 1", "engine"),
        ("[engine]\nthreads = 'two'", "engine.threads"),
        ("[engine]\nthreads = true", "engine.threads"),
        ("[engine]\nthreads = 1.0", "engine.threads"),
        ("[engine]\nbundle_path = '/srv'", "engine.bundle_path"),
        ("[engine]\nbundle_path = [1]", "engine.bundle_path.0"),
        ("[mqtt]\nenabled = 'yes'", "mqtt.enabled"),
        ("[audio]\ndevice = 3", "audio.device"),
    ],
)
def test_wrong_type_names_the_key(tmp_path: Path, text: str, key: str):
    """A value of another type is refused, not converted."""
    with pytest.raises(ConfigError, match=rf"config\.toml: {key}: "):
        _load(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[engine]\nthreads = -1", "engine.threads"),
        ("[engine]\nbundle = ''", "engine.bundle"),
        ("[socket]\nrequests_per_second = 0", "socket.requests_per_second"),
        ("[mqtt]\nport = 65536", "mqtt.port"),
        ("[mqtt]\nnode = 'living room'", "mqtt.node"),
        ("[mqtt]\nnode = 'all'", "mqtt.node"),
        ("[mqtt]\nbase_topic = 'crier/#'", "mqtt.base_topic"),
        ("[audio]\nsink = 'alsa'", "audio.sink"),
        ("[audio]\nvolume = 101", "audio.volume"),
        ("[audio]\nsink = 'fifo'", "audio"),
        ("[queue]\nttl_s = nan", "queue.ttl_s"),
        ("[queue]\nttl_s = inf", "queue.ttl_s"),
        ("[text]\nmax_chars = 0", "text.max_chars"),
        ("[log]\nlevel = 'loud'", "log.level"),
    ],
)
def test_out_of_range_names_the_key(tmp_path: Path, text: str, key: str):
    """A value that makes no sense is refused."""
    with pytest.raises(ConfigError, match=rf"config\.toml: {key}: "):
        _load(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[quiet]\nstart = "7:00"\nend = "07:00"', 'quiet.start: a time of day as in "07:00", got "7:00"'),
        ('[quiet]\nstart = "07:00"\nend = "24:00"', 'quiet.end: a time of day as in "07:00", got "24:00"'),
        ('[mqtt]\nnode = "a b"', 'mqtt.node: letters, digits, _ and -, 1 to 64 of them, as in "kitchen", got "a b"'),
        ('[mqtt]\nbase_topic = "/a"', "mqtt.base_topic: a topic without + and #, with no / at its ends"),
        ('[mqtt]\ndiscovery_prefix = "a+"', "mqtt.discovery_prefix: a topic without + and #, with no / at its ends"),
        ('[wyoming]\nuri = "http://a"', 'wyoming.uri: "tcp://HOST:PORT" or "unix:///PATH", got "http://a"'),
        ('[share]\ngroup = ""', "share.group: letters, digits, _ and -, 1 to 64 of them"),
        ('[duck]\nrole = "a b"', 'duck.role: letters and -, as in "announce", got "a b"'),
        ('[duck]\ntopic = "a/#"', 'duck.topic: a topic without + and #, got "a/#"'),
        ('[chimes]\nbefore = "ding"', 'chimes.before: expected a table, got "ding"'),
        ("[chimes]\nsounds = 1", "chimes.sounds: expected a table, got 1"),
        ('[mqtt]\nport = "1883"', 'mqtt.port: expected a whole number, got "1883"'),
        ("[mqtt]\nport = 65536", "mqtt.port: must be at most 65535, got 65536"),
        ('[mqtt]\nhost = ""', 'mqtt.host: must not be empty, got ""'),
        ("[queue]\nttl_s = 0", "queue.ttl_s: must be more than 0, got 0"),
        ("[audio]\nvolume = 1.5", "audio.volume: expected a whole number, got 1.5"),
        ("[audio]\nkeep_open = 1", "audio.keep_open: expected true or false, got 1"),
        ("[audio]\nkeep_open = []", "audio.keep_open: expected true or false"),
        ('[text]\nemoji = "x"', 'text.emoji: expected "drop" or "name", got "x"'),
        ('[duck]\nstart = "mpc"', 'duck.start: expected a list, got "mpc"'),
        ('[duck]\nstart = ["a", "b\\u0000"]', "duck.start: must not hold a NUL character"),
        ('[chimes.sounds]\na = "b\\u0000"', "chimes.sounds: must not hold a NUL character"),
        ('[text]\nlexicon = "\\u0000"', r'text.lexicon: must not hold a NUL character, got "\u0000"'),
        (f'[mqtt]\nname = "{"x" * 101}"', f'mqtt.name: at most 100 characters, got "{"x" * 100}…"'),
    ],
)
def test_what_is_expected_is_said_in_words(tmp_path: Path, text: str, message: str):
    """No regular expression and none of the library's jargon; the value as TOML has it."""
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'config.toml'}: {message}")
    assert "\n" not in str(caught.value)


def test_every_pattern_is_described():
    """A key whose pattern has no description would be explained by the pattern."""
    found = 0
    for section in Config.model_fields.values():
        for field in section.annotation.model_fields.values():
            if any(getattr(each, "pattern", None) for each in field.metadata):
                found += 1
                assert field.description
    assert found == 9


def test_every_mistake_is_named_at_once_in_one_line(tmp_path: Path):
    """Two wrong keys are one message of one line."""
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, "[mqtt]\nport = 0\n[audio]\nvolum = 1\n")
    message = str(caught.value)
    assert "mqtt.port" in message
    assert "audio.volum (did you mean volume?)" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "content", [b"[text]\nmax_chars = " + b"9" * 5000, b"[mqtt", b"a = 1\na = 2", b"\xff\xfe", b"x = \x00"]
)
def test_invalid_toml_names_the_file(tmp_path: Path, content: bytes):
    """What is not TOML, or not UTF-8, is a ConfigError."""
    with pytest.raises(ConfigError, match=r"config\.toml: not valid TOML: "):
        _load(tmp_path, content)


def test_unreadable_file_names_the_file(tmp_path: Path):
    """A missing file and a folder are ConfigErrors with the system's reason."""
    with pytest.raises(ConfigError, match=r"missing\.toml: No such file or directory"):
        load_config(tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path):
    """A FIFO that nobody writes to would stop the start for ever; /dev/null is an empty configuration."""
    os.mkfifo(tmp_path / "config.toml")
    with pytest.raises(ConfigError, match=r"config\.toml: not a regular file"):
        load_config(tmp_path / "config.toml")
    assert load_config(Path(os.devnull)) == Config()


def test_a_path_may_begin_with_a_home_folder():
    """That of a user who does not exist is left as it is: the file is then missing, and named."""
    assert user_path("~/lexicon.toml") == Path.home() / "lexicon.toml"
    assert user_path("~no-such-user/a") == Path("~no-such-user/a")


def test_wrong_config_ends_the_process_with_78():
    """The exit code is that of sysexits."""
    assert ConfigError.exit_code == 78
