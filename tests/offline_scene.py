"""Run by test_offline.py in a network namespace of its own: speaks, and counts every packet that is sent anywhere.

All addresses are routed to the loopback device, so that an attempt to reach another machine leaves (and is counted)
instead of failing at once. Prints a JSON object.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from broker import Watcher, start_broker
from daemon_process import ROOT, WAV_CONFIG, mqtt_section, run_daemon

COUNTED = {"tcp": ("Tcp", "ActiveOpens"), "udp": ("Udp", "OutDatagrams")}
TEXT = "Dinner is ready"


def sent() -> dict[str, int]:
    """Connections begun and datagrams sent in this namespace so far, whether or not anything answered."""
    rows = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines()]
    tables = {
        names[0][:-1]: dict(zip(names, values, strict=True))
        for names, values in zip(rows[::2], rows[1::2], strict=True)
    }
    return {name: int(tables[table][field]) for name, (table, field) in COUNTED.items()}


def since(before: dict[str, int]) -> dict[str, int]:
    """What was sent since then."""
    return {name: count - before[name] for name, count in sent().items()}


def reach_out() -> None:
    """What a library that phones home would do: ask a name server, connect."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as name_server:
        name_server.sendto(b"?", ("192.0.2.53", 53))
    with socket.socket() as server:
        server.connect_ex(("192.0.2.1", 443))


def main(folder: Path) -> None:
    """Count what a render sends, what the daemon sends, and what reaching out looks like."""
    report = {"interfaces": [name for _, name in socket.if_nameindex()]}
    before = sent()
    home = folder / "render_home"
    home.mkdir()
    command = [sys.executable, "-m", "daemon.client", "render", TEXT, "--out", str(folder / "render.wav"), "--json"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"HOME": str(home)}, capture_output=True, check=True)
    report |= {"render": since(before), "render_s": json.loads(done.stdout)["audio_s"]}
    broker = start_broker(folder)
    try:
        with Watcher(broker.port, "crier/#") as watcher:
            before = sent()
            with run_daemon(folder, WAV_CONFIG + mqtt_section(broker.port)) as daemon:
                watcher.wait("crier/kitchen/availability", lambda payload: payload == b"online")
                watcher.publish("crier/kitchen/get", ResponseTopic="crier/test")
                watcher.wait("crier/test")
                watcher.publish("crier/kitchen/say", TEXT)
                event = json.loads(watcher.wait("crier/kitchen/event", lambda payload: b"finished" in payload).payload)
                connections = daemon.info().net_connections("inet")
                daemon.terminate()
            report |= {
                "daemon": since(before),
                "daemon_s": event["audio_s"],
                "peers": [item.raddr.port == broker.port for item in connections],
                "exit_code": daemon.process.returncode,
            }
    finally:
        broker.kill()
    before = sent()
    reach_out()
    report |= {"control": since(before)}
    homes = (home, folder / "home")
    report |= {
        "left_behind": [
            path.name for place in homes for path in place.rglob("*") if path.is_file() and path.suffix != ".phrase"
        ]
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
