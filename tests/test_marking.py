"""Marking functions: right ones in every form, mistakes, noise, draws, and points."""

import ast
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from codebase import UserError, utils
from codebase.homework import cases, forms, marking, problems
from codebase.homework.mistakes import MISTAKES
from codebase.homework.problems import BY_KEY, PROBLEMS
from codebase.homework.sandbox import Output, said
from codebase.models import VAE

FUNCTIONS = [problem.key for problem in PROBLEMS]
BOUNDS = [problem.key for problem in PROBLEMS if problem.model]
ELBOS = [name for name in BOUNDS if "elbo" in name]
WEIGHTED = [name for name in BOUNDS if "iwae" in name]
SLOW = [pytest.param(name, marks=pytest.mark.catalogue) for name in (*WEIGHTED, *ELBOS[2:])]
PARTS = json.loads(Path(__file__).with_name("mistakes.json").read_text(encoding="utf-8"))


def running(run, with_helpers=None):
    """Call a function in this process; another one, if helpers are given."""

    def output(case, helpers) -> Output:
        # Not cached: a function may keep something, or draw with another generator.
        calls = cases.outputs.__wrapped__(case, helpers and with_helpers or run)
        told = [said(f"RuntimeError: {one}", "") if isinstance(one, str) else one for one in calls]
        return Output(tuple(told))

    return output


def mark(function: str, run, with_helpers=None) -> marking.Mark:
    question = BY_KEY[function]
    return marking.mark(question, question.points, running(run, with_helpers))


def right(function: str):
    return forms.FORMS[function][0]


def test_points_are_the_homeworks():
    by_question: dict[str, float] = {}
    for question in problems.QUESTIONS:
        by_question[question.number] = by_question.get(question.number, 0) + question.points
    assert by_question == {
        **{"1.1": 6, "1.2": 6, "1.3": 3, "1.4": 3, "1.5": 3, "2.1": 16, "2.2": 3, "2.3": 3},
        **{"3.1": 6, "3.2": 6, "3.3": 3, "3.4": 6, "4.1": 1, "4.2": 15, "4.3": 3},
        **{"5.1": 3, "5.2": 6},
    }
    assert len(by_question) == 17 and problems.totals(problems.POINTS) == (83, 9)
    marked = (*PROBLEMS, *problems.REPORTS)
    assert all(sum(question.parts.values()) == pytest.approx(1) for question in marked)


# Right functions, and noise


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_right_form_gets_full_points(function):
    for form in forms.FORMS[function]:
        marked = mark(function, form)
        assert (marked.score, marked.said, marked.lost) == (marked.points, (), ())


RIGHT_NOISE = {
    "minus": lambda shape: -torch.randn(shape),
    "in another order": lambda shape: torch.randn(shape[::-1]).permute(*range(len(shape))[::-1]),
    "normal_": lambda shape: torch.empty(shape).normal_(),
    "torch.normal": lambda shape: torch.normal(torch.zeros(shape), 1.0),
}
ON_AVERAGE = {
    "detached": lambda shape: torch.randn(shape).detach(),
    "numpy": lambda shape: torch.from_numpy(np.random.standard_normal(shape)).float(),
    "Box-Muller": lambda shape: (
        (-2 * torch.rand(shape).log()).sqrt() * (2 * math.pi * torch.rand(shape)).cos()
    ),
}


class Noise(torch.overrides.TorchFunctionMode):
    """Make normal draws in another way: noise(shape)."""

    def __init__(self, noise):
        super().__init__()
        self.noise = noise

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.randn_like:
            return self.noise(args[0].shape)
        if func is torch.randn:
            return self.noise(torch.empty(*args).shape)
        return func(*args, **(kwargs or {}))


def with_noise(run, noise):
    """A function that makes its draws in another way."""

    def with_it(*args):
        with Noise(noise):
            return run(*args)

    return with_it


@pytest.mark.parametrize("function", ["sample_gaussian", *BOUNDS])
def test_right_noise_loses_nothing(function):
    for name, noise in RIGHT_NOISE.items():
        marked = mark(function, with_noise(right(function), noise))
        assert marked.lost == (), (name, marked.said)


