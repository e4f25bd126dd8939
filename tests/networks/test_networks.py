"""Networks: shapes, gradients, what must not leak, and the linear skip that starts as the linear denoiser."""

import math

import pytest
import torch
from helpers import HO, rng
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_lib import BenchmarkMorlet, Block, Gaussian, LinearSkip, NoiseLevel, UNet1D, fit_gaussian
from ddpm_lib.exact import Wiener
from ddpm_lib.networks import Conditions, unet

every = pytest.mark.parametrize("kind", unet.ALL, ids=[k.__name__ for k in unet.ALL])
SIZES = dict(width=8, levels=3, blocks=1, patch=4, kernel=3, dim=16)


def awake(network, seed=0):
    """The network with all its weights at random: what starts at zero would hide the rest."""
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=rng(seed)))
    return network


def noise(*shape, seed=0):
    return torch.randn(shape, generator=rng(seed))


def make(kind, channels=1, **sizes):
    return awake(kind(channels, channels, **sizes) if sizes else kind(channels, channels))


@every
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("length", [1, 100, 127, 128, 256])
def test_output_has_the_shape_of_the_input(kind, channels, length):
    network = make(kind, channels)
    for batch in (1, 3):
        out = network(noise(batch, channels, length), torch.linspace(-9, 9, batch))
        assert out.shape == (batch, channels, length) and out.isfinite().all()


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.integers(1, 70), st.integers(1, 3), st.integers(1, 5), st.sampled_from([1, 3, 5]))
def test_any_length_any_sizes(length, levels, patch, kernel):
    network = UNet1D(2, 1, width=4, levels=levels, blocks=1, patch=patch, kernel=kernel, dim=4)
    assert network(noise(2, 2, length), torch.zeros(2)).shape == (2, 1, length)


@every
def test_a_gradient_reaches_every_weight(kind):
    network = make(kind)
    network(noise(3, 1, 64), torch.tensor([-5.0, 0.0, 5.0])).square().sum().backward()
    for name, p in network.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0, name


@every
def test_signals_of_a_batch_do_not_see_each_other(kind):
    network, x, level = make(kind).double(), noise(4, 1, 50).double(), torch.tensor([-6.0, -1.0, 2.0, 8.0]).double()
    together = network(x, level)
    for k in range(4):
        torch.testing.assert_close(network(x[k : k + 1], level[k : k + 1])[0], together[k], rtol=1e-9, atol=1e-9)


@every
def test_the_noise_level_matters_and_nothing_else_does(kind):
    network, x = make(kind), noise(2, 1, 64)
    one = network(x, torch.tensor([0.0, 3.0]))
    torch.manual_seed(7)
    assert torch.equal(one, network.eval()(x.clone(), torch.tensor([0.0, 3.0])))
    other = network(x, torch.tensor([0.0, 3.3]))
    assert torch.equal(other[0], one[0]) and (other[1] - one[1]).abs().max() > 1e-4


def test_an_odd_length_is_a_padded_one_that_is_cut():
    network = make(UNet1D, **SIZES, position=False)  # cuts into multiples of 16
    for length in (1, 15, 17, 127):
        x = noise(2, 1, length)
        padded = torch.cat([x, torch.zeros(2, 1, -length % 16)], 2)
        assert torch.equal(network(x, torch.ones(2)), network(padded, torch.ones(2))[..., :length])


@pytest.mark.parametrize("length", [1, 15, 64, 127])
def test_it_is_told_where_along_the_signal_it_is(length):
    """A network that is told is one that is not, with one channel more: from -1 to 1 over the signal, at any length."""
    told, untold = make(UNet1D, **SIZES), UNet1D(2, 1, **SIZES, position=False)
    untold.load_state_dict(told.state_dict())
    x = noise(2, 1, length)
    where = torch.linspace(-1, 1, length).expand(2, 1, -1)
    assert torch.equal(told(x, torch.ones(2)), untold(torch.cat([x, where], 1), torch.ones(2)))


def test_what_was_known_at_each_level_comes_back():
    """With the way up from below cut off, the skip alone carries the signal through."""
    x, level = noise(1, 1, 64), torch.zeros(1)
    network = make(UNet1D, **(SIZES | dict(levels=2)))
    with torch.no_grad():
        whole = network(x, level)
        for p in network.grow.parameters():
            p.zero_()
        skip = network(x, level)
        assert (skip - network(0 * x, level)).abs().max() > 1e-3 and (skip - whole).abs().max() > 1e-3


def test_receptive_field():
    """A far sample has no say; with more levels it has."""

    def reach(levels):
        network = make(UNet1D, **(SIZES | dict(levels=levels))).double()
        for module in network.modules():
            if isinstance(module, torch.nn.GroupNorm):  # sees the whole signal
                module.register_forward_hook(lambda module, args, out: args[0])
        x = noise(1, 1, 512).double().requires_grad_()
        network(x, torch.zeros(1).double())[0, 0, 256].backward()
        seen = x.grad[0, 0].nonzero()[:, 0]
        return int(seen.max() - seen.min()) + 1

    fields = [reach(levels) for levels in (1, 2, 3)]
    assert fields[0] == 12 and fields[0] < fields[1] < fields[2] < 512


def test_a_new_network_says_zero_and_a_new_block_nothing():
    assert UNet1D()(noise(2, 1, 128), torch.zeros(2)).abs().max() == 0
    block, x = Block(6, 5, 4), noise(2, 6, 9)
    assert torch.equal(block(x, noise(2, 4)), x)


