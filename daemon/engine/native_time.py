"""How long a thread has been inside llama.cpp and onnxruntime; the rest of its time is Python's.

The stages' times (``StageTimes``) hold the Python around each call too, which after a step that has read a hundred
megabytes finds nothing of its own in the caches: 50 microseconds a call.
"""

import threading


class _NativeTime(threading.local):
    """Every thread has its own count, so that work beside it is not taken for its own."""

    seconds: float = 0.0
    """Since the thread's start; whoever wants less takes the difference."""


NATIVE = _NativeTime()
"""The owners of the libraries add to it, with every call that computes."""
