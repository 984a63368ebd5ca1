"""python -m quantize without its extra, interrupted, and asked for help."""

import subprocess
import sys
from pathlib import Path

import pytest

from quantize.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
EXTRA = ("gguf", "ml_dtypes", "onnx", "safetensors")
WITHOUT = f"import sys; sys.modules.update(dict.fromkeys({EXTRA}))"
"""Imports of these fail as if they were not installed."""
INTERRUPTED = """
import sys
class Finder:
    def find_spec(self, name, *_):
        if name in {"gguf", "ml_dtypes", "onnx", "safetensors"}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder())
"""
"""As by Ctrl-C while the first of them is imported."""
COMMANDS = {
    "convert": ["SOURCE", "--out", "OUT", "--quant", "q8_0"],
    "synthesize": ["--shape", "csm-small", "--out", "OUT", "--quant", "q8_0"],
    "verify": ["BUNDLE"],
}


def run(before, cwd, *arguments):
    """The command in a Python of its own, after some other code; returns exit code, stdout, stderr."""
    code = f"{before}\nfrom quantize.__main__ import main\nsys.exit(main())"
    command = [sys.executable, "-c", code, *arguments]
    found = subprocess.run(
        command, cwd=cwd, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False
    )
    return found.returncode, found.stdout, found.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_library_that_is_not_installed_is_named(tmp_path, command):
    """In one line, with what to install; nothing is made."""
    code, out, err = run(WITHOUT, tmp_path, command, *COMMANDS[command])
    assert (code, out) == (69, "")
    assert err in {f"quantize: {name} is not installed: pip install -e '.[quantize]'\n" for name in EXTRA}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_an_interrupt_while_importing_is_one_line(tmp_path, command):
    """Nothing was begun, so there is nothing to go on from."""
    assert run(INTERRUPTED, tmp_path, command, *COMMANDS[command]) == (130, "", "quantize: interrupted\n")


def test_an_interrupt_says_what_is_kept(capsys, monkeypatch):
    """By what the writer of the bundle noted."""

    def interrupted(_options):
        err = KeyboardInterrupt()
        err.add_note("; 2 finished files are kept")
        raise err

    monkeypatch.setattr("quantize.__main__._verify", interrupted)
    assert main(["verify", "BUNDLE"]) == 130
    assert capsys.readouterr().err == "quantize: interrupted; 2 finished files are kept\n"


def test_help_needs_no_extra(tmp_path):
    """The choices are listed all the same."""
    code, out, err = run(WITHOUT, tmp_path, "synthesize", "--help")
    assert (code, err) == (0, "")
    assert "{f32,f16,q8_0,q4_0,q4_k}" in out
    assert "{csm-1b,csm-small}" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_a_command_does_and_how_it_ends(capsys, command):
    """A description, and the exit codes below the options."""
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert ("Make a bundle of" if command != "verify" else "Compare a bundle with") in text
    assert "exit codes: 0 done, 2 usage, " in text
    if command == "verify":
        assert "DIR the bundle, a folder with manifest.toml" in text
    else:
        assert "also if DIR is done already or holds another model" in text
