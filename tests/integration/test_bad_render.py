"""What ``crier render`` cannot do is one line and an exit code, and leaves no file behind."""

import os
import subprocess
import sys

import pytest
from daemon_process import ROOT, render

pytestmark = pytest.mark.engine

SHORT = "Dinner is ready."


def render_and_fail(*arguments, stdin=b"", **environment):
    """``crier render`` with arguments that cannot work; its exit code and its one line."""
    command = [sys.executable, "-m", "daemon.client", "render", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, input=stdin, env=os.environ | environment, capture_output=True, timeout=60, check=False
    )
    assert done.stdout == b""
    *_, line = done.stderr.decode().splitlines()
    assert "Traceback" not in done.stderr.decode()
    return done.returncode, line


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("",), 65, "nothing in the text can be spoken"),
        (("  \n",), 65, "nothing in the text can be spoken"),
        (("😀",), 65, "nothing in the text can be spoken"),
        (("Hi", "--bundle", "nosuch"), 66, "no bundle named nosuch"),
        (("Hi", "--voice", "nobody"), 65, "there are: slt"),
        (("Hi", "--temperature", "3"), 65, "temperature must be 0..2, got 3.0"),
        (("Hi", "--temperature", "nan"), 65, "temperature must be 0..2, got nan"),
        (("Hi", "--temperature", "warm"), 2, "invalid float value"),
        (("Hi", "--top-k", "0"), 65, "top_k must be 1..1000, got 0"),
        (("Hi", "--seed", "-1"), 65, "seed must not be negative"),
        (("Hi", "--config", "/nowhere.toml"), 78, "/nowhere.toml: No such file"),
        (("Hi", "--loud"), 2, "unrecognized arguments"),
        ((), 2, "required"),
    ],
)
def test_a_bad_render_says_why_and_writes_nothing(tmp_path, arguments, code, message):
    """The documented exit code, one line on stderr, no file."""
    out = tmp_path / "out.wav"
    got, line = render_and_fail(*arguments, "--out", str(out))
    assert (got, message in line) == (code, True), line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("environment", [{}, {"LC_ALL": "C.UTF-8"}, {"LC_ALL": "C"}])
def test_stdin_that_is_not_utf8_is_refused(tmp_path, environment):
    """In every locale, also those in which Python is lenient."""
    got, line = render_and_fail("-", "--out", str(tmp_path / "x.wav"), stdin=b"Hi \xff there", **environment)
    assert (got, line) == (65, "crier: stdin is not UTF-8: invalid start byte at byte 3")
    assert list(tmp_path.iterdir()) == []


def test_a_render_into_what_cannot_be_written_ends_with_74(tmp_path):
    """Folder missing, a folder, a full disk: one line, and nothing is left behind."""
    (tmp_path / "folder").mkdir()
    cases = {
        str(tmp_path / "nowhere" / "x.wav"): "No such file or directory",
        str(tmp_path / "folder"): "Is a directory",
        "/dev/full": "No space left on device",
    }
    for out, message in cases.items():
        assert render_and_fail("Hi", "--out", out) == (74, f"crier: {out}: {message}")
    assert render_and_fail("Hi", "--codes", str(tmp_path / "no" / "c.npy"))[0] == 74
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_render_writes_into_a_fifo_and_leaves_it_one(tmp_path):
    """What is no regular file is written to, not replaced: as root, /dev/null would be gone."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["cat", str(fifo)], stdout=subprocess.PIPE) as reader:
        command = [sys.executable, "-m", "daemon.client", "render", SHORT, "--out", str(fifo)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
        stream = reader.communicate(timeout=20)[0]
    assert fifo.is_fifo()
    assert stream[44:] == render(SHORT).tobytes()
