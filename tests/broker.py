"""A real mosquitto on a free port, to be killed and restarted, and an MQTT 5 client that collects what is published."""

import contextlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin")


class Broker:
    """One mosquitto process after another on the same port."""

    def __init__(self, config: Path, port: int) -> None:
        self.port = port
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        assert MOSQUITTO is not None, "mosquitto is not installed"
        with (self._config.parent / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen([MOSQUITTO, "-c", str(self._config)], stdout=log, stderr=log)
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            assert self._process.poll() is None, (self._config.parent / "mosquitto.log").read_text()
            time.sleep(0.02)
        raise AssertionError("mosquitto does not listen")

    def kill(self) -> None:
        """End it without a goodbye."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kill and start again; what was retained is forgotten."""
        self.kill()
        self.start()


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def start_broker(
    folder: Path,
    *,
    users: dict[str, str] | None = None,
    tls: bool = False,
    start: bool = True,
    extra: Sequence[str] = (),
) -> Broker:
    """A broker with its files in ``folder``.

    Args:
        folder: a new one.
        users: names and passwords; the broker then wants one of them.
        tls: serve TLS, with a new ca.pem there (and client.pem with client.key, for whoever needs them).
        start: else it is there to be started.
        extra: further lines of its configuration.
    """
    port = free_port()
    lines = [f"listener {port} 127.0.0.1", "persistence false", "user root", "log_type all", *extra]
    if users:
        write_passwords(folder / "passwords", users)
        lines += ["allow_anonymous false", f"password_file {folder / 'passwords'}"]
    else:
        lines += ["allow_anonymous true"]
    if tls:
        make_certificates(folder)
        lines += [
            f"cafile {folder / 'ca.pem'}",
            f"certfile {folder / 'server.pem'}",
            f"keyfile {folder / 'server.key'}",
        ]
    config = folder / "mosquitto.conf"
    config.write_text("\n".join(lines) + "\n")
    broker = Broker(config, port)
    if start:
        broker.start()
    return broker


def write_passwords(path: Path, users: dict[str, str]) -> None:
    """A password file of mosquitto's."""
    for number, (name, password) in enumerate(users.items()):
        create = ["-c"] if number == 0 else []
        subprocess.run(["mosquitto_passwd", *create, "-b", str(path), name, password], check=True, capture_output=True)


def make_certificates(folder: Path) -> None:
    """ca.pem, and signed by it: server.pem with server.key for localhost, client.pem with client.key."""
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    extensions = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
    ca = ["-x509", *curve, "-subj", "/CN=Test CA", *extensions, "-keyout", "ca.key", "-out", "ca.pem"]
    subprocess.run(["openssl", "req", *ca], cwd=folder, check=True, capture_output=True)
    for name, subject, alternatives in [
        ("server", "/CN=localhost", ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]),
        ("client", "/CN=kitchen", []),
    ]:
        signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE", *alternatives]
        files = ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
        command = ["openssl", "req", "-x509", *curve, "-subj", subject, *signed, *files]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)


class Watcher:
    """An MQTT 5 client that keeps every message, retained ones too."""

    def __init__(self, port: int, topic: str = "#", *, user: tuple[str, str] | None = None) -> None:
        self.messages: list[MQTTMessage] = []
        self._changed = threading.Condition()
        self._subscribed = threading.Event()
        self._topic = topic
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe(self._topic, qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        if user is not None:
            self._client.username_pw_set(*user)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    def payloads(self, topic: str) -> list[bytes]:
        """What was published there so far."""
        return [bytes(message.payload) for message in list(self.messages) if message.topic == topic]

    def wait(self, topic: str, wanted: Callable[[bytes], bool] = lambda _: True, timeout: float = 15) -> MQTTMessage:
        """Wait for a message of that topic whose payload is ``wanted``."""

        def found() -> MQTTMessage | None:
            return next((m for m in self.messages if m.topic == topic and wanted(bytes(m.payload))), None)

        with self._changed:
            assert self._changed.wait_for(found, timeout), [(m.topic, m.payload) for m in self.messages]
            message = found()
        assert message is not None
        return message

    def publish(self, topic: str, payload: bytes | str = b"", *, retain: bool = False, qos: int = 1, **v5: Any) -> None:
        """Publish, with MQTT 5 properties by paho's names; returns when the broker has it."""
        properties = Properties(PacketTypes.PUBLISH)
        for name, value in v5.items():
            setattr(properties, name, value)
        self._client.publish(topic, payload, qos=qos, retain=retain, properties=properties).wait_for_publish(10)


def wait_online(broker: Broker, node: str) -> None:
    """Wait until the speaker has subscribed: what is published before would not be heard."""
    with Watcher(broker.port, f"crier/{node}/#") as watcher:
        watcher.wait(f"crier/{node}/availability", lambda payload: payload == b"online")
        watcher.publish(f"crier/{node}/get", ResponseTopic=f"crier/{node}/test")
        watcher.wait(f"crier/{node}/test")


@contextlib.contextmanager
def refusing_mqtt5(broker_port: int) -> Iterator[int]:
    """The port of a proxy to a broker that knows MQTT 3.1.1 only."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):  # a reset is an end like any other
            while data := source.recv(65_536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def serve(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = client.recv(65_536)
            if head[head.index(b"MQTT") + 4] == 5:
                client.sendall(b"\x20\x02\x00\x01")  # CONNACK of 3.1.1: unacceptable protocol version
                return
            with socket.create_connection(("127.0.0.1", broker_port)) as broker:
                broker.sendall(head)
                back = threading.Thread(target=pump, args=(broker, client))
                back.start()
                pump(client, broker)
                back.join()

    server = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                threads.append(threading.Thread(target=serve, args=(client,)))
                threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        for thread in (acceptor, *threads):
            thread.join(5)
