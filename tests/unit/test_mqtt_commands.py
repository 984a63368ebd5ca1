"""What is said of MQTT messages that cannot be obeyed."""

import logging

from daemon.config_sections import MqttConfig
from daemon.inputs.mqtt_commands import MqttCommands
from daemon.inputs.mqtt_messages import Hints


class Rejecting:
    """A speaker that is asked for nothing but rejections."""

    def reject(self, reason, request_id=None, message=None):
        """Nobody listens."""


def test_one_bad_automation_does_not_hide_another(caplog):
    """Each topic and each kind of refusal is logged, and a flood of one of them once."""
    commands = MqttCommands(MqttConfig(base_topic="50%d", node="kitchen"), Rejecting())
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            commands.obey("50%d/kitchen/say/json", b"{", Hints(), retained=False)
        commands.obey("50%d/kitchen/volume/set", b"loud", Hints(), retained=False)
        commands.obey("50%d/kitchen/say/json", b'{"text": "a", "speeed": 1}', Hints(), retained=False)
    assert [record.message.split(" code=")[0] for record in caplog.records] == [
        "event=mqtt_refused topic=50%d/kitchen/say/json",
        "event=mqtt_refused topic=50%d/kitchen/volume/set",
        "event=mqtt_refused topic=50%d/kitchen/say/json",
    ]
