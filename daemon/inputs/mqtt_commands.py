"""What an MQTT message makes the speaker do, and the reply it gets; knows nothing of connections."""

import logging
import time
from typing import Any

from daemon.config import MqttConfig, QueueConfig
from daemon.errors import BadRequestError
from daemon.inputs.messages import Limits, Op, Say, execute, failure, rejection
from daemon.inputs.mqtt_messages import COMMANDS, Hints, cap_ttl, parse_command
from daemon.values import Priority, Reason, Speaker

logger = logging.getLogger(__name__)

_REPEAT_LOG_S = 600.0


class OnceLog:
    """Warns about each new trouble of a thing once, and again when it lasts."""

    def __init__(self) -> None:
        self._logged: dict[str, tuple[str, float]] = {}

    def warn(self, thing: str, trouble: str) -> None:
        """Log, unless the same was logged within ten minutes."""
        last, when = self._logged.get(thing, ("", 0.0))
        if trouble != last or time.monotonic() - when > _REPEAT_LOG_S:
            self._logged[thing] = (trouble, time.monotonic())
            logger.warning("event=mqtt_trouble %s: %s", thing, trouble)

    def forget(self, thing: str) -> None:
        """All is well again."""
        self._logged.pop(thing, None)


class MqttCommands:
    """The command topics of crier/NODE/ and crier/all/."""

    def __init__(self, config: MqttConfig, speaker: Speaker, queue: QueueConfig, limits: Limits, log: OnceLog) -> None:
        self._speaker = speaker
        self._limits = limits
        self._log = log
        self._default_ttl_s = {**dict.fromkeys(Priority, queue.ttl_s), Priority.CRITICAL: queue.critical_ttl_s}
        self._commands = {
            f"{config.base_topic}/{node}/{name}": name for node in (config.node, "all") for name in COMMANDS
        }

    @property
    def topics(self) -> list[str]:
        """What to subscribe to."""
        return list(self._commands)

    def is_get(self, topic: str) -> bool:
        """Whether the topic asks for the state."""
        return self._commands.get(topic) == "get"

    def obey(self, topic: str, payload: bytes, hints: Hints, *, retained: bool) -> dict[str, Any] | None:
        """Do what the message asks; the reply, or None where there was nothing to do."""
        command = self._commands.get(topic)
        if command is None:
            return None
        if retained:
            self._log.warn(topic, "a retained command is not obeyed")
            if command.startswith("say") and payload:
                self._speaker.reject(Reason.RETAINED)
            return None
        try:
            op = self._parse(command, payload, hints)
        except BadRequestError as err:
            if command.startswith("say"):
                self._speaker.reject(rejection(err), err.request_id)
            reply = failure(err)
        else:
            if op is None:
                return None
            reply = execute(op, self._speaker)
        if not reply["ok"]:
            self._log.warn(topic, "{code}: {message}".format_map(reply["error"]))
        return reply

    def _parse(self, command: str, payload: bytes, hints: Hints) -> Op | None:
        op = parse_command(command, payload, self._limits, hints)
        if isinstance(op, Say):
            return Say(request=cap_ttl(op.request, hints.expiry_s, self._default_ttl_s[op.request.priority]))
        return op