def test_noise_levels_are_told_apart():
    level = NoiseLevel(16)
    emb = level(HO.log_snr(torch.arange(1, 1001), torch.float32))
    assert emb.shape == (1000, 16)
    waves = HO.log_snr(torch.arange(1, 1001), torch.float32)[:, None] * level.freqs
    features = torch.cat([waves.sin(), waves.cos()], 1)
    far = torch.cdist(features[::50], features[::50]) + 100 * torch.eye(20)
    assert far.min() > 0.3


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (dict(kernel=4), "must be odd"),
        (dict(width=0), "must be an integer from 1"),
        (dict(levels=0), "must be an integer from 1"),
        (dict(patch=0), "must be an integer from 1"),
        (dict(in_channels=0), "must be an integer from 1"),
        (dict(blocks=-1), "must be an integer from 1"),
    ],
)
def test_sizes_that_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        UNet1D(**sizes)


@every
def test_conditions_of_a_network_without_them_are_refused(kind):
    with pytest.raises(ValueError, match="built without conditions: call it with cond=None"):
        kind(2, 1)(noise(3, 2, 64), torch.zeros(3), noise(3, 1))


# --- the linear skip ----------------------------------------------------------------------------------


class Says(torch.nn.Module):
    """A network that says one number, and notes what it was shown."""

    def __init__(self, value):
        super().__init__()
        self.value, self.shown = value, None

    def forward(self, x, log_snr, cond):
        self.shown = x
        return torch.full_like(x[:, : x.shape[1] // 2], self.value)


@pytest.fixture(scope="module")
def gaussian():
    x0 = BenchmarkMorlet(length=96).sample(2000, rng())[0].double()
    return Gaussian(*fit_gaussian(x0 + 0.1), HO)


@every
def test_an_untrained_skip_is_the_linear_denoiser(kind, gaussian):
    t, xt = torch.tensor([1, 10, 300, 999, 1000]), noise(5, 1, 96).double()
    skip = LinearSkip(kind(2, 1).double(), gaussian.wiener)
    eps = skip(xt, HO.log_snr(t), None)
    torch.testing.assert_close(eps, gaussian(xt, t).eps, rtol=1e-6, atol=1e-8)
    assert len([n for n, _ in skip.named_parameters() if not n.startswith("network.")]) == 0


def test_the_network_corrects_by_what_the_linear_denoiser_leaves(gaussian):
    """Told to be one everywhere, it moves ε̂ by the root of the linear denoiser's own loss; it sees unit size."""
    t = torch.tensor([1, 100, 500, 1000])
    x0 = gaussian.wiener.mean + (noise(4000, 96).double() * gaussian.wiener.power.sum().sqrt() / 96**0.5).view(
        -1, 1, 96
    )
    a, s = (v[:, 0] for v in HO(t, torch.float64))
    network = Says(1.0)
    skip = LinearSkip(network, gaussian.wiener)
    xt = noise(4, 1, 96).double()
    moved = skip(xt, HO.log_snr(t)) - gaussian(xt, t).eps
    torch.testing.assert_close(moved.square().mean((1, 2)), gaussian.floor(t), rtol=1e-6, atol=0)
    for k in range(4):
        noisy = a[k] * x0 + s[k] * noise(*x0.shape, seed=k + 1).double()
        skip(noisy, HO.log_snr(t[k : k + 1]).expand(len(x0)))
        assert network.shown.shape == (4000, 2, 96)
        assert float(network.shown[:, 0].square().mean()) == pytest.approx(1, abs=0.02)


def test_a_skip_of_two_channels():
    x0 = noise(500, 2, 40)
    skip = LinearSkip(make(UNet1D, 4), Wiener(*fit_gaussian(x0)))
    skip.network = UNet1D(4, 2, **SIZES)
    assert skip(noise(3, 2, 40), torch.zeros(3)).shape == (3, 2, 40)


# --- conditions -------------------------------------------------------------------------------------------

RANGES = [(-2.0, 2.0), (0.4, 1.0)]


def test_nothing_asked_is_all_nan():
    network, x, level = make(UNet1D, **SIZES, conditions=RANGES), noise(3, 1, 40), torch.tensor([-5.0, 0.0, 5.0])
    assert torch.equal(network(x, level), network(x, level, torch.full((3, 2), math.nan)))


def test_every_parameter_is_heard_alone_and_together():
    network, x, level = make(UNet1D, **SIZES, conditions=RANGES), noise(1, 1, 40), torch.zeros(1)
    nan = math.nan
    questions = [[nan, nan], [0.5, nan], [nan, 0.5], [0.5, 0.5], [0.6, 0.5], [0.5, 0.6], [-0.5, 0.5]]
    answers = [network(x, level, torch.tensor([q])) for q in questions]
    apart = torch.cdist(torch.cat(answers).flatten(1), torch.cat(answers).flatten(1)) + torch.eye(len(answers))
    assert apart.min() > 1e-3


def test_an_embedding_of_conditions_sees_places_in_the_range_and_not_units():
    one, other = (Conditions([(low, 2 * low)], 16) for low in (1.0, 1000.0))
    other.load_state_dict({k: v if k not in ("low", "high") else 1000 * v for k, v in one.state_dict().items()})
    torch.testing.assert_close(one(torch.tensor([[1.3]])), other(torch.tensor([[1300.0]])), rtol=1e-4, atol=1e-4)


def test_questions_do_not_leak_between_signals_and_gradients_are_finite():
    network, x = make(UNet1D, **SIZES, conditions=RANGES), noise(2, 1, 40)
    cond = torch.tensor([[math.nan, 0.5], [1.0, math.nan]])
    both = network(x, torch.zeros(2), cond)
    torch.testing.assert_close(both[1:], network(x[1:], torch.zeros(1), cond[1:]), rtol=1e-4, atol=1e-5)
    both.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
