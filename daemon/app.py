"""Composition root: starts the parts in order and stops them in reverse. The one module that knows every package."""

import contextlib
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from daemon import log, scheduling, startup
from daemon.audio.sink import open_sink
from daemon.config import Config, load_config
from daemon.ducking import Ducking, set_role
from daemon.engine.engine import Engine, Folders
from daemon.errors import ConfigError, EngineError
from daemon.inputs.mqtt_credentials import read_password
from daemon.inputs.unix_socket import UnixSocketServer
from daemon.metrics import Metrics
from daemon.phrases import open_phrases
from daemon.places import Places
from daemon.service import Service
from daemon.systemd import Heartbeats, Notifier, listen_sockets, watchdog_interval_s

if TYPE_CHECKING:
    from daemon.inputs.mqtt import MqttInput
    from daemon.inputs.render_player import RenderPlayer
    from daemon.inputs.wyoming_server import WyomingServer

logger = logging.getLogger(__name__)

TICK_S = 1.0
SILENT_THREAD_S = 60.0
"""A thread that has not beaten for this long hangs or has died: the process gives up, to be started again.

Longer than a big model takes to be loaded anew after a failure."""
DRAIN_S = 1.0
"""How long speech may go on after SIGTERM."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
RELOADABLE = ("queue", "quiet", "chimes", "text", "log")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the process was started with."""

    config_path: Path | None
    places: Places
    environ: MutableMapping[str, str]
    pid: int


