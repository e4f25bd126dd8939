"""The figures that compute in the page say what the library says: the built pages in Chromium against Python."""

import re

import pytest
import torch

from ddpm_lib import beta_tilde, cosine, gaussian_kl, linear, q_posterior, sigmoid
from ddpm_lib.figures.explorers import BoundExplorer, ForwardExplorer, PosteriorExplorer


def numbers(text):
    """The numbers of a sentence, in order; its typographic minus is one, too."""
    return [float(n) for n in re.findall(r"(?<![\w_])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", text.replace("−", "-"))]


def drag(slider, value):
    """What a reader's drag does: another value, and the event."""
    slider.evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input', { bubbles: true })); }", str(value))


@pytest.fixture(params=["http", "file"])
def figure(visit, request):
    def open_page(chapter):
        seen = visit(request.param, f"chapters/{chapter}.html")
        seen.players_are_ready()
        assert seen.tab.locator(".stage").count() == 1
        return seen, seen.tab.locator(".stage"), seen.tab.locator(".stage").get_by_role("status")

    return open_page


@pytest.mark.browser
def test_forward(figure):
    seen, stage, verdict = figure("forward_process")
    time = stage.locator("input[type=range]").first
    for T, make in ((1000, cosine), (50, cosine), (300, sigmoid)):
        stage.get_by_role("combobox", name="schedule").select_option(make.__name__)
        stage.get_by_role("combobox", name="steps T").select_option(str(T))
        for t in (1, T // 3, T - 1):
            drag(time, t)
            a, s = (float(v) for v in make(T)(torch.tensor([t])))
            said_a, said_s, *_ = numbers(re.sub(r"x_\w", "", verdict.text_content()))
            assert abs(said_a - a) < 6e-4 and abs(said_s - s) < 6e-4, verdict.text_content()
    stage.get_by_role("combobox", name="schedule").select_option("linear, β not rescaled")
    stage.get_by_role("combobox", name="steps T").select_option("300")
    drag(time, 300)
    assert "21.9 % of the amplitude" in verdict.text_content()  # ᾱ_T = 0.0480584
    old = stage.locator("polyline").first.get_attribute("points")
    stage.get_by_role("button").click()
    assert stage.locator("polyline").first.get_attribute("points") != old
    assert not seen.errors


@pytest.mark.browser
def test_posterior(figure):
    seen, stage, verdict = figure("reverse_process")
    time, clean, noisy = stage.locator("input[type=range]").all()
    for T in (10, 1000):
        stage.get_by_role("combobox", name="steps T").select_option(str(T))
        for t, x0, xt in ((2, 1.5, -0.5), (T // 2, -1.0, 2.0), (T, 0.5, 0.5)):
            for slider, value in ((time, t), (clean, x0), (noisy, xt)):
                drag(slider, value)
            as_signal = (torch.full((1, 1, 1), v, dtype=torch.float64) for v in (x0, xt))
            law = q_posterior(*as_signal, torch.tensor([t]), linear(T))
            _, _, mean, deviation, beta, tilde = numbers(re.sub(r"x_\w", "", verdict.text_content()))
            assert abs(mean - law.mean.item()) < 6e-3 and abs(deviation - law.var.item() ** 0.5) < 6e-4
            assert abs(beta / linear(T).beta(t).item() - 1) < 0.06 and abs(tilde / law.var.item() - 1) < 0.06
    assert not seen.errors


@pytest.mark.browser
def test_bound(figure):
    """Its sums are those of `gaussian_kl`, from the errors that its page carries."""
    seen, stage, verdict = figure("the_bound")
    choose, mix = stage.get_by_role("combobox", name="variance"), stage.locator("input[type=range]")
    totals = {}
    for who in ("exact", "linear"):
        stage.get_by_role("combobox", name="denoiser").select_option(label=who)
        for v in (0.0, 0.5, 1.0):
            drag(mix, v)
            totals[who, v] = numbers(verdict.text_content())[-2:]
        choose.select_option("best")
        totals[who, "best"] = numbers(verdict.text_content())[-2:]
        assert mix.is_hidden()
        choose.select_option("mixed")
    assert all(chosen >= least - 1e-3 for chosen, least in totals.values())
    assert totals["exact", "best"][0] == totals["exact", 0.0][1] < totals["linear", "best"][0]
    assert len({chosen for chosen, _ in totals.values()}) == 8
    assert not seen.errors


def test_the_bound_s_arithmetic():
    """The JavaScript's formula in Python: L_t by D11, with the squared distance of the means from ‖x_0 - x̂_0‖²."""
    schedule, dim = linear(1000), 128
    widget = BoundExplorer({"a guess": torch.linspace(1, 5, 1000)}, schedule, dim)
    logs, error = torch.frombuffer(bytearray(widget.tables), dtype=torch.float64).view(2, 1001)
    torch.testing.assert_close(logs, schedule.log_alpha_bar(torch.arange(1001)))
    t = torch.tensor([2, 50, 1000])
    noise, step = (-torch.expm1(logs[t]), schedule.beta(t))
    gap = logs[t - 1].exp() * (step / noise) ** 2 * error[t] / dim
    tilde = beta_tilde(schedule, t, t - 1)
    told = 0.5 * dim * (gap / step + tilde / step - 1 - (tilde / step).log())
    x0 = (error[t] / dim).sqrt()[:, None, None].expand(-1, 1, dim)  # a denoiser that says 0 errs by so much
    means = [q_posterior(x, torch.zeros_like(x), t, schedule).mean for x in (x0, 0 * x0)]
    square = (means[0] - means[1]).square().sum((1, 2))
    torch.testing.assert_close(told, gaussian_kl(square, tilde, step, dim))


def test_tables_and_words():
    widget = ForwardExplorer(steps=(50, 300), t=7)
    table = torch.frombuffer(bytearray(widget.tables), dtype=torch.float32)
    assert table.shape == (6 * (51 + 301),) and widget.t == 7
    torch.testing.assert_close(table[:51].double(), linear(50).log_alpha_bar(torch.arange(51)), rtol=1e-6, atol=1e-7)
    assert repr(widget) == "ForwardExplorer(6 schedules, T in (50, 300))"
    assert repr(PosteriorExplorer()) == "PosteriorExplorer(T in (10, 50, 1000))"
    sizes = [len(w.tables) * 4 / 3 + len(w._esm) for w in (ForwardExplorer(), PosteriorExplorer())]
    assert max(sizes) < 60_000


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BoundExplorer({"a": torch.ones(10)}, linear(), 128), "The error of 'a'"),
        (lambda: BoundExplorer({"a": torch.full((1000,), torch.nan)}, linear(), 128), "The error of 'a'"),
    ],
)
def test_bad_input_gets_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()
