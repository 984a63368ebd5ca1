"""Ducking: whoever makes other sound is told when speech begins and when it is over."""

import contextlib
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path
from time import monotonic

from daemon.config_sections import DuckConfig
from daemon.log import RateLimited
from daemon.values import SpeakerState, State

logger = logging.getLogger(__name__)

COMMAND_S = 5.0
"""A command that runs longer is killed."""
CLOSING_S = 2.0
"""The same while the daemon stops, which systemd lets it do for 20 s."""
_LOOK_S = 0.1
_WAIT_S = 1.0
"""The longest wait between two beats."""
_LOG_S = 600.0
_SPEAKING = (SpeakerState.SYNTHESIZING, SpeakerState.SPEAKING)


def set_role(role: str, environ: MutableMapping[str, str]) -> None:
    """Let sound servers know what this process plays, before PortAudio is loaded; what the user has set stays.

    Source: PulseAudio's ApplicationProperties page; pipewire-client.conf(5), "client-env".
    """
    if role:
        environ.setdefault("PULSE_PROP_media.role", role)
        environ.setdefault("PIPEWIRE_ALSA", f"{{ media.role={role} }}")


class Ducking:
    """Runs the commands and sends the messages of [duck], on the thread ``duck``. Speech never waits for it.

    It begins when an utterance begins to be made, and ends ``hold_ms`` after the last one has been heard.

    Args:
        config: [duck].
        publish: sends a payload to a topic; False if it cannot be sent now.
        beat: called on the thread, at least once a second while no command runs.
        marker: a file that is there as long as the end is owed, so that the next start tells it after a crash.
    """

    def __init__(
        self, config: DuckConfig, publish: Callable[[str, str], bool], beat: Callable[[], None], *, marker: Path
    ) -> None:
        self._config = config
        self._publish = publish
        self._beat = beat
        self._log = RateLimited(logger, _LOG_S)
        self._news = threading.Condition()
        self._busy = False
        self._idle_since = 0.0
        self._closing = False
        # The thread's own.
        self._marker = marker
        self._ducked = False
        self._unsent: str | None = None
        self._thread = threading.Thread(target=self._run, name="duck")

    def start(self) -> None:
        """Start the thread, if there is anything to tell; the end that a crash left owing is told first."""
        if self._config.start or self._config.end or self._config.topic:
            self._ducked = self._marker.exists()
            self._thread.start()

    def on_state(self, state: State) -> None:
        """Hear of the speaker's state. Any thread; never waits for a command."""
        busy = state.state in _SPEAKING
        with self._news:
            if busy != self._busy:
                self._busy, self._idle_since = busy, monotonic()
                self._news.notify()

    def close(self) -> None:
        """Tell the end if the start was told, and end the thread."""
        with self._news:
            self._closing = True
            self._news.notify()
        if self._thread.is_alive():
            self._thread.join(2 * CLOSING_S + 1)

    def _run(self) -> None:
        try:
            while self._turn():
                self._beat()
        except Exception:
            logger.exception("bug in the duck thread")  # the heartbeat stops now, and that ends the process

    def _turn(self) -> bool:
        """Tell what is to be told, or wait for news; False when all is told at the end."""
        with self._news:
            held_s = self._idle_since + self._config.hold_ms / 1000 - monotonic()
            wanted = not self._closing and (self._busy or (self._ducked and held_s > 0))
            if wanted == self._ducked and self._unsent is None:
                if self._closing:
                    return False
                self._news.wait(min(held_s, _WAIT_S) if wanted and not self._busy else _WAIT_S)
                return True
        if wanted == self._ducked:
            return self._send_again()
        self._ducked = wanted
        self._mark()
        self._run_command(self._config.start if wanted else self._config.end)
        self._unsent = self._config.start_payload if wanted else self._config.end_payload
        return self._send() or True

    def _mark(self) -> None:
        try:
            if self._ducked:
                self._marker.parent.mkdir(parents=True, exist_ok=True)
                self._marker.touch()
            else:
                self._marker.unlink(missing_ok=True)
        except OSError as err:
            self._log.log(logging.WARNING, "duck: %s cannot be written: %s", self._marker, err.strerror)

    def _send(self) -> bool:
        if not self._config.topic or self._unsent is None or self._publish(self._config.topic, self._unsent):
            self._unsent = None
            return True
        self._log.log(logging.WARNING, "duck: %s could not be sent to %s", self._unsent, self._config.topic)
        return False

    def _send_again(self) -> bool:
        """What the broker did not take is offered again, until something newer takes its place."""
        if self._closing:
            self._unsent = None
        elif not self._send():
            with self._news:
                self._news.wait(_WAIT_S)
        return True

    def _run_command(self, command: Sequence[str]) -> None:
        if not command:
            return
        with os.fdopen(os.memfd_create("errors"), "w+b") as errors:  # a pipe fills up, a file needs room on a disk
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,
                    preexec_fn=_take_signals,  # noqa: PLW1509 (one system call, which no thread can have locked)
                )
            except OSError as err:
                self._log.log(logging.WARNING, "duck: %s does not run: %s", command[0], err.strerror)
                return
            if not self._wait_for(process):
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                self._log.log(logging.WARNING, "duck: %s does not end and was killed", command[0])
            elif process.returncode:
                errors.seek(0)
                line = errors.readline(200).decode(errors="replace").strip()
                self._log.log(logging.WARNING, "duck: %s failed with %d: %s", command[0], process.returncode, line)

    def _wait_for(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether it ends in time."""
        began = monotonic()
        while monotonic() - began < (CLOSING_S if self._closing else COMMAND_S):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_S)
                return True
        return False


def _take_signals() -> None:
    """In a command before it begins: this process blocks the signals that end it, and a command would inherit that."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
