"""Noise schedules: published numbers in float64, laws that every schedule obeys, refusals."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_lib import Schedule, beta_tilde, cosine, linear, log_linear, quadratic, sigmoid, straight
from ddpm_lib.diffusion import schedules

LENGTHS = (1, 2, 10, 50, 100, 1000)
shipped = pytest.mark.parametrize(
    "make", schedules.ALL, ids=[f.__name__ for f in schedules.ALL]
)  # the shipped schedules, whatever they are


@pytest.fixture
def ho():
    """Made in the test and not once for all: then a test sees it, too, if the schedule itself is broken."""
    return linear(1000)


def unscaled(T):
    """β from 1e-4 to 0.02 with T lowered and nothing else changed: the report's way."""
    return torch.linspace(1e-4, 0.02, T, dtype=torch.float64)


# --- numbers of the literature ------------------------------------------------------------------------


def test_ho_alpha_bar(ho):
    exact = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000, dtype=np.longdouble)).astype(np.float64)
    ours = ho.alpha_bar(torch.arange(1, 1001)).numpy()
    np.testing.assert_allclose(ours, exact, rtol=1e-12)
    pinned = {1: 0.9999, 10: 0.9981052048, 100: 0.8970181457, 250: 0.5240853738, 500: 0.0785872429}
    for t, value in (pinned | {750: 0.0033505504}).items():
        assert float(ho.alpha_bar(t)) == pytest.approx(value, abs=5.1e-11)
    assert float(ho.alpha_bar(1000)) == pytest.approx(4.035829765e-5, rel=1e-9)
    assert float(ho(torch.tensor([1000]), torch.float64)[0]) == pytest.approx(6.352818088e-3, rel=1e-9)
    assert float(ho.log_alpha_bar(1000)) == pytest.approx(-10.1177135424, rel=1e-9)


def test_ho_beta(ho):
    np.testing.assert_allclose(ho.beta(torch.arange(1, 1001)), np.linspace(1e-4, 0.02, 1000), rtol=1e-9)
    assert float(ho.beta(2)) == pytest.approx(1.199199199e-4, rel=1e-9)
    assert float((1 - ho.beta(torch.arange(1, 1001))).sqrt().min()) == pytest.approx(0.989949, abs=5e-7)


def test_ho_snr(ho):
    assert float(ho.snr(1)) == pytest.approx(9999, rel=1e-9)
    assert float(ho.snr(1000)) == pytest.approx(4.0359926512e-5, rel=1e-9)
    assert float(ho.log_snr(1)) == pytest.approx(math.log(9999), rel=1e-9)
    assert float(ho.log_snr(1000)) == pytest.approx(-10.1176732, rel=1e-8)
    assert int((ho.snr(torch.arange(1, 1001)) < 1).nonzero()[0]) + 1 == 260
    assert torch.isinf(ho.snr(0))


def test_ho_posterior_variance(ho):
    assert float(beta_tilde(ho, 1, 0)) == 0
    assert float(beta_tilde(ho, 2, 1)) == pytest.approx(5.4531876613e-5, rel=1e-9)
    assert float(beta_tilde(ho, 1000, 999)) == pytest.approx(0.0199999835266, rel=1e-9)
    ratios = {2: 0.454736, 3: 0.611336, 10: 0.852845, 50: 0.963911, 100: 0.981914}
    for t, ratio in ratios.items():
        assert float(beta_tilde(ho, t, t - 1) / ho.beta(t)) == pytest.approx(ratio, abs=6e-7)
    assert float(1 - beta_tilde(ho, 1000, 999) / ho.beta(1000)) == pytest.approx(8.2367e-7, rel=1e-4)


