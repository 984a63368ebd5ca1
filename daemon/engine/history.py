"""The codes of what was said lately, for requests that go on from it."""

from collections import OrderedDict

from daemon.engine.prompt_segment import PromptSegment


class History:
    """Segments by request id, bounded in frames; the oldest leave first, whole requests while there are several.

    One thread.

    Args:
        max_frames: of all requests together.
    """

    def __init__(self, max_frames: float) -> None:
        self._max_frames = max_frames
        self._num_frames = 0
        self._segments: OrderedDict[str, list[PromptSegment]] = OrderedDict()

    def add(self, request_id: str, segments: list[PromptSegment]) -> None:
        """Keep what was said for a request (again: in place of what there was)."""
        self._drop(request_id)
        if not segments:
            return
        segments = list(segments)
        self._segments[request_id] = segments
        self._num_frames += _count(segments)
        while self._num_frames > self._max_frames and len(self._segments) > 1:
            self._drop(next(iter(self._segments)))
        while self._num_frames > self._max_frames:
            self._num_frames -= segments.pop(0).num_frames

    def get(self, request_id: str) -> list[PromptSegment]:
        """What was said for a request; empty if it is not kept."""
        return self._segments.get(request_id, [])

    def _drop(self, request_id: str) -> None:
        self._num_frames -= _count(self._segments.pop(request_id, []))


def _count(segments: list[PromptSegment]) -> int:
    return sum(segment.num_frames for segment in segments)
