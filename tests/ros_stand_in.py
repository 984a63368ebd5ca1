"""Stands in for ROS 2 (rclpy and two packages of messages), which PyPI does not have: topics are lists here.

Only what docs/recipes/robot.md uses; it shows that the node talks to the speaker as it should, not that ROS runs it.
"""

from collections import defaultdict
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar


class Node:
    """What the robot's node is made from; keeps what would go out to ROS, and offers what would come in."""

    parameters: ClassVar[dict[str, Any]] = {}

    def __init__(self, name: str) -> None:
        self.name = name
        self.published: dict[str, list[Any]] = defaultdict(list)
        self.subscribed: dict[str, Any] = {}
        self.services: dict[str, Any] = {}
        self.warnings: list[str] = []

    def declare_parameter(self, name, default):
        return SimpleNamespace(value=self.parameters.get(name, default))

    def create_publisher(self, _kind, topic, _depth):
        return SimpleNamespace(publish=lambda message: self.published[topic].append(message.data))

    def create_subscription(self, _kind, topic, callback, _depth):
        self.subscribed[topic] = callback

    def create_service(self, _kind, name, callback):
        self.services[name] = callback

    def get_logger(self):
        return SimpleNamespace(warning=self.warnings.append)


@dataclass
class Data:
    """std_msgs/Bool and std_msgs/String."""

    data: Any = None


def modules(ended: list[bool]) -> dict[str, ModuleType]:
    """For sys.modules; ``ended`` gets an entry when the node shuts ROS down."""
    parts = {
        "rclpy": {"try_shutdown": lambda: ended.append(True)},
        "rclpy.node": {"Node": Node},
        "std_msgs": {},
        "std_msgs.msg": {"Bool": Data, "String": Data},
        "std_srvs": {},
        "std_srvs.srv": {"Trigger": object},
    }
    made = {name: ModuleType(name) for name in parts}
    for name, contents in parts.items():
        vars(made[name]).update(contents)
    return made
