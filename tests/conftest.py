"""For all tests: helpers beside this file can be imported, hypothesis does not judge by the clock, and tests whose
programs are missing are skipped (but under CI, where everything is to be there)."""

import os
import shutil

import pytest
from broker import start_broker
from hypothesis import HealthCheck, settings

import daemon  # noqa: F401  # sets the environment before any test imports onnxruntime

settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")

PROGRAMS = {"broker": ("mosquitto", "mosquitto_passwd", "mosquitto_pub", "openssl"), "audio": ("pulseaudio", "parec")}
"""What the tests of a marker start."""
PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin"


def pytest_collection_modifyitems(items):
    """Skip what cannot run here, with the name of what is missing."""
    if os.environ.get("CI"):
        return
    for marker, programs in PROGRAMS.items():
        missing = [name for name in programs if shutil.which(name, path=PATH) is None]
        for item in items:
            if missing and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=f"not installed: {', '.join(missing)}"))


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """A broker for all tests of a file."""
    broker = start_broker(tmp_path_factory.mktemp("broker"))
    yield broker
    broker.kill()


@pytest.fixture
def own_broker(tmp_path_factory):
    """A broker for one test alone."""
    broker = start_broker(tmp_path_factory.mktemp("broker"))
    yield broker
    broker.kill()
