"""An accepted request in the queue, with what the queue must know of it."""

from dataclasses import dataclass

from daemon.values import Priority, SpeakRequest

RANK = {Priority.CRITICAL: 0, Priority.NORMAL: 1, Priority.LOW: 2}
"""The lower speaks first."""


@dataclass(slots=True, eq=False)
class Item:
    """An accepted request on its way to its final event."""

    request: SpeakRequest
    deadline: float
    """When it expires unless it has been taken by then."""
    announced: bool = False
    """Its ``started`` event is out."""
    heard: bool = False
    """It has started since it was last taken."""
    replayed: bool = False
    """It was interrupted once; it is not put back again."""
    done: bool = False
    """Its final event is out."""

    @property
    def rank(self) -> int:
        """Its priority's place in line."""
        return RANK[self.request.priority]

    @property
    def critical(self) -> bool:
        """Whether it speaks through mute and pause."""
        return self.request.priority is Priority.CRITICAL

    def shares_key(self, request: SpeakRequest) -> bool:
        """Whether one of the two replaces the other."""
        return request.key is not None and request.key == self.request.key
