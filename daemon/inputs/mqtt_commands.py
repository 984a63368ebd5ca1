"""What an MQTT message makes the speaker do, and the reply it gets; knows nothing of connections."""

import logging
from typing import Any

from daemon.config_sections import MqttConfig
from daemon.errors import BadRequestError
from daemon.inputs.messages import execute, failure, rejection
from daemon.inputs.mqtt_messages import COMMANDS, Hints, parse_command
from daemon.log import RateLimited
from daemon.ports import Speaker
from daemon.values import Reason

logger = logging.getLogger(__name__)

_REPEAT_REFUSAL_S = 10.0
"""A flood of bad messages is not to become a flood of lines."""


class MqttCommands:
    """The command topics of crier/NODE/ and crier/all/."""

    def __init__(self, config: MqttConfig, speaker: Speaker) -> None:
        self._speaker = speaker
        self._log = RateLimited(logger, _REPEAT_REFUSAL_S)
        self._base = f"{config.base_topic}/"
        self._commands = {
            f"{config.base_topic}/{node}/{name}": name for node in (config.node, "all") for name in COMMANDS
        }

    @property
    def topics(self) -> list[str]:
        """What to subscribe to."""
        return list(self._commands)

    def is_command(self, topic: str) -> bool:
        """Whether some speaker of this base would obey it; a reply there would be obeyed with this speaker's rights."""
        return topic.startswith(self._base) and topic.removeprefix(self._base).partition("/")[2] in COMMANDS

    def is_get(self, topic: str) -> bool:
        """Whether the topic asks for the state."""
        return self._commands.get(topic) == "get"

    def obey(self, topic: str, payload: bytes, hints: Hints, *, retained: bool) -> dict[str, Any] | None:
        """Do what the message asks; the reply, or None where there was nothing to do."""
        command = self._commands.get(topic)
        if command is None:
            return None
        if retained:
            self._log.log(logging.WARNING, "event=mqtt_retained topic=%s: a retained command is not obeyed", topic)
            if command.startswith("say") and payload:
                self._speaker.reject(Reason.RETAINED)
            return None
        try:
            op = parse_command(command, payload, hints)
        except BadRequestError as err:
            if command.startswith("say"):
                self._speaker.reject(rejection(err), err.request_id, str(err))
            reply = failure(err)
        else:
            if op is None:
                return None
            reply = execute(op, self._speaker)
        if not reply["ok"]:
            error = reply["error"]
            # Limited for each topic and code apart: one bad automation is not to hide another.
            name = topic.replace("%", "%%")
            refused = f"event=mqtt_refused topic={name} code={error['code']}: %s"
            self._log.log(logging.WARNING, refused, error["message"])
        return reply
