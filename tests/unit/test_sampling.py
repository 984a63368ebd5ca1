"""Sampling of codes."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.engine.sampling import Sampler, Sampling
from daemon.errors import BadRequestError

LOGITS = np.array([0.1, 2.0, -1.0, 1.9, 0.0], np.float32)


def test_greedy_takes_the_largest():
    """Temperature 0 is argmax, and asks no randomness."""
    assert Sampler(5).sample(LOGITS, Sampling(0.0, 5), np.random.default_rng(0)) == 1


def test_top_one_is_greedy_at_any_temperature():
    """top_k = 1 leaves one class."""
    assert Sampler(5).sample(LOGITS, Sampling(2.0, 1), np.random.default_rng(0)) == 1


def test_the_same_seed_gives_the_same_codes():
    """Codes depend on nothing but logits, settings and the generator."""
    runs = []
    for _ in range(2):
        rng, sampler = np.random.default_rng(7), Sampler(5)
        runs.append([sampler.sample(LOGITS, Sampling(1.0, 4), rng) for _ in range(50)])
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 1


def test_frequencies_are_the_softmax_of_the_k_largest():
    """20,000 draws agree with the probabilities, and classes outside the top k never come."""
    rng, sampler, sampling = np.random.default_rng(1), Sampler(5), Sampling(0.7, 3)
    counts = np.bincount([sampler.sample(LOGITS, sampling, rng) for _ in range(20_000)], minlength=5)
    kept = np.array([0, 1, 3])
    weights = np.exp(LOGITS[kept] / 0.7)
    np.testing.assert_allclose(counts[kept] / counts.sum(), weights / weights.sum(), atol=0.02)
    assert counts[2] == counts[4] == 0


def chi_square(counts, chances):
    """How far counts are from their expectation, in standard deviations of the statistic above its mean."""
    expected = chances * counts.sum()
    freedom = len(chances) - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


@pytest.mark.parametrize("top_k", [5, 50, 1000])
def test_draws_over_many_classes_pass_a_chi_square_test(top_k):
    """40,000 draws of 300 classes: frequencies are the softmax of the k largest, and nothing else ever comes."""
    logits = np.random.default_rng(5).standard_normal(300).astype(np.float32)
    rng, sampler, sampling = np.random.default_rng(6), Sampler(300), Sampling(0.9, top_k)
    counts = np.bincount([sampler.sample(logits, sampling, rng) for _ in range(40_000)], minlength=300)
    kept = np.sort(np.argsort(logits)[-top_k:])
    weights = np.exp(logits[kept].astype(np.float64) / 0.9)
    assert counts.sum() == counts[kept].sum()
    assert abs(chi_square(counts[kept], weights / weights.sum())) < 5


@pytest.mark.parametrize(("top_k", "chances"), [(2, [1 / 3, 1 / 3, 0, 1 / 3]), (3, [1 / 3, 1 / 3, 0, 1 / 3])])
def test_classes_of_the_same_logit_are_equally_likely(top_k, chances):
    """Three share the largest logit: each comes a third of the time, though at k = 2 one has no place among them."""
    logits = np.array([1.5, 1.5, -2.0, 1.5], np.float32)
    rng, sampler, sampling = np.random.default_rng(8), Sampler(4), Sampling(1.0, top_k)
    counts = np.bincount([sampler.sample(logits, sampling, rng) for _ in range(12_000)], minlength=4)
    np.testing.assert_allclose(counts / counts.sum(), chances, atol=0.02)


@given(st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=40), st.integers(1, 60), st.floats(0, 2))
def test_excluded_classes_never_come(values, top_k, temperature):
    """-inf excludes a class whatever the settings; the logits are left alone."""
    logits = np.array([*values, -np.inf], np.float32)
    before = logits.copy()
    code = Sampler(len(logits)).sample(logits, Sampling(temperature, top_k), np.random.default_rng(3))
    assert 0 <= code < len(values)
    np.testing.assert_array_equal(logits, before)


def test_sampling_allocates_no_arrays():
    """After the first call nothing of the size of the logits is allocated."""
    logits = np.random.default_rng(0).standard_normal(4096).astype(np.float32)
    rng, sampler, sampling = np.random.default_rng(1), Sampler(4096), Sampling(0.9, 50)
    sampler.sample(logits, sampling, rng)
    tracemalloc.start()
    for _ in range(20):
        sampler.sample(logits, sampling, rng)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4096


@pytest.mark.parametrize(("temperature", "top_k"), [(-0.1, 5), (2.1, 5), (1.0, 0), (1.0, 1001), (float("nan"), 5)])
def test_settings_out_of_range_are_refused(temperature, top_k):
    """A bad setting is a bad request."""
    with pytest.raises(BadRequestError):
        Sampling(temperature, top_k)
