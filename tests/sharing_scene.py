"""Daemons that share speech around a broker, with the configuration of docs/speakers.md, for the integration tests."""

import contextlib

import numpy as np
from broker import Watcher
from daemon_process import run_daemon
from mqtt_running import wait_until
from recipe_pages import ROOT, blocks

PAGE = ROOT / "docs" / "speakers.md"
TEXT = "The dryer is done."
JOBS, AUDIO, CANCEL = (f"crier/render/crier/{name}" for name in ("jobs", "audio/kitchen", "cancel"))
TONE = (8000 * np.sin(np.arange(12_000) / 10)).astype(np.int16)


@contextlib.contextmanager
def node(broker, tmp_path, role, *, name="", wait_s=3.0):
    """A daemon with the page's configuration, made to find this broker and to record what it plays."""
    text = next(block.text for block in blocks(PAGE, "toml") if block.argument == role)
    name = name or {"player": "kitchen", "renderer": "big-box"}[role]
    text = text.replace('"broker.lan"', f'"127.0.0.1"\nport = {broker.port}').replace(
        "wait_s = 3.0", f"wait_s = {wait_s}"
    )
    text = text.replace('"big-box"', f'"{name}"').replace('sink = "null"', 'sink = "wav"\npath = "{wav}"')
    if "[audio]" not in text:
        text += '[audio]\nsink = "wav"\npath = "{wav}"\n'
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    with run_daemon(folder, text + '[socket]\npath = "{socket}"\nrequests_per_second = 1000\n') as daemon:
        wait_until(lambda: "event=mqtt_connected" in daemon.log.read_text())
        yield daemon


def metrics(daemon):
    """What ``crier status --json`` counts."""
    return daemon.client(subscribe=False).op("status")["status"]["metrics"]


def hear(daemon, text=TEXT, **fields):
    """Have something said to its end; its final event and what was recorded meanwhile."""
    client, start = daemon.client(), len(daemon.recording())
    request_id = client.say(text, **fields)
    final = final_event(client, request_id)
    return final, daemon.recording()[start:]


def final_event(client, request_id):
    """The final event of a request; later ones would be in ``client.events``."""
    while True:
        event = client.line()
        client.events.append(event)
        if event.get("id") == request_id and event["event_type"] not in ("queued", "started"):
            return event


class FakeRenderer(Watcher):
    """Sees the jobs, and answers as a test wants it."""

    def __init__(self, broker):
        super().__init__(broker.port, "crier/render/#")
        self.publish("crier/render/crier/ready", b"fake")

    def job(self, number=0):
        """The correlation data of a job."""
        wait_until(lambda: len(self.payloads(JOBS)) > number)
        return [m for m in list(self.messages) if m.topic == JOBS][number].properties.CorrelationData

    def answer(self, correlation, seq, pcm=b"", **user):
        """Publish a part."""
        properties = [("seq", str(seq)), ("renderer", "fake"), *user.items()]
        self.publish(AUDIO, bytes(pcm), CorrelationData=correlation, UserProperty=properties)