@pytest.mark.catalogue
@pytest.mark.parametrize("function", ["sample_gaussian", *BOUNDS])
def test_noise_that_cannot_be_set(function, monkeypatch):
    """No mean of a right function is off by 4 standard errors: the limit is 5.

    To be found 999 times in 1,000, a wrong one must be off by 8.1: the limit plus 3.1.
    """
    np.random.seed(0)
    monkeypatch.setattr(marking, "STANDARD_ERRORS", 4)
    for name, noise in ON_AVERAGE.items():
        marked = mark(function, with_noise(right(function), noise))
        assert marked.lost == (), (name, marked.said)
    monkeypatch.setattr(marking, "STANDARD_ERRORS", 8.1)
    wrong = {name: run for name, run in MISTAKES[function].items() if "one for" in name}
    wrong |= {"half": with_noise(right(function), lambda shape: torch.randn(shape) / math.sqrt(2))}
    assert len(wrong) > 2
    for name, run in wrong.items():
        with_numpy = running(with_noise(run, ON_AVERAGE["numpy"]))
        checked = marking.check(BY_KEY[function], with_numpy, 0)
        assert checked.reasons[BY_KEY[function].terms[0]], name


@pytest.mark.parametrize("function", ELBOS)
def test_several_draws_are_right(function):
    """A mean over five draws; other draws for rec than for KL."""

    def five(model, *args):
        found = [right(function)(model, *args) for _ in range(5)]
        return tuple(sum(terms) / 5 for terms in zip(*found, strict=True))

    def separate(model, *args):
        one, other = right(function)(model, *args), right(function)(model, *args)
        return (sum(one[1:-1]) + other[-1], *one[1:-1], other[-1])

    assert mark(function, five).lost == mark(function, separate).lost == ()


@pytest.mark.parametrize("chunk", [1, 3, 4])
@pytest.mark.parametrize("function", WEIGHTED)
def test_weights_in_chunks_are_right(function, chunk):
    def run(model, x, iw):
        parts = [model.importance_terms(x, min(chunk, iw - i)) for i in range(0, iw, chunk)]
        kl, rec = (torch.cat(terms) for terms in zip(*parts, strict=True))
        return -utils.log_mean_exp(-kl - rec, 0).mean(), kl.mean(), rec.mean()

    assert mark(function, run).lost == ()


# Mistakes


def other_draws(bound):
    """A bound with other draws than the reference's."""

    def run(model, *args):
        torch.rand(1)
        return bound(model, *args)

    return run


# Random numbers that are not normal draws cannot be set: such mistakes are only detected.
RANDOM = ("You sample an image", "You sample one label", "You choose one component")
SOME = [(function, 20 if "." in function else 1) for function in FUNCTIONS]
EVERY = [pytest.param(function, 1, marks=pytest.mark.catalogue) for function in BOUNDS]


@pytest.mark.parametrize(("function", "step"), [*SOME, *EVERY])
def test_a_mistake_loses_its_parts_and_is_named(function, step):
    assert MISTAKES[function].keys() == PARTS[function].keys()
    for i, (sentence, run) in enumerate(list(MISTAKES[function].items())[::step]):
        marked, parts = mark(function, run), PARTS[function][sentence]
        assert sorted(marked.lost) == parts, (sentence, marked.said)
        assert any(sentence in name for name in marked.mistakes), (sentence, marked.said)
        if "." in function and i % 9 == 0:
            marked = mark(function, other_draws(run))
            named = any(sentence in name for name in marked.mistakes)
            assert set(marked.lost) >= set(parts), (sentence, marked.said)
            assert named or sentence.startswith(RANDOM), sentence


def test_two_mistakes_are_both_named():
    def both(model, x):
        q_m, q_v, z = forms.draw(model, x)
        kl = utils.kl_normal(torch.zeros_like(q_m), torch.ones_like(q_v), q_m, q_v).mean()
        rec = utils.log_bernoulli_with_logits(x, model.dec.decode(z)).mean()
        return kl + rec, kl, rec

    first, second = mark("VAE.negative_elbo_bound", both).mistakes
    assert "KL(p ‖ q)" in first and "+log p(x|z)" in second


def test_a_wrong_name_is_not_given():
    """Noise of another kind than the catalogue's."""

    def noise(shape):
        noise = torch.randn(shape)
        return torch.cat([noise[..., :1], noise[..., :1], noise[..., 2:]], -1)

    for function in BOUNDS:
        marked = mark(function, with_noise(right(function), noise))
        assert marked.lost and marked.mistakes == (), (function, marked.mistakes)


def changed(change):
    """The VAE's bound with its terms changed."""
    return lambda model, x: change(*model.negative_elbo_bound(x))


def overflows(model, x):
    q_m, q_v, z = forms.draw(model, x)
    logits = model.dec.decode(z)
    rec = ((1 + logits.exp()).log() - x * logits).sum(-1)
    return forms.bound(forms.closed(model, q_m, q_v, z), rec)


