"""The import rules of the program: layers, and one owner for each native library."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[2]
DAEMON = REPOSITORY / "daemon"

LAYERS = (
    (
        "config",
        "config_sections",
        "values",
        "ports",
        "errors",
        "metrics",
        "log",
        "systemd",
        "settings",
        "places",
        "outbox",
        "cache_folder",
        "native_noise",
        "sound_file",
        "recent_ids",
        "client_socket",
        "machine",
        "scheduling",
        "submodule",
    ),
    ("text", "engine"),
    ("audio",),
    ("inputs", "synthesizer", "announcements", "ducking"),
    ("startup",),
    ("service", "tools"),
    ("app",),
    ("__main__",),
)
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}
GROUPS = {
    **dict.fromkeys(("desk", "speaking", "remote"), "service"),
    **dict.fromkeys(("checks", "prebuffer", "quiet", "rendering", "sentences", "waiting"), "service"),
    **dict.fromkeys(("doctor", "doctor_page", "expectation"), "tools"),
    "broker_check": "startup",
    "queue_item": "announcements",
    **dict.fromkeys(("render", "render_text", "bandwidth", "bench", "voice", "prerender", "discovery"), "tools"),
    **dict.fromkeys(("forecast", "output", "phrases", "reading", "speech", "spread", "text_source"), "synthesizer"),
    "client_say": "client",
    "app_mqtt": "app",
}
"""Modules that are one part of the program together, and may import each other."""
CLIENT = "client"
CLIENT_TOOLS = {"tools", "synthesizer", "audio", "text", "engine"}
OWNERS = {
    "anyascii": "text/normalize.py",
    "defusedxml": "text/ssml.py",
    "emoji": "text/markup.py",
    "llama_cpp": "engine/llama.py",
    "onnxruntime": "engine/onnx.py",
    "pyaudio": "audio/pyaudio_sink.py",
    "soundfile": "sound_file.py",
    "tokenizers": "engine/tokenizer.py",
    "paho": "inputs/mqtt_client.py",
    "wyoming": "inputs/wyoming.py",
    "zeroconf": "inputs/wyoming_zeroconf.py",
    "torch": None,
    "transformers": None,
    "safetensors": None,
    "onnx": None,
    "gguf": None,
    "quantize": None,
    "training": None,
}


class Import(NamedTuple):
    """One import statement: where it is, what it names, whether it waits for a function's call."""

    path: Path
    module: str
    lazy: bool

    @property
    def place(self) -> str:
        """The importing file, relative to daemon/."""
        return self.path.relative_to(DAEMON).as_posix()

    @property
    def importer(self) -> str:
        """The part of the daemon it belongs to."""
        return _part(self.path.relative_to(DAEMON).parts[0].removesuffix(".py"))

    @property
    def part(self) -> str:
        """The part of the daemon that is imported; empty for the package itself and other packages."""
        names = self.module.split(".")
        return _part(names[1]) if names[0] == "daemon" and len(names) > 1 else ""


def _part(name: str) -> str:
    return GROUPS.get(name, name)


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"relative import in line {node.lineno}"
        if node.module == "daemon":
            yield from (f"daemon.{alias.name}" for alias in node.names)
        else:
            yield node.module or ""


def _walk(node: ast.AST, path: Path, *, lazy: bool = False) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        yield from (Import(path, name, lazy) for name in _names(child))
        yield from _walk(child, path, lazy=lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))


def _imports() -> list[Import]:
    files = sorted(DAEMON.rglob("*.py"))
    return [found for path in files for found in _walk(ast.parse(path.read_text(encoding="utf-8")), path)]


IMPORTS = _imports()


def test_every_part_has_a_rank():
    """Each module and package at the top of daemon/ is placed in the order of imports."""
    parts = {_part(path.stem) for path in DAEMON.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {"__init__"} <= {*RANKS, CLIENT}


def test_imports_only_go_down():
    """No part imports one of its own rank or above, but for the lowest, whose parts may use each other."""
    wrong = [
        f"{found.place}: {found.module}"
        for found in IMPORTS
        if found.part and found.importer not in {found.part, CLIENT}
        if RANKS.get(found.part, len(LAYERS)) >= max(RANKS[found.importer], 1)
    ]
    assert not wrong


def test_client_starts_without_the_engine():
    """At first the client loads only what talks to the daemon; it never loads what makes up the daemon."""
    above = [f for f in IMPORTS if f.importer == CLIENT and RANKS.get(f.part, 0) > 0]
    assert not [f.module for f in above if not f.lazy or f.part not in CLIENT_TOOLS]


@pytest.mark.parametrize("library", OWNERS)
def test_library_has_one_owner(library: str):
    """A native library is imported by its owner alone; what belongs to the offline tools by nobody."""
    users = {found.place for found in IMPORTS if found.module.split(".")[0] == library}
    assert users <= {OWNERS[library]}


def test_no_library_of_the_converter_is_loaded_by_the_daemon():
    """With every module of the program imported, by whatever way: neither torch nor anything else of the extras."""
    code = """
import importlib, pkgutil, sys, daemon
for module in pkgutil.walk_packages(daemon.__path__, "daemon."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(*{name.split(".")[0] for name in sys.modules})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=DAEMON.parent, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"daemon", "llama_cpp", "onnxruntime"} <= loaded
    assert not loaded & {
        "matplotlib",
        "torch",
        "transformers",
        "safetensors",
        "onnx",
        "gguf",
        "ml_dtypes",
        "quantize",
        "training",
    }
