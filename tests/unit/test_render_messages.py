"""Jobs and speech on the broker: what is encoded is parsed again, and nothing else does harm."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import BadRequestError
from daemon.inputs.render_messages import (
    JOB_KEYS,
    PART_SAMPLES,
    AudioPart,
    RenderTopics,
    encode_audio,
    encode_job,
    parse_audio,
    parse_count,
    parse_job,
)
from daemon.values import SpeakRequest

LINES = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=60)
REQUESTS = st.builds(
    SpeakRequest,
    text=st.text(max_size=200),
    id=LINES,
    voice=st.none() | LINES,
    seed=st.none() | st.integers(0, 2**63 - 1),
    speed=st.none() | st.floats(0.5, 2.0),
    lang=st.none() | st.text("abcdef-", min_size=2, max_size=16),
    volume=st.none() | st.integers(0, 100),
)
USER = st.dictionaries(st.sampled_from(["seq", "end", "error", "renderer", "rtf"]), st.text(max_size=12))


@given(REQUESTS)
def test_a_job_comes_out_as_it_went_in(request_):
    """All that concerns the renderer, and nothing that concerns the player alone."""
    job = parse_job(encode_job(request_))
    assert {key: getattr(job, key) for key in JOB_KEYS} == {key: getattr(request_, key) for key in JOB_KEYS}
    assert job.volume is None


@given(
    st.binary(max_size=200) | st.dictionaries(st.text(max_size=8), st.integers()).map(lambda d: json.dumps(d).encode())
)
def test_a_bad_job_is_a_refusal(payload):
    """Whatever the bytes: a request, or an error of the wire."""
    try:
        code = "" if isinstance(parse_job(payload), SpeakRequest) else "no request"
    except BadRequestError as err:
        code = err.code
    assert code in {"", "bad_json", "bad_request"}


def test_a_job_takes_nothing_that_is_the_players():
    """A key of a request that means nothing to a renderer is named; too long a message is refused unread."""
    with pytest.raises(BadRequestError, match="'priority'"):
        parse_job(b'{"text": "Hi", "priority": "critical"}')
    with pytest.raises(BadRequestError, match="limited to 65536 bytes"):
        parse_job(b" " * 65_537)


@given(
    seq=st.integers(0, 999_999_999),
    samples=st.integers(0, PART_SAMPLES),
    end=st.booleans(),
    renderer=st.text(max_size=20),
    rtf=st.floats(0, 1000),
)
def test_speech_comes_out_as_it_went_in(seq, samples, end, renderer, rtf):
    """Every sample, and what is said of them."""
    pcm = (np.arange(samples) * 37 % 65_536 - 32_768).astype(np.int16)
    part = parse_audio(*encode_audio(AudioPart(seq=seq, pcm=pcm, end=end, renderer=renderer, rtf=rtf)))
    assert part is not None
    assert (part.seq, part.end, part.renderer, part.error) == (seq, end, renderer, "")
    assert part.rtf == pytest.approx(rtf, abs=0.001)
    assert np.array_equal(part.pcm, pcm)


@given(code=st.text(min_size=1, max_size=20), message=st.text(max_size=700))
def test_an_error_comes_out_as_it_went_in(code, message):
    """Its code and the begin of its words."""
    part = parse_audio(*encode_audio(AudioPart(seq=3, end=True, error=code, message=message, renderer="box")))
    assert part is not None
    assert (part.error, part.renderer, len(part.pcm)) == (code, "box", 0)
    assert part.message == message[:500].encode("utf-8", "replace").decode()


@given(st.binary(max_size=100), USER)
def test_what_is_no_speech_never_raises(payload, user):
    """A part with a number of its own and whole samples, or nothing."""
    part = parse_audio(payload, user)
    if part is not None:
        assert part.seq >= 0
        assert 0 <= part.rtf < float("inf")
        assert part.error or 2 * len(part.pcm) == len(payload)


def test_parts_that_are_too_long_are_none():
    """Half a second, and not a sample more."""
    assert parse_audio(bytes(2 * PART_SAMPLES), {"seq": "0"}) is not None
    assert parse_audio(bytes(2 * PART_SAMPLES + 2), {"seq": "0"}) is None


@given(st.text())
def test_counts_are_numbers_or_the_default(text):
    """Digits alone, and not so many that they take long."""
    count = parse_count(text, -1)
    assert count == -1 or (count == int(text) and len(text) < 10)


def test_a_renderer_answers_nowhere_else():
    """A response topic lies below audio/, of the same group, without wildcards."""
    topics = RenderTopics("home/crier", "big")
    assert topics.is_audio(topics.audio("kitchen"))
    other = RenderTopics("home/crier", "big-2").audio("kitchen")
    for topic in (other, "home/crier/kitchen/say", topics.audio(""), topics.audio("+"), topics.audio("a/#"), ""):
        assert not topics.is_audio(topic)