def seeded(model, x):
    torch.manual_seed(0)
    return model.negative_elbo_bound(x)


@pytest.mark.parametrize(
    ("run", "part", "reason"),
    [
        (changed(lambda n, kl, rec: n), "rec", "return rec too"),
        (changed(lambda n, kl, rec: (n, kl.detach(), rec.detach())), "gradient", "beta·kl + rec"),
        (changed(lambda n, kl, rec: (n, kl.detach(), rec)), "gradient", "beta·kl + rec"),
        (changed(lambda n, kl, rec: (2 * n - n.detach(), kl, rec)), "gradient", "is wrong"),
        (overflows, "rec", "where logits are far from 0"),
        (seeded, "nelbo", marking.SAME_NOISE),
    ],
)
def test_a_small_mistake_loses_its_part(run, part, reason):
    for wrong in (run, other_draws(run)):
        marked = mark("VAE.negative_elbo_bound", wrong)
        assert part in marked.lost and marked.score > 0, (marked.lost, marked.said)
        assert reason in " ".join(marked.said)


@pytest.mark.parametrize("function", [*ELBOS[:2], *SLOW])
def test_one_batch_size_costs_its_part(function):
    """For 100 images, the training's batch; or for the grader's own batch."""

    def only(size):
        def run(model, x, *more):
            return tuple(term * len(x) / size for term in right(function)(model, x, *more))

        return run

    marked = mark(function, only(100))
    assert marked.lost == ("sizes",) and "batches of 100" in marked.said[0]
    if function not in WEIGHTED:
        assert mark(function, only(cases.BATCHES[BY_KEY[function].model])).lost == ("sizes",)


def test_garbage_gets_nothing():
    """Gradients and sizes count only if a term is right; shapes if values resemble the right."""

    def bound(model, x):
        m, v = model.enc.encode(x)
        total = m.sum() + v.sum() + model.dec.decode(m).sum()
        return total, total, total

    def constants(model, x):
        trained = 1e-5 * sum(parameter.sum() for parameter in model.parameters())
        return tuple(value + torch.rand(()) + trained for value in (505, 5, 500))

    assert mark("log_normal", lambda x, m, v: (x + m + v).sum(-1)).score == 0
    assert mark("sample_gaussian", lambda m, v: v - m).score == 0
    assert mark("VAE.negative_elbo_bound", bound).score == 0
    assert mark("VAE.negative_elbo_bound", constants).score == 0


def test_faults_that_hide():
    """A spread that hides wrong means; detached noise; clipped ε; a batch of 100, a seed."""

    def junk(model, x, iw):
        trained = 1e-9 * sum(parameter.sum() for parameter in model.parameters())
        noise = torch.from_numpy(np.random.standard_normal(3)).float()
        return trained + noise[0], 1e12 * noise[1], 1e12 * noise[2]

    def detached(model, x):
        m, v = model.enc.encode(x)
        noise = torch.randn(1, 1)
        rec = forms.rec_of(model, x, m + v.sqrt() * noise).mean()
        kl = utils.kl_normal(m, v, *model.z_prior).mean()
        hidden = forms.rec_of(model, x, m + v.sqrt() * noise.detach()).mean()
        return kl + rec, kl, hidden

    def seeded(model, x):
        torch.manual_seed(0)
        if len(x) != 100:
            raise ValueError
        return right("VAE.negative_elbo_bound")(model, x)

    assert mark("VAE.negative_iwae_bound", junk).score == 0

    def twice(model, x):
        m, v = model.enc.encode(x)
        z = utils.sample_gaussian(m, v)
        kl = (utils.log_normal(z, m, v) - model.log_p_z(z)).mean()
        rec = forms.rec_of(model, x, m + v.sqrt() * torch.randn(1).item()).mean()
        return kl + rec, kl, rec

    assert mark("VAE.negative_elbo_bound", detached).lost == ("nelbo", "rec")
    assert mark("VAE.negative_elbo_bound", twice).lost == ("nelbo", "rec")
    clipped = with_noise(utils.sample_gaussian, lambda shape: torch.randn(shape).clamp(-2, 2))
    assert mark("sample_gaussian", clipped).lost == ("draws",)
    assert "nelbo" in mark("VAE.negative_elbo_bound", seeded).lost


def of_mean_z(model, x):
    m, v = model.enc.encode(x)
    z = torch.stack([utils.sample_gaussian(m, v) for _ in range(4)]).mean(0)
    return forms.bound(forms.closed(model, m, v, z), forms.rec_of(model, x, z))


