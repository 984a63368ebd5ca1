"""Spectra, quantizer, networks and discriminators of the codec."""

import numpy as np
import pytest
import torch
from codec_scene import SIZES, codec

from training.discriminators import Discriminators, feature_loss, fooling_loss, verdict_loss
from training.quantizer import ResidualQuantizer
from training.spectra import Magnitudes, Reconstruction, synthesis

FRAME = 1920


def test_magnitudes_are_those_of_the_fourier_transform_and_so_are_their_gradients():
    """White noise of RMS 1 has magnitude 1; the written-out gradient is the derived one."""
    torch.manual_seed(0)
    audio = torch.randn(2, 4 * 960, requires_grad=True)
    magnitudes = Magnitudes(960, 12000.0)
    found = magnitudes(audio)
    assert found.shape == (2, 16, 481)
    assert found.square().mean().sqrt().item() == pytest.approx(1, abs=0.05)
    weights = torch.rand_like(found)
    (written,) = torch.autograd.grad((found * weights).sum(), audio)
    padded = torch.nn.functional.pad(audio, (360, 360))
    plain = torch.fft.rfft(padded.unfold(1, 960, 240) * magnitudes.window).abs()
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-3)
    (derived,) = torch.autograd.grad((plain * weights).sum(), audio)
    torch.testing.assert_close(written, derived, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("bins", [5, 9])
def test_synthesis_has_the_right_gradient(bins):
    """Checked against differences, with and without the topmost bin."""
    torch.manual_seed(0)
    parts = torch.randn(1, 3, bins, 2, dtype=torch.float64, requires_grad=True)
    window = torch.hann_window(16, dtype=torch.float64)
    assert synthesis(parts, window).shape == (1, 6 * 4)
    assert torch.autograd.gradcheck(lambda x: synthesis(x, window), parts)


def test_distances_are_zero_for_the_same_and_grow_with_noise():
    """More noise is further away by both measures."""
    torch.manual_seed(0)
    compare, audio = Reconstruction(7600.0), torch.randn(1, 2 * FRAME) * 0.1
    wanted = compare.magnitudes(audio)
    each = [compare(audio + level * torch.randn_like(audio), wanted) for level in (0.0, 0.01, 0.1)]
    assert each[0].mel.item() == pytest.approx(0, abs=1e-5)
    assert each[0].mel < each[1].mel < each[2].mel
    assert each[0].spectrum < each[1].spectrum < each[2].spectrum


def trained_quantizer(points: torch.Tensor) -> ResidualQuantizer:
    """Started and moved a few times by ``points`` [B, T, E]."""
    quantizer = ResidualQuantizer(3, 16, points.shape[-1])
    quantizer.start(points.flatten(0, 1), points.shape[0] * points.shape[1])
    depth = torch.full((len(points),), 3)
    for _ in range(20):
        quantizer(points, depth)
        quantizer.update()
    return quantizer


def test_every_codebook_brings_the_sum_nearer():
    """What is left over falls with the number of codebooks."""
    torch.manual_seed(0)
    points = torch.randn(8, 64, 4)
    quantizer = trained_quantizer(points)
    codes = quantizer.codes(points.flatten(0, 1), 3)
    left = [(points.flatten(0, 1) - quantizer.look_up(codes[:, :depth])).square().mean() for depth in (1, 2, 3)]
    assert points.square().mean() > left[0] > left[1] > left[2]


def test_training_uses_the_depth_of_each_row_and_passes_the_gradient_on():
    """A row of depth d is the sum of d entries; latents get the gradient of that sum."""
    torch.manual_seed(0)
    points = torch.randn(3, 5, 4, requires_grad=True)
    quantizer = trained_quantizer(points.detach())
    found = quantizer(points, torch.tensor([1, 2, 3]))
    codes = quantizer.codes(points.detach().flatten(0, 1), 3).view(3, 5, 3)
    for row in range(3):
        torch.testing.assert_close(found.latents[row], quantizer.look_up(codes[row, :, : row + 1]))
    torch.testing.assert_close(found.first, quantizer.look_up(codes[..., :1]))
    (gradient,) = torch.autograd.grad(found.latents.sum(), points)
    assert torch.equal(gradient, torch.ones_like(points))
    assert quantizer.new[0].sum(1).tolist() == [15, 10, 5]


def test_entries_that_nobody_chooses_begin_anew_where_latents_are():
    """An entry far away is dead, and chosen after the restart."""
    torch.manual_seed(0)
    points = torch.randn(8, 64, 4)
    quantizer = trained_quantizer(points)
    quantizer.e[0, 3] = 1000.0
    quantizer._counts[0, 3] = 0.01
    quantizer._sums[0, 3] = 10.0
    quantizer(points, torch.full((8,), 3))
    quantizer.update()
    assert quantizer.used()[0] < 16
    quantizer.restart()
    assert quantizer.used()[0] == 16
    assert 3 in quantizer.codes(points.flatten(0, 1), 1)


def test_shapes_of_the_codec():
    """A frame is 1920 samples there and back, with any number of codebooks."""
    made = codec()
    codes = made.encode(torch.randn(2, 5 * FRAME) * 0.1)
    assert codes.shape == (2, 5, SIZES.num_codebooks)
    assert made.decode(codes).shape == (2, 5 * FRAME)
    assert torch.equal(made.encode(torch.zeros(1, FRAME), 2), made.encode(torch.zeros(1, FRAME))[..., :2])
    assert made.decode(codes[..., :1]).shape == (2, 5 * FRAME)


def test_no_sample_depends_on_a_later_frame():
    """Decoding the first frames alone gives the samples of decoding all, up to what the next windows add."""
    made = codec()
    codes = torch.randint(0, SIZES.codebook_size, (1, 12, SIZES.num_codebooks))
    whole = made.decode(codes)
    ahead = 360  # samples that windows of the next frame reach back
    for frames in (1, 5, 11):
        samples = frames * FRAME - ahead
        torch.testing.assert_close(made.decode(codes[:, :frames])[:, :samples], whole[:, :samples], atol=1e-6, rtol=0)


def test_above_the_bandwidth_there_is_silence():
    """What flite cannot teach is not made up."""
    made = codec()
    audio = made.decode(torch.randint(0, SIZES.codebook_size, (1, 12, SIZES.num_codebooks)))[0].numpy()
    power = np.abs(np.fft.rfft(audio * np.hanning(len(audio)))) ** 2
    hz = np.fft.rfftfreq(len(audio), 1 / 24000)
    assert power[hz > 8000].mean() < 1e-6 * power[hz < 7600].mean()


def test_exported_tensors_are_the_decoder_with_the_first_codebooks():
    """The names are those that conversion reads; the encoder stays behind."""
    exported = codec().exported(2)
    assert exported["q.e"].shape == (2, SIZES.codebook_size, SIZES.width_latent)
    assert exported["dec.o.weight"].shape == (962, SIZES.width)
    assert {name.split(".")[0] for name in exported} == {"q", "dec"}


def test_discriminators_learn_to_tell_noise_from_tones():
    """A few steps of their loss make the verdicts differ, and features of the same speech do not differ."""
    torch.manual_seed(0)
    judges = Discriminators(7600.0)
    time = torch.arange(3 * FRAME) / 24000
    tones = torch.stack([0.1 * torch.sin(6.28 * hz * time) for hz in (200, 300)])
    noise = 0.1 * torch.randn(2, 3 * FRAME)
    optimizer = torch.optim.AdamW(judges.parameters(), 1e-3)
    first = None
    for _ in range(6):
        optimizer.zero_grad()
        ours, theirs = judges(judges.views(tones)), judges(judges.views(noise))
        loss = verdict_loss(ours, theirs)
        first = loss.item() if first is None else first
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.7 * first
    assert fooling_loss(theirs) > fooling_loss(ours)
    assert feature_loss(ours, ours).item() == 0 < feature_loss(ours, theirs).item()
