import copy
import math
import os
import pickle
import random
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy import stats

from fedsynth.privacy import secure_rng
from fedsynth.privacy.secure_rng import InsecureRandomness, SecretRandomness


@pytest.mark.parametrize("n", [3, 4])
def test_gaussian_is_box_muller_of_the_aes_keystream(n):
    """Slow oracle: the same cipher by hand, one pair at a time."""
    key = bytes(range(32))
    source = secure_rng._KeyedRandomness(key)
    made = source.gaussian((n,), 2.0)
    words = np.frombuffer(Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(32)), np.uint64)
    radii = [math.sqrt(-2 * math.log((int(word) + 0.5) * 2.0**-64)) for word in words[:2]]
    turns = [2 * math.pi * (int(word) >> 11) * 2.0**-53 for word in words[2:]]
    by_hand = [r * math.cos(a) for r, a in zip(radii, turns, strict=True)]
    by_hand += [r * math.sin(a) for r, a in zip(radii, turns, strict=True)]
    np.testing.assert_allclose(made.numpy(), 2 * np.array(by_hand)[:n], rtol=1e-9, atol=1e-12)


def keystream(key, n):
    return np.frombuffer(Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(8 * n)), np.uint64)


def test_every_distribution_reads_the_keystream_word_by_word_also_across_chunks():
    """Slow oracle, past one full pass: no word is skipped, read twice or left from before."""
    key, n = bytes(range(32)), secure_rng._CHUNK + 3
    words = keystream(key, n + 1)
    source = lambda: secure_rng._KeyedRandomness(key)  # noqa: E731
    np.testing.assert_array_equal(source().uniform((n,)).numpy(), (words[:n] >> np.uint64(40)) * 2.0**-24)
    draws = torch.cat([one.uniform((k,)) for one in (source(),) for k in (5, 7)])
    np.testing.assert_array_equal(draws.numpy(), (words[:12] >> np.uint64(40)) * 2.0**-24)
    np.testing.assert_array_equal(source().chosen(n, 0.25).numpy(), np.flatnonzero(words[:n] < 2**62))
    np.testing.assert_array_equal(source().integers(1000, (n,)).numpy(), words[:n] % np.uint64(2**63) % np.uint64(1000))
    half, passes = (n + 1) // 2, [0, secure_rng._CHUNK // 2]
    made, by_hand = source().gaussian((n,), 3.0).numpy(), np.empty(n + 1)
    for start, stop in zip(passes, [*passes[1:], half], strict=True):
        first, second = words[2 * start : start + stop], words[start + stop : 2 * stop]
        radius = 3 * np.sqrt(-2 * np.log((first + 0.5) * 2.0**-64))
        angle = 2 * np.pi * (second >> np.uint64(11)) * 2.0**-53
        by_hand[start:stop] = radius * np.cos(angle)
        by_hand[half + start : half + stop] = radius * np.sin(angle)
    np.testing.assert_allclose(made, by_hand[:n], rtol=1e-9, atol=1e-11)


def test_the_smallest_word_reaches_nine_standard_deviations_and_the_largest_is_finite():
    least, most = secure_rng._positive_uniform(torch.tensor([0, -1]))
    assert least == 2.0**-65
    assert math.sqrt(-2 * math.log(least)) > 9.4
    assert most == 1.0


def test_gaussian_has_the_normal_distribution_also_across_chunks():
    values = SecretRandomness().gaussian((3, 100_001), 5.0)
    assert values.dtype == torch.float64
    assert values.shape == (3, 100_001)
    assert stats.kstest(values.flatten().numpy() / 5.0, "norm").pvalue > 1e-9
    first, second = values[0][:100_000].view(2, -1)  # a repeated chunk or a shared angle would correlate
    assert abs(float(np.corrcoef(first, second)[0, 1])) < 6 / math.sqrt(50_000)


def test_normal_values_are_standard():
    assert stats.kstest(SecretRandomness().normal((50_000,)).numpy(), "norm").pvalue > 1e-9


def test_a_poisson_draw_tosses_one_coin_per_patient():
    source = SecretRandomness()
    draws = [source.chosen(50, 0.3) for _ in range(4000)]
    counts = np.array([len(draw) for draw in draws])
    each = np.bincount(torch.cat(draws).numpy(), minlength=50)
    assert abs(counts.mean() - 15) < 6 * math.sqrt(10.5 / 4000)
    assert 0.8 < counts.var() / 10.5 < 1.25  # a fixed-size draw would have variance 0
    assert np.abs(each - 1200).max() < 6 * math.sqrt(4000 * 0.21)
    assert all((draw.diff() > 0).all() for draw in draws)


def test_rate_one_takes_everybody_and_nobody_is_no_special_case():
    source = SecretRandomness()
    assert source.chosen(7, 1.0).tolist() == list(range(7))
    assert source.chosen(0, 0.5).tolist() == []


def test_uniform_and_integers_cover_their_ranges_evenly():
    source = SecretRandomness()
    uniform = source.uniform((50_000,))
    assert uniform.dtype == torch.float32
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert stats.kstest(uniform.numpy(), "uniform").pvalue > 1e-9
    for high in (2, 7):
        counts = np.bincount(source.integers(high, (70_000,)).numpy(), minlength=high)
        assert len(counts) == high
        assert stats.chisquare(counts).pvalue > 1e-9


def test_no_uniform_value_rounds_up_to_one():
    class Largest(InsecureRandomness):
        def _uniform(self, n):
            return torch.full((n,), 1 - 2.0**-53, dtype=torch.float64)

    assert Largest(1).uniform((3,)).max() < 1


def test_nothing_secret_is_seeded_by_the_experiment():
    def draw():
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002 - the trap is exactly this global seed
        random.seed(1)
        source = SecretRandomness()
        return source.gaussian((5,), 1.0), source.chosen(200, 0.5).tolist(), source.uniform((5,))

    (noise, patients, views), (other_noise, other_patients, other_views) = draw(), draw()
    assert not torch.equal(noise, other_noise)
    assert patients != other_patients
    assert not torch.equal(views, other_views)


def test_secret_randomness_leaves_the_experiments_streams_alone():
    before = torch.get_rng_state()
    SecretRandomness().normal((3,))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("leak", [pickle.dumps, copy.copy, copy.deepcopy])
def test_secret_randomness_is_never_copied_or_written_down(leak):
    with pytest.raises(TypeError, match="never copied"):
        leak(SecretRandomness())


def _send(source, pipe):
    pipe.send(source.gaussian((4,), 1.0).tolist())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_draws_another_stream():
    """Two processes with one key would add the same noise, and their difference would be noise-free."""
    context = get_context("fork")
    source = SecretRandomness()
    receiver, sender = context.Pipe()
    child = context.Process(target=_send, args=(source, sender))
    child.start()
    theirs = receiver.recv()
    child.join()
    stream = source._stream
    assert theirs != source.gaussian((4,), 1.0).tolist()
    assert source._stream is stream  # its own process goes on with the key that it has


def test_the_insecure_source_repeats_and_says_that_it_is_not_private():
    assert torch.equal(InsecureRandomness(3).normal((9,)), InsecureRandomness(3).normal((9,)))
    assert not torch.equal(InsecureRandomness(3).normal((9,)), InsecureRandomness(4).normal((9,)))
    assert not torch.equal(InsecureRandomness(3, "a").normal((9,)), InsecureRandomness(3, "b").normal((9,)))
    assert SecretRandomness().private
    assert not InsecureRandomness(3).private