def weighted_elbo(model, x):
    *_, kl, rec = model.negative_elbo_bound(x)
    return model.negative_iwae_bound(x, 10)[0], kl, rec


def of_clipped_probabilities(model, x):
    m, v, z = forms.draw(model, x)
    p = model.dec.decode(z).sigmoid().clamp(0.01, 0.99)
    rec = -(x * p.log() + (1 - x) * (1 - p).log()).sum(-1)
    return forms.bound(forms.closed(model, m, v, z), rec)


def bounds_of_ten(model, x, iw):
    parts = [VAE.negative_iwae_bound(model, x, min(10, iw - i)) for i in range(0, iw, 10)]
    return tuple(sum(terms) / len(terms) for terms in zip(*parts, strict=True))


def with_shared_noise_in_kl(model, x):
    m, v, z = forms.draw(model, x)
    other = m + v.sqrt() * torch.randn(len(x), 1)
    return forms.bound(forms.at_the_draw(model, m, v, other), forms.rec_of(model, x, z))


@pytest.mark.parametrize(
    ("function", "run", "lost"),
    [
        (ELBOS[0], of_mean_z, ("nelbo", "rec")),
        (ELBOS[0], weighted_elbo, ("nelbo",)),
        (ELBOS[0], of_clipped_probabilities, ("nelbo", "rec")),
        (ELBOS[1], with_shared_noise_in_kl, ("kl",)),
        (WEIGHTED[0], bounds_of_ten, ("niwae",)),
    ],
)
def test_mistakes_that_equal_draws_or_small_values_hide(function, run, lost):
    marked = mark(function, run)
    assert marked.lost == lost, marked.said


def test_means_of_no_draws_get_nothing():
    """The right means, as earlier reports tell them, with a little noise that cannot be set."""
    case = cases.plan(BY_KEY["VAE.negative_elbo_bound"], "average", 0).case
    means = {}  # by batch size
    for call, found in zip(case.calls, cases.outputs(case, right(ELBOS[0])), strict=True):
        values = torch.tensor([output["values"] for output in found]).mean(0).flatten()
        means[call.args[0].shape[0]] = values

    def known(model, x):
        return tuple(means.get(len(x), torch.ones(3)) + 1e-3 * torch.rand(()))

    assert {"nelbo", "rec"} <= set(mark(ELBOS[0], known).lost)


def test_a_wrong_helper_costs_its_caller_nothing():
    name = "VAE.negative_elbo_bound"
    marked = mark(name, lambda model, x: model.negative_elbo_bound(1 - x), right(name))
    assert marked.score == 6 and "you lose no points for it here" in marked.said[0]


def test_nobody_can_hand_in_the_right_value_that_is_told():
    """It is told in too few digits to be right."""
    right_one = cases.outputs(cases.plan(BY_KEY["log_normal"]).case, utils.log_normal)[0][0]
    for factor in (0.5, 1.0001):
        told = mark("log_normal", lambda x, m, v, f=factor: f * utils.log_normal(x, m, v)).said[-1]
        for value in map(float, re.findall(r"-?\d+\.?\d*", told)):
            assert not any(marking.close(value, one) for one in right_one["values"][0]), told


def test_helpers_hold_no_part_of_what_is_asked_for():
    for problem in PROBLEMS:
        source = cases.helpers_for(problem)["utils.py"]
        tree = {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
        later = {"sample_gaussian", "log_normal", "log_normal_mixture", "_log_normal_all_pairs"}
        if problem.model:
            assert later <= tree
        else:
            assert tree & later == set(cases.GRADED[: cases.GRADED.index(problem.key)])


# Points of one's own


def test_points_of_ones_own(tmp_path):
    """By function, by part, or by question, whose parts share them."""
    path = tmp_path / "points.json"
    own = {"log_normal": 10, "1.2": 0.5, "3.4": 8, "5.2": 3, "5.2 picture": 0}
    path.write_text(json.dumps(own), encoding="utf-8")
    assert problems.read_points(path) == problems.POINTS | {
        **{"log_normal": 10, "VAE.negative_elbo_bound": 0.5, "5.2 picture": 0},
        **{"GMVAE.negative_iwae_bound": 4, "3.4 report": 4, "FSVAE.negative_elbo_bound": 2},
    }
    for content in (
        *("", "[]", "{", '{"log_norm": 1}', '{"log_normal": -1}', '{"log_normal": "4"}'),
        *('{"log_normal": NaN}', '{"log_normal": true}', '{"log_normal": 1e300}'),
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match="--points"):
            problems.read_points(path)
