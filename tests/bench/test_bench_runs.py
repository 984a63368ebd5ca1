"""The bench script cannot rot unseen: it runs, briefly."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.broker]


def test_bench_daemon_measures_everything():
    """One round; its last line is JSON with every figure."""
    script = Path(__file__).with_name("bench_daemon.py")
    command = [sys.executable, str(script), "--rounds", "1", "--idle-s", "0.5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert {"machine", "ready_ms", "null_sink", "after", "idle_percent", "say_ms", "engine"} <= figures.keys()
    assert "publish to started event" in done.stdout