@pytest.mark.parametrize(
    ("T", "last", "first_beta", "second_last_beta", "second_tilde"),
    [
        (50, 9.7119e-7, 0.00174751, 0.749757, 0.00118720),
        (100, 2.4286e-7, 6.3128e-4, 0.749939, 4.0349e-4),
        (1000, 2.428766907e-9, 4.1284e-5, 0.749999, 2.1789e-5),
    ],
)
def test_cosine_numbers(T, last, first_beta, second_last_beta, second_tilde):
    schedule = cosine(T)
    betas = schedule.beta(torch.arange(1, T + 1))
    assert float(schedule.alpha_bar(T // 2)) == pytest.approx(0.4938435904, rel=1e-9)
    assert float(schedule.alpha_bar(T)) == pytest.approx(last, rel=1e-9 if T == 1000 else 2e-5)
    assert float(betas[0]) == pytest.approx(first_beta, rel=2e-5)
    assert float(betas[-2]) == pytest.approx(second_last_beta, rel=2e-6)
    assert float(beta_tilde(schedule, 2, 1)) == pytest.approx(second_tilde, rel=3e-5)
    assert float(betas[-1]) == pytest.approx(0.999, rel=1e-9) and int((betas > 0.998).sum()) == 1


def test_cosine_beta_has_the_accuracy_that_a_float32_table_loses():
    t = torch.arange(1, 1000, dtype=torch.float64)
    now, before = (math.pi / 2 * (u / 1000 + 0.008) / 1.008 for u in (t, t - 1))
    exact = torch.sin(now + before) * torch.sin(now - before) / torch.cos(before) ** 2  # cos²u - cos²v, no cancellation
    schedule = cosine(1000)

    def worst(beta):
        return float((beta.double() / exact - 1).abs().max())

    table = schedule.alpha_bar(torch.arange(1000)).float()
    assert worst(schedule.beta(t.long()).float()) < 1e-6
    assert worst(1 - table[1:] / table[:-1]) > 3e-4  # the negative control


def test_linear_unscaled_leaves_signal_and_says_so():
    with pytest.warns(UserWarning, match=r"At t = T = 300 .* 21\.9% of the signal's amplitude .*more than 5%"):
        schedule = Schedule.from_betas(unscaled(300))
    assert float(schedule.alpha_bar(300)) == pytest.approx(0.0480584, rel=1e-6)
    expected = {50: 0.602952, 100: 0.363563, 500: 0.00635271}
    for T, value in expected.items():
        with pytest.warns(UserWarning, match="signal's amplitude"):
            assert float(Schedule.from_betas(unscaled(T)).alpha_bar(T)) == pytest.approx(value, rel=2e-6)


def test_the_warning_stands_at_the_stated_share():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Schedule.from_alpha_bar(torch.tensor([1.0, 0.5, (0.999 * schedules.LEFTOVER) ** 2]))
    with pytest.warns(UserWarning):
        Schedule.from_alpha_bar(torch.tensor([1.0, 0.5, (1.001 * schedules.LEFTOVER) ** 2]))


@pytest.mark.parametrize("make", [linear, quadratic, log_linear])
def test_curves_end_at_the_same_place_for_any_T(make):
    ends = [float(make(T).log_alpha_bar(T)) for T in (*LENGTHS, 300, 4000)]
    assert np.ptp(ends) < 1e-9
    assert make is log_linear or float(make(10).alpha_bar(5)) == pytest.approx(float(make(1000).alpha_bar(500)))


def test_quadratic_is_quadratic():
    np.testing.assert_allclose(
        quadratic().beta(torch.arange(1, 1001)).sqrt(), np.linspace(0.01, math.sqrt(0.02), 1000), rtol=1e-9
    )


def test_sigmoid_follows_its_formula():
    tau = np.arange(100) / 100  # the last step is clipped
    f = 1 / (1 + np.exp(-3 + 6 * tau))
    end = 1 / (1 + np.exp(3))
    np.testing.assert_allclose(sigmoid(100).alpha_bar(torch.arange(100)), (f - end) / (f[0] - end), rtol=1e-9)


def test_straight_follows_the_line_of_flow_matching():
    """A signal on the line (1-τ)·x_0 + τ·ε, over its own size, is what the schedule makes of the two."""
    tau = torch.arange(1, 100, dtype=torch.float64) / 100  # the last step is clipped
    a, s = straight(100)(torch.arange(1, 100), torch.float64)
    size = ((1 - tau) ** 2 + tau**2).sqrt()
    torch.testing.assert_close(a.flatten(), (1 - tau) / size, rtol=1e-9, atol=0)
    torch.testing.assert_close(s.flatten(), tau / size, rtol=1e-9, atol=0)


@shipped
def test_a_shift_is_a_scaling_of_the_data(make):
    """Data exp(by/2) times as large on the schedule are the data on the shifted one, but for the size of x_t."""
    schedule, by, t = make(20), 1.0, torch.arange(1, 21)
    moved = schedule.shifted(by)
    torch.testing.assert_close(moved.log_snr(t), schedule.log_snr(t) + by, rtol=1e-9, atol=1e-7)
    (a, s), (a_moved, s_moved) = schedule(t, torch.float64), moved(t, torch.float64)
    torch.testing.assert_close(math.exp(by / 2) * a / s, a_moved / s_moved, rtol=1e-6, atol=0)
    assert float(moved.alpha_bar(0)) == 1
    torch.testing.assert_close(moved.shifted(-by).log_alpha_bar(t), schedule.log_alpha_bar(t), rtol=1e-7, atol=1e-12)


def test_a_shift_that_ends_too_early_warns_and_one_that_is_none_is_refused():
    with pytest.warns(UserWarning, match="still holds"):
        linear(50).shifted(8.0)
    with pytest.raises(ValueError, match="by must be a number"):
        linear(50).shifted(math.nan)


def test_log_linear_is_linear_in_log_snr():
    log_snr = log_linear(50, first=4.0, last=-8.0).log_snr(torch.arange(1, 51))
    np.testing.assert_allclose(log_snr, np.linspace(4, -8, 50), rtol=1e-9)


@shipped
def test_the_default_is_a_thousand_steps(make):
    assert make().T == 1000
    torch.testing.assert_close(make().log_alpha_bar(torch.arange(1001)), make(1000).log_alpha_bar(torch.arange(1001)))


def test_curves_have_double_precision():
    """What a table in single precision would get wrong: the smallest β, to its tenth digit."""
    f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(cosine().beta(torch.arange(1, 900)), 1 - f[1:900] / f[:899], rtol=1e-10)
    np.testing.assert_allclose(log_linear().log_snr(torch.arange(1, 1001)), np.linspace(9.21, -10.12, 1000), rtol=1e-9)


@pytest.mark.parametrize(
    "make, name",
    [
        (lambda: cosine(10, offset=math.nan), "offset"),
        (lambda: cosine(10, offset=-0.1), "offset"),
        (lambda: sigmoid(10, start="a"), "start"),
        (lambda: sigmoid(10, end=math.inf), "end"),
        (lambda: log_linear(10, first=None), "first"),
        (lambda: log_linear(10, last=math.nan), "last"),
        (lambda: linear(10).shifted(1001), "by"),
        (lambda: linear(10).shifted(-1001), "by"),
    ],
)
def test_what_is_refused_is_called_by_its_name(make, name):
    with pytest.raises((ValueError, TypeError), match=f"^{name} must"):
        make()


# --- laws ---------------------------------------------------------------------------------------------


@shipped
@pytest.mark.parametrize("T", LENGTHS)
def test_every_schedule_falls_from_one_to_almost_nothing(make, T):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no shipped schedule leaves too much at T
        schedule = make(T)
    ab = schedule.alpha_bar(torch.arange(T + 1))
    assert schedule.T == T and ab.shape == (T + 1,) and ab.dtype == torch.float64
    assert ab[0] == 1 and (ab.diff() < 0).all() and ab[-1] > 0
    assert ab[-1].sqrt() <= schedules.LEFTOVER
    beta = schedule.beta(torch.arange(1, T + 1))
    assert ((beta > 0) & (beta < 1)).all()
    torch.testing.assert_close(torch.cumprod(1 - beta, 0), ab[1:], rtol=1e-10, atol=0)
    torch.testing.assert_close(schedule.snr(torch.arange(1, T + 1)), ab[1:] / (1 - ab[1:]), rtol=1e-10, atol=0)


@shipped
@pytest.mark.parametrize("T", LENGTHS)
def test_signal_and_noise_keep_unit_power(make, T):
    t = torch.arange(T + 1)
    a, s = make(T)(t)
    assert a.shape == s.shape == (T + 1, 1, 1) and a.dtype == s.dtype == torch.float32
    assert (a**2 + s**2 - 1).abs().max() < 3e-7
    assert a[0] == 1 and s[0] == 0
    exact = make(T)(t, torch.float64)
    for single, double in zip((a, s), exact, strict=True):
        torch.testing.assert_close(single.double(), double, rtol=2e-6, atol=0)


@shipped
@pytest.mark.parametrize("T", LENGTHS)
def test_between_integers(make, T):
    schedule = make(T)
    whole = torch.arange(T + 1)
    assert torch.equal(schedule.log_alpha_bar(whole), schedule.log_alpha_bar(whole.double()))
    real = torch.linspace(0, T, 7 * T + 4, dtype=torch.float64)
    assert (schedule.log_alpha_bar(real).diff() < 0).all()
    middle = schedule.log_alpha_bar(whole[:-1] + 0.5)
    torch.testing.assert_close(middle, (schedule.log_alpha_bar(whole[1:]) + schedule.log_alpha_bar(whole[:-1])) / 2)


@shipped
@pytest.mark.parametrize("T", LENGTHS)
def test_at_log_snr_inverts_log_snr(make, T):
    schedule = make(T)
    t = torch.cat([torch.linspace(0.01, T, 5 * T + 3, dtype=torch.float64), torch.arange(1.0, T + 1)])
    torch.testing.assert_close(schedule.at_log_snr(schedule.log_snr(t)), t, rtol=1e-8, atol=1e-9)
    far = schedule.at_log_snr(torch.tensor([math.inf, 200.0, -200.0, -math.inf]))
    assert far.tolist() == [0, pytest.approx(0, abs=1e-6), T, T]


@shipped
def test_beta_of_a_longer_step_composes(make):
    schedule = make(100)
    t, s, u = torch.tensor([100, 60, 40.5]), torch.tensor([50, 59, 20.25]), torch.tensor([0, 1, 3.0])
    together = (1 - schedule.beta(t, s)) * (1 - schedule.beta(s, u))
    torch.testing.assert_close(1 - schedule.beta(t, u), together, rtol=1e-8, atol=0)


@shipped
@pytest.mark.parametrize("T", LENGTHS)
def test_noise_is_one_minus_alpha_bar(make, T):
    schedule = make(T)
    t = torch.cat([torch.arange(T + 1.0, dtype=torch.float64), torch.linspace(0, T, 50, dtype=torch.float64)])
    torch.testing.assert_close(schedule.noise(t), 1 - schedule.alpha_bar(t), rtol=0, atol=2e-16)
    assert schedule.noise(0) == 0


def test_noise_keeps_the_digits_that_a_difference_loses():
    schedule = Schedule.from_betas(torch.tensor([1e-12, 0.999], dtype=torch.float64))
    assert float(schedule.noise(1)) == pytest.approx(1e-12, rel=1e-12, abs=0)
    assert float(1 - schedule.alpha_bar(1)) != pytest.approx(1e-12, rel=1e-6, abs=0)  # the negative control


@shipped
@pytest.mark.parametrize("T", [1, 2, 50, 1000])
def test_beta_tilde_is_the_variance_of_bayes(make, T):
    """Precisions add: 1/(1-ᾱ_s) of x_s given x_0, and (ᾱ_t/ᾱ_s)/β of x_t given x_s."""
    schedule, whole = make(T), torch.arange(1, T + 1)
    real = torch.linspace(0.5, T, 30, dtype=torch.float64)
    for t, s in [(whole[1:], whole[:-1]), (real, 0.3 * real), (torch.tensor(T), torch.tensor(0.25))]:
        keep = schedule.alpha_bar(t) / schedule.alpha_bar(s)
        bayes = 1 / (1 / (1 - schedule.alpha_bar(s)) + keep / (1 - keep))
        torch.testing.assert_close(schedule.beta_tilde(t, s), bayes, rtol=1e-9, atol=0)
        assert torch.equal(beta_tilde(schedule, t, s), schedule.beta_tilde(t, s))
    assert torch.equal(schedule.beta_tilde(whole), schedule.beta_tilde(whole, whole - 1))  # the default is one step
    assert (schedule.beta_tilde(whole, 0) == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("t", [7, 7.25, torch.tensor([1, 7, 50]), torch.tensor([0.5, 7.25, 50])], ids=repr)
def test_what_a_denoiser_needs_to_know_of_its_times(t, dtype):
    schedule, xt = cosine(50), torch.zeros(3, 2, 4, dtype=dtype)
    found, a, s = schedule.at(t, xt)
    assert found.tolist() == torch.as_tensor(t).expand(3).tolist() == schedules.times(t, xt).tolist()
    assert a.shape == s.shape == (3, 1, 1) and a.dtype == s.dtype == dtype
    torch.testing.assert_close(a.flatten().double() ** 2, schedule.alpha_bar(found), rtol=1e-6, atol=0)
    torch.testing.assert_close(s.flatten().double() ** 2, schedule.noise(found), rtol=1e-6, atol=0)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.lists(st.floats(1e-6, 0.999), min_size=1, max_size=60))
def test_any_betas_come_back(betas):
    betas = torch.tensor(betas, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schedule = Schedule.from_betas(betas)
        again = Schedule.from_alpha_bar(schedule.alpha_bar(torch.arange(schedule.T + 1)))
    t = torch.arange(1, len(betas) + 1)
    torch.testing.assert_close(schedule.beta(t), betas, rtol=1e-7, atol=0)
    torch.testing.assert_close(again.beta(t), betas, rtol=1e-7, atol=0)


def test_a_schedule_is_immutable():
    table = torch.tensor([0.0, -3.0, -9.0])
    schedule = Schedule(table)
    table[1] = -5.0
    schedule.log_alpha_bar(torch.arange(3)).zero_()
    assert schedule.log_alpha_bar(torch.arange(3)).tolist() == [0, -3, -9]


def test_a_number_is_a_time(ho):
    assert float(ho.alpha_bar(1)) == float(ho.alpha_bar(1.0)) == float(ho.alpha_bar(torch.tensor([1])))
    assert repr(ho) == "Schedule(T=1000, √ᾱ_T=0.00635)"


# --- refusals -----------------------------------------------------------------------------------------


@shipped
@pytest.mark.parametrize("T", [0, -1, True, 2.0, "3", None])
def test_the_number_of_steps_is_a_positive_integer(make, T):
    with pytest.raises(ValueError, match=rf"number of steps T must be an integer from 1 to 1000000, got {T!r}\."):
        make(T)


@pytest.mark.parametrize(
    ("alpha_bar", "message"),
    [
        ([1.0, 0.5, 0.5], r"must fall at every step .* ᾱ_2 = 0\.5 comes after ᾱ_1 = 0\.5"),
        ([1.0, 0.5, 0.6, 0.7], r"must fall at every step .* ᾱ_2 = 0\.6 comes after ᾱ_1 = 0\.5"),
        ([1.0, 1.0, 0.1], r"must fall at every step .* ᾱ_1 = 1 comes after ᾱ_0 = 1"),
        ([1.0, 0.5, -0.1], r"stay above 0 .* ᾱ_2 = nan comes after ᾱ_1 = 0\.5"),
        ([1.0, 0.5, 0.0], r"stay above 0 .* ᾱ_2 = 0 comes after ᾱ_1 = 0\.5"),
        ([1.0, 1.2, 0.3], r"must fall at every step .* ᾱ_1 = 1\.2 comes after ᾱ_0 = 1"),
        ([1.0, 0.5, math.nan], r"but ᾱ_2 = nan comes after ᾱ_1 = 0\.5"),
        ([0.9, 0.5], r"T \+ 1 >= 2 values of log ᾱ, the first of them 0, got .* to -0\.105"),
        ([1.0], r"T \+ 1 >= 2 values of log ᾱ.*shape \(1,\)"),
        ([[1.0, 0.5]], r"T \+ 1 >= 2 values of log ᾱ.*shape \(1, 2\)"),
    ],
)
def test_tables_of_alpha_bar_that_are_refused(alpha_bar, message):
    with pytest.raises(ValueError, match=message):
        Schedule.from_alpha_bar(torch.tensor(alpha_bar))


@pytest.mark.parametrize(
    ("log_alpha_bar", "message"),
    [
        ([0.0, math.nan], "but ᾱ_1 = nan comes after ᾱ_0 = 1"),
        ([0.0, -1.0, -math.inf], "stay above 0 .* ᾱ_2 = 0 comes after"),
        ([0.0, -math.inf, -math.inf], "stay above 0 .* ᾱ_1 = 0 comes after"),
        ([-0.1, -1.0], r"T \+ 1 >= 2 values of log ᾱ, the first of them 0, got shape \(2,\)"),
        ([math.nan, -1.0], r"T \+ 1 >= 2 values of log ᾱ, the first of them 0, got shape \(2,\)"),
        ([0.0, -1.0, -0.5], "must fall at every step .* ᾱ_2"),
        ([0.0], r"T \+ 1 >= 2 values of log ᾱ, .* got shape \(1,\)"),
    ],
)
def test_tables_of_log_alpha_bar_that_are_refused(log_alpha_bar, message):
    with pytest.raises(ValueError, match=message):
        Schedule(torch.tensor(log_alpha_bar))


@pytest.mark.parametrize(
    ("betas", "message"),
    [
        ([], r"T \+ 1 >= 2 values of log ᾱ"),
        ([0.0], r"\(0 < β < 1\), but ᾱ_1 = 1 comes after ᾱ_0 = 1"),
        ([1.0], r"\(0 < β < 1\), but ᾱ_1 = 0 comes after ᾱ_0 = 1"),
        ([1.5], r"\(0 < β < 1\), but ᾱ_1 = nan comes after ᾱ_0 = 1"),
        ([0.1, -0.1], r"\(0 < β < 1\), but ᾱ_2 = 0\.99 comes after ᾱ_1 = 0\.9"),
        ([math.nan], r"\(0 < β < 1\), but ᾱ_1 = nan comes after ᾱ_0 = 1"),
    ],
)
def test_betas_that_are_refused(betas, message):
    with pytest.raises(ValueError, match=message):
        Schedule.from_betas(torch.tensor(betas))


def test_betas_are_one_row():
    with pytest.raises(ValueError, match=r"got shape \(1, 3\)"):
        Schedule.from_betas(torch.tensor([[0.1, 0.2]]))


@pytest.mark.parametrize("t", [-1, 1001, -0.001, 1000.5, math.nan, [3, 1001]])
def test_times_that_are_refused(t, ho):
    for method in (ho.alpha_bar, ho.log_alpha_bar, ho.snr, ho.log_snr):
        with pytest.raises(ValueError, match=r"t must lie in 0…1000, got values from"):
            method(torch.tensor(t))


@pytest.mark.parametrize(
    ("t", "message"),
    [
        (0, "A denoiser needs times in 0 < t <= 1000, got 0: there is no noise at 0"),
        (torch.tensor([5, 0]), "A denoiser needs times in 0 < t <= 1000, got 0"),
        (-1.5, "A denoiser needs times in 0 < t <= 1000, got -1.5"),
        (math.nan, "A denoiser needs times in 0 < t <= 1000, got nan"),
        (torch.tensor([5, 1001]), "t must lie in 0…1000, got values from 5 to 1001"),
    ],
)
def test_times_that_no_denoiser_is_asked_for(t, message, ho):
    with pytest.raises(ValueError, match=message):
        ho.at(t, torch.zeros(2, 1, 4))


def test_beta_starts_at_one(ho):
    with pytest.raises(ValueError, match=r"t must lie in 0…1000"):
        ho.beta(0)


def test_a_schedule_is_kept_in_float64_whatever_it_was_made_of():
    """Sums of a thousand logarithms in float32 would be off in the sixth digit."""
    betas = unscaled(1000).float()
    made = Schedule.from_betas(betas)
    assert made.alpha_bar(1000).dtype == torch.float64
    assert made.log_snr(torch.arange(1, 1001)).equal(Schedule.from_betas(betas.double()).log_snr(torch.arange(1, 1001)))
    table = made.alpha_bar(torch.arange(1001)).float()
    assert Schedule.from_alpha_bar(table).alpha_bar(700).item() == pytest.approx(table[700].item(), rel=1e-12)
    assert Schedule(table.log()).log_snr(700).item() == Schedule(table.log().double()).log_snr(700).item()


def test_a_time_is_found_in_float64(ho):
    level = ho.log_snr(317.25).float()
    assert ho.at_log_snr(level).dtype == torch.float64
    assert ho.at_log_snr(level).item() == ho.at_log_snr(level.double()).item()


def test_levels_beyond_the_schedule_are_its_ends(ho):
    assert ho.at_log_snr(torch.tensor([math.inf, 1e9, -60.0, -math.inf])).tolist() == [0, 0, 1000, 1000]
    assert ho.at_log_snr(torch.tensor(math.nan)).isnan()


def test_the_warning_points_at_who_asked():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        Schedule.from_betas(unscaled(300))
    assert [w.filename for w in said] == [__file__]