class App:
    """The daemon from load to exit.

    Raises:
        SpeechError: from the constructor and ``run``, when the daemon cannot start.
    """

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._surroundings = surroundings
        self._notifier = Notifier(surroundings.environ)
        self._heartbeats = Heartbeats()
        self._metrics = Metrics()
        self._mqtt: MqttInput | None = None
        for problem in startup.problems(config, surroundings.places.credentials):
            raise problem
        self._renderers: RenderPlayer | None = None
        if config.share.role:
            from daemon.app_mqtt import make_renderers  # noqa: PLC0415 (see _new_mqtt)

            self._renderers = make_renderers(config)
        self._exit_code = 0
        self._stuck = False

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit code.

        The signals are taken in ``_serve``, where nothing is half done. They are blocked first, because a thread that a
        library starts would take them otherwise.
        """
        began = time.monotonic()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        with contextlib.ExitStack() as stack:
            service = self._start(stack)
            scheduling.raise_thread("audio", self._config.audio.realtime_priority)
            scheduling.release_memory()
            if self._config.engine.mlock:
                scheduling.lock_memory()
            gc.freeze()  # without a search first, which takes 20 ms and finds 600 objects among 78 000
            gc.enable()
            self._notifier.ready()
            logger.info("ready startup_s=%.2f", time.monotonic() - began)
            self._exit_code = self._serve(service)
        return self._exit_code

    def _start(self, stack: contextlib.ExitStack) -> Service:
        """Load everything, then start the threads; ``stack`` undoes it in reverse."""
        config, places = self._config, self._surroundings.places
        password = read_password(config.mqtt, places.credentials)
        scheduling.share_interpreter()
        scheduling.use_cpus(config.engine.cpus)
        set_role(config.duck.role, self._surroundings.environ)
        sink = open_sink(config.audio)
        engine = Engine(config.engine, Folders(places.voices, places.cache))
        stack.callback(self._close_engine, engine)
        engine.self_test()
        service = Service(
            config,
            engine,
            sink,
            settings_path=places.state / "settings.json",
            phrases=open_phrases(config.phrases, places.cache),
            renderers=self._renderers,
            metrics=self._metrics,
            beat=self._heartbeats.beat,
        )
        server = self._open_socket(service)
        stack.callback(server.close)
        if config.mqtt.enabled:
            self._mqtt = self._new_mqtt(service, engine, password)
            service.listen(self._mqtt.on_event, self._mqtt.on_state)
            stack.callback(self._mqtt.close)
        service.listen(server.on_event)
        ducking = self._new_ducking()
        service.listen(lambda _event: None, ducking.on_state)
        stack.callback(ducking.close)
        wyoming = self._open_wyoming(service) if config.wyoming.enabled else None
        if wyoming is not None:
            stack.callback(wyoming.close)
        stack.callback(self._close_service, service)
        stack.callback(self._notifier.stopping)
        ducking.start()
        service.start()
        server.start()
        if wyoming is not None:
            wyoming.start()
        if self._mqtt is not None:
            self._mqtt.start()
        return service

    def _new_mqtt(self, service: Service, engine: Engine, password: str | None) -> "MqttInput":
        from daemon.app_mqtt import make_mqtt  # noqa: PLC0415 (a fifth of all imports, for those that have a broker)

        return make_mqtt(
            self._config,
            service,
            engine,
            self._renderers,
            password=password,
            beat=lambda: self._heartbeats.beat("mqtt"),
        )

    def _close_service(self, service: Service) -> None:
        self._stuck = not service.close(drain_s=DRAIN_S)

    def _close_engine(self, engine: Engine) -> None:
        """Last of all. A thread that hangs in a driver or a model cannot be ended, nor its models freed under it."""
        if self._stuck:
            logger.critical("a thread does not end; leaving without it")
            logging.shutdown()
            os._exit(self._exit_code)
        engine.close()

    def _open_socket(self, service: Service) -> UnixSocketServer:
        activated = listen_sockets(self._surroundings.environ, self._surroundings.pid)
        named = self._config.socket.path
        path = Path(named) if named else None
        if path is None and not activated:
            path = self._surroundings.places.socket
            _make_private(path.parent)
        if path is not None and str(path) in _names(activated):
            path = None
        server = UnixSocketServer(
            self._config.socket,
            service,
            path=path,
            activated=activated,
            beat=lambda: self._heartbeats.beat("socket"),
        )
        server.open()
        logger.info("socket path=%s", path or ", ".join(_names(activated)))
        return server

    def _new_ducking(self) -> Ducking:
        publish: Callable[[str, str], bool] = _publish_nothing
        if self._mqtt is not None:
            from daemon.app_mqtt import publisher  # noqa: PLC0415 (see _new_mqtt)

            publish = publisher(self._mqtt)

        marker = self._surroundings.places.state / "ducked"
        return Ducking(self._config.duck, publish, lambda: self._heartbeats.beat("duck"), marker=marker)

    def _open_wyoming(self, service: Service) -> "WyomingServer":
        from daemon.inputs.wyoming_server import WyomingServer  # noqa: PLC0415 (an extra, and slow to import)

        config = self._config
        server = WyomingServer(
            config.wyoming,
            service,
            max_chars=config.text.max_chars,
            beat=lambda: self._heartbeats.beat("wyoming"),
        )
        if where := server.open():
            logger.info("wyoming uri=%s", ", ".join(where))
        return server

    def _serve(self, service: Service) -> int:
        watchdog_s = watchdog_interval_s(self._surroundings.environ, self._surroundings.pid)
        wait_s = min(TICK_S, watchdog_s or TICK_S)
        told = ""
        while True:
            caught = signal.sigtimedwait(SIGNALS, wait_s)
            if caught is not None and caught.si_signo != signal.SIGHUP:
                return 0
            if caught is not None:
                self._reload_config(service)
            if service.fatal is not None:
                logger.critical("giving up: %s", service.fatal)
                return service.fatal.exit_code
            silent = self._heartbeats.late(time.monotonic(), SILENT_THREAD_S)
            if silent:
                logger.critical("giving up: silent for %.0f s: %s", SILENT_THREAD_S, ", ".join(silent))
                return EngineError.exit_code
            service.tick()
            if self._mqtt is not None:
                self._metrics.set_reconnects(self._mqtt.reconnects)
            if watchdog_s is not None:
                self._notifier.watchdog()
            state = service.state()
            told, line = f"{state.state}, {state.queue} waiting", told
            if told != line:
                self._notifier.status(told)

    def _reload_config(self, service: Service) -> None:
        """Take what can be taken from a changed config file; say what needs a restart. A bad file changes nothing."""
        self._notifier.reloading()
        try:
            config = load_config(self._surroundings.config_path)
            service.reload(config)
        except ConfigError as err:
            logger.error("config not reloaded: %s", err)  # noqa: TRY400 (one line says it)
        else:
            changed = [name for name in Config.model_fields if getattr(config, name) != getattr(self._config, name)]
            log.set_level(config.log.level)
            later = [name for name in changed if name not in RELOADABLE]
            if later:
                logger.warning("changes in %s take effect at the next start", ", ".join(f"[{n}]" for n in later))
            self._config = config.model_copy(update={name: getattr(self._config, name) for name in later})
            logger.info("config reloaded changed=%s; sounds and lexicon are read anew", ",".join(changed) or "nothing")
        self._notifier.ready()


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as err:
        raise ConfigError(f"socket folder {folder}: {err.strerror}; set [socket] path") from err


def _publish_nothing(_topic: str, _payload: str) -> bool:
    return False


def _names(sockets: list[socket.socket]) -> list[str]:
    return [str(item.getsockname()) for item in sockets]
