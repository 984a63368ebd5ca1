"""The ids that were accepted lately, so that a request that comes twice is spoken once."""

from collections import OrderedDict


class RecentIds:
    """Ids of the last ``window_s`` seconds, at most ``most`` of them. Not thread-safe."""

    def __init__(self, window_s: float, most: int) -> None:
        self._window_s = window_s
        self._most = most
        self._accepted: OrderedDict[str, float] = OrderedDict()
        """When each was added, oldest first."""

    def __len__(self) -> int:
        return len(self._accepted)

    def add(self, request_id: str, now: float) -> None:
        """Remember an id that is not known, ``now`` in monotonic seconds."""
        self._accepted[request_id] = now

    def known(self, request_id: str, now: float) -> bool:
        """Whether an id was added within the window; forgets what is older."""
        while self._accepted and (
            len(self._accepted) > self._most or next(iter(self._accepted.values())) <= now - self._window_s
        ):
            self._accepted.popitem(last=False)
        return request_id in self._accepted
