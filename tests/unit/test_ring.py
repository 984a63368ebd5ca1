"""The PCM ring: a bounded deque of samples between two threads."""

import threading
import time
import tracemalloc
from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.audio.ring import PcmRing

OPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["write", "read", "unwrite"]), st.integers(0, 40)),
        st.tuples(st.just("discard"), st.integers(-5, 40)),
        st.tuples(st.just("clear"), st.just(0)),
    ),
    max_size=40,
)


def samples(start, count):
    return np.arange(start, start + count).astype(np.int16)


@given(capacity=st.integers(1, 32), ops=OPS)
def test_ring_behaves_like_a_bounded_deque(capacity, ops):
    """Samples come out once and in order; what is taken back, discarded or cleared never does."""
    ring, model, counter = PcmRing(capacity), deque(), 0
    for name, count in ops:
        if name == "write":
            done = ring.write(samples(counter, count), 0)
            assert done == min(count, capacity - len(model))
            model.extend(range(counter, counter + done))
            counter += done
        elif name == "read":
            block = np.full(count, -1, dtype=np.int16)
            done = ring.read_into(block)
            assert done == min(count, len(model))
            assert block.tolist() == [model.popleft() for _ in range(done)] + [-1] * (count - done)
        elif name == "unwrite":
            fits = count <= len(model)
            assert ring.unwrite(count) is fits
            for _ in range(count if fits else 0):
                model.pop()
        elif name == "discard":
            ring.discard_to(ring.total_read + count)
            for _ in range(min(max(count, 0), len(model))):
                model.popleft()
        else:
            ring.clear()
            model.clear()
        assert (ring.available, ring.free) == (len(model), capacity - len(model))
        assert ring.total_written - ring.total_read == len(model)


def test_everything_passes_between_two_threads_in_order():
    """A writer and a reader at full speed, with odd sizes, lose, repeat and reorder nothing."""
    ring, total = PcmRing(1009), 400_000
    data = np.random.default_rng(0).integers(-32768, 32767, total).astype(np.int16)

    def write():
        position = 0
        while position < total:
            position += ring.write(data[position : position + 1920], 0.05)

    writer = threading.Thread(target=write)
    writer.start()
    out = np.empty(total, dtype=np.int16)
    position = 0
    while position < total:
        position += ring.read_into(out[position : position + 480])
    writer.join()
    assert np.array_equal(out, data)


def test_taking_back_races_with_the_reader_and_one_of_them_wins():
    """A segment that is taken back is never heard, and one that is heard in part is never taken back."""
    ring, stop = PcmRing(256), threading.Event()
    heard = []

    def read():
        block = np.empty(64, dtype=np.int16)
        while not stop.is_set():
            heard.extend(block[: ring.read_into(block)].tolist())

    reader = threading.Thread(target=read)
    reader.start()
    taken_back = []
    for value in range(2000):
        assert ring.write(np.full(8, value, dtype=np.int16), 5) == 8
        if ring.unwrite(8):
            taken_back.append(value)
    while ring.available:
        time.sleep(0.001)
    stop.set()
    reader.join()
    assert not set(taken_back) & set(heard)
    assert heard == [value for value in range(2000) if value not in set(taken_back) for _ in range(8)]


def test_a_full_ring_makes_the_writer_wait_until_its_timeout():
    """With no reader a write takes what fits and comes back; with room again the rest goes in."""
    ring = PcmRing(10)
    assert ring.write(samples(0, 15), 0.01) == 10
    assert ring.write(samples(10, 5), 0) == 0
    assert ring.read_into(np.empty(3, dtype=np.int16)) == 3
    assert ring.write(samples(10, 5), 0) == 3


def test_a_ring_without_room_is_refused():
    """A capacity below one sample is a mistake of the caller."""
    with pytest.raises(ValueError, match="at least one sample"):
        PcmRing(0)


def test_write_and_read_allocate_no_array():
    """A minute of audio through the ring leaves no allocation the size of a block, not even for a moment."""
    ring, frame, block = PcmRing(4800), np.ones(1920, dtype=np.int16), np.empty(480, dtype=np.int16)

    def pass_frame():
        ring.write(frame, 0)
        while ring.read_into(block):
            pass

    pass_frame()
    tracemalloc.start()
    try:
        for _ in range(200):
            pass_frame()
        assert tracemalloc.get_traced_memory()[1] < block.nbytes * 3
    finally:
        tracemalloc.stop()
