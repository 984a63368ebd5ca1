"""The program in a network namespace of its own: it needs no network, and sends nothing to anybody but the broker."""

import json
import subprocess
import sys

import pytest
from daemon_process import ROOT

pytestmark = [pytest.mark.engine, pytest.mark.broker]

ENTER = 'ip link set lo up && ip route add local default dev lo && exec "$@"'
UNSHARE = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", ENTER, "sh"]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """What offline_scene.py saw in there."""
    try:
        subprocess.run([*UNSHARE, "true"], check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.CalledProcessError) as err:
        pytest.skip(f"no network namespace of one's own here: {getattr(err, 'stderr', err)!r}")
    script = [sys.executable, str(ROOT / "tests" / "offline_scene.py"), str(tmp_path_factory.mktemp("offline"))]
    done = subprocess.run([*UNSHARE, *script], cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_it_speaks_with_loopback_only(scene):
    """A render and an announcement over a local broker work without any other interface, and end well."""
    assert scene["interfaces"] == ["lo"]
    assert scene["render_s"] == pytest.approx(scene["daemon_s"], abs=0.001)
    assert scene["daemon_s"] > 0.5
    assert scene["exit_code"] == 0


def test_nothing_but_the_broker_is_connected_to(scene):
    """The daemon begins one connection, the broker's, and sends no datagram; a render does neither."""
    assert scene["control"] == {"tcp": 1, "udp": 1}  # that the counters see attempts that reach nobody
    assert scene["render"] == {"tcp": 0, "udp": 0}
    assert scene["daemon"] == {"tcp": 1, "udp": 0}
    assert scene["peers"] == [True]


def test_no_library_leaves_anything_in_the_home_folder(scene):
    """But for the phrase that was spoken; onnxruntime's telemetry would keep a database there."""
    assert scene["left_behind"] == []
