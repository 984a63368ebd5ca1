"""Speech for the tests of the evaluation: flite's, as the teacher's is prepared."""

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

RATE = 24_000


@cache
def say(text, *, voice="slt", stretch=1.0):
    """int16 [S], 24 kHz."""
    if not shutil.which("flite"):
        pytest.skip("flite is not installed")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        speed = f"duration_stretch={stretch}"
        subprocess.run(["flite", "-voice", voice, "--setf", speed, "-t", text, "-o", path], check=True)
        sound, rate = soundfile.read(path, dtype="float32")
    return (soxr.resample(sound, rate, RATE).clip(-1, 1) * 32767).astype(np.int16)


def heard(pcm):
    """The first and last sample of what is not silent."""
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > 800)
    return int(loud[0]), int(loud[-1])
