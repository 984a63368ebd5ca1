"""What a run does not need is not imported: neither by the client, nor by the daemon with a default configuration."""

import json
import subprocess
import sys
from pathlib import Path

import emoji
import pytest
from num2words import num2words

from daemon.text import markup, numbers_en

ROOT = Path(__file__).resolve().parents[2]

SLOW = {
    *("numpy", "pydantic", "onnxruntime", "llama_cpp", "tokenizers", "num2words", "anyascii", "emoji", "defusedxml"),
    *("paho", "wyoming", "zeroconf", "pyaudio", "soundfile", "soxr", "rich", "jinja2", "psutil", "torch"),
    *("asyncio", "ssl", "multiprocessing", "concurrent", "dataclasses", "inspect", "logging", "subprocess"),
}
"""Whatever takes a millisecond or more to import, or memory to keep."""
SPEAKS = {"numpy", "pydantic", "onnxruntime", "llama_cpp", "tokenizers", "num2words", "anyascii"} | {
    *("dataclasses", "inspect", "logging", "subprocess"),
}
"""What whoever speaks cannot do without (anyascii is a few tables, subprocess a millisecond)."""
MODULES = """
import json, sys
print(json.dumps(sorted(sys.modules)))
"""


def modules_after(code):
    """The modules that are loaded when the code has run, in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code + MODULES], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def slow(modules):
    """Those that are slow to import; a package whose ``__init__`` was left out counts by its submodules."""
    return {name.partition(".")[0] for name in modules} & SLOW


@pytest.mark.parametrize(
    "arguments", [["say", "hello"], ["status"], ["status", "--json"], ["stop"], ["set", "volume", "30"]], ids=" ".join
)
def test_the_client_imports_nothing_slow(arguments):
    """Up to the answer that there is no daemon."""
    before = modules_after("")
    code = f"""
from daemon.client import main
assert main({[*arguments, "--socket", "/nowhere"]}) == 69
"""
    assert slow(modules_after(code) - before) == set()


def test_the_daemon_imports_what_it_speaks_with_and_no_more():
    """With the default configuration, from the arguments on: models loaded, warmed, and a text read."""
    code = """
import daemon.__main__, daemon.app, sys
from daemon.config import load_config
from daemon.engine.engine import Engine
from daemon.places import find_places
from daemon.synthesizer import Synthesizer
from daemon.values import SpeakRequest
app = daemon.app.App(load_config(None), daemon.app.Surroundings(None, find_places({}), {}, 1))
with Engine(load_config(None).engine) as engine:
    engine.self_test()
    request = SpeakRequest(text="The tank is 85 % full \u2013 at 6.30 it was 21.5 °C, and it costs 3,50 €.", id="a")
    Synthesizer(engine).estimate(request, voice=None, speed=1.0)
"""
    assert slow(modules_after(code)) <= SPEAKS


def test_render_imports_what_it_speaks_with_and_no_more(tmp_path):
    """Where nobody watches there is no progress bar."""
    out = tmp_path / "out.wav"
    code = f"""
from daemon.client import main
assert main(["render", "It is 7 degrees.", "--out", {str(out)!r}, "--json"]) == 0
"""
    assert slow(modules_after(code)) <= SPEAKS
    assert out.stat().st_size > 44


@pytest.mark.parametrize(("package", "module"), [("llama_cpp", "llama_cpp"), ("num2words", "lang_EN")])
def test_a_module_of_a_package_comes_without_the_rest(package, module):
    """The package is not run for it, and is whole for whoever imports it later."""
    code = f"""
import sys
from daemon.submodule import import_submodule
part = import_submodule({package!r}, {module!r})
assert part is sys.modules["{package}.{module}"] is import_submodule({package!r}, {module!r})
assert {package!r} not in sys.modules
import {package}
assert import_submodule({package!r}, {module!r}) is part
assert {package}.__file__ and len(vars({package})) > 20
"""
    modules_after(code)


def test_a_package_that_must_be_run_is_imported_whole(tmp_path):
    """A module that needs what its package's __init__ defines is had all the same."""
    package = tmp_path / "needy"
    package.mkdir()
    (package / "__init__.py").write_text("ANSWER = 42\n")
    (package / "helper.py").write_text("import needy\n")
    (package / "part.py").write_text("import needy.helper\nfrom needy import ANSWER\n")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from daemon.submodule import import_submodule
assert import_submodule("needy", "part").ANSWER == 42
assert sys.modules["needy"].ANSWER == 42
try:
    import_submodule("not_installed_at_all", "part")
except ModuleNotFoundError as err:
    assert err.name == "not_installed_at_all"
else:
    raise AssertionError
"""
    modules_after(code)


@pytest.mark.parametrize("number", [0, 1, 7, 12, 21, 100, 101, 342, 1_000, 1_066, 1_905, 2_005, 999_999, 10**14 + 1])
def test_numbers_are_those_of_the_whole_library(number):
    """The English module alone says what num2words says."""
    for kind in ("cardinal", "ordinal", "year"):
        assert getattr(numbers_en._ENGLISH, f"to_{kind}")(number) == num2words(number, to=kind)


def test_no_emoji_is_overlooked():
    """Whatever the library takes for one makes the reader ask the library."""
    assert [found for found in emoji.EMOJI_DATA if not markup._MAY_BE_EMOJI.search(found)] == []
