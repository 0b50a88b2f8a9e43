"""Marking functions: right ones in every form, mistakes, noise, draws, and points."""

import ast
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import students
import torch

from codebase import UserError, utils
from codebase.homework import cases, forms, marking, problems
from codebase.homework.mistakes import MISTAKES
from codebase.homework.problems import BY_KEY, PROBLEMS
from codebase.homework.sandbox import Output, said

BOUNDS = [problem.function for problem in PROBLEMS if problem.model]
ELBOS = [name for name in BOUNDS if "elbo" in name]
WEIGHTED = [name for name in BOUNDS if "iwae" in name]
SLOW = ("VAE.negative_iwae_bound", "GMVAE.negative_iwae_bound", "SSVAE.negative_elbo_bound")
SLOW += ("FSVAE.negative_elbo_bound",)
MARKED = [
    pytest.param(function, marks=pytest.mark.catalogue if function in SLOW else ())
    for function in ("sample_gaussian", *BOUNDS)
]
PARTS = json.loads(Path(__file__).with_name("mistakes.json").read_text(encoding="utf-8"))


def mark(function: str, run) -> marking.Mark:
    """Mark a function that is called in this process."""

    def running(case, helpers) -> Output:
        # Not cached: a function may keep something, or draw with another generator.
        calls = cases.outputs.__wrapped__(case, run)
        told = [said(f"RuntimeError: {one}", "") if isinstance(one, str) else one for one in calls]
        return Output(tuple(told))

    problem = students.BY_FUNCTION[function]
    return marking.mark(problem, problem.points, running)


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


# Right functions


@pytest.mark.parametrize("function", students.BY_FUNCTION)
def test_every_right_form_gets_full_points(function):
    for form in forms.FORMS[function]:
        marked = mark(function, form)
        assert (marked.score, marked.said, marked.lost) == (marked.points, (), ())


def by_numpy(m, *shape):
    return torch.from_numpy(np.random.standard_normal(shape or tuple(m.shape))).to(m.dtype)


def by_torch(m, *shape):
    return torch.randn(shape or m.shape)


RIGHT_NOISE = {
    "minus": lambda m, v: m - v.sqrt() * torch.randn_like(m),
    "in another order": lambda m, v: (
        m + v.sqrt() * torch.randn(m.shape[::-1]).permute(*range(m.ndim - 1, -1, -1))
    ),
    "normal_": lambda m, v: m + v.sqrt() * torch.empty(m.shape).normal_(),
    "torch.normal": lambda m, v: torch.normal(torch.zeros(m.shape), 1.0).mul(v.sqrt()).add(m),
    "rsample": lambda m, v: torch.distributions.Normal(m, v.sqrt()).rsample(),
    "detached": lambda m, v: m + v.sqrt() * torch.randn_like(m).detach(),
    "numpy": lambda m, v: m + v.sqrt() * by_numpy(m),
    "Box-Muller": lambda m, v: (
        m + (-2 * v * torch.rand(m.shape).log()).sqrt() * (2 * math.pi * torch.rand(m.shape)).cos()
    ),
}
ON_AVERAGE = ("detached", "numpy", "Box-Muller")
WRONG_NOISE = {
    "times v": lambda m, v, noise: m + v * noise(m),
    "half the variance": lambda m, v, noise: m + (v / 2).sqrt() * noise(m),
    "one for the batch": lambda m, v, noise: m + v.sqrt() * noise(m, m.shape[-1]),
    "one for all dimensions": lambda m, v, noise: m + v.sqrt() * noise(m, *m.shape[:-1], 1),
    "one for all": lambda m, v, noise: m + v.sqrt() * noise(m, 1),
}


def sampled(function: str, sample):
    """A function that draws z in another way."""
    if function == "sample_gaussian":
        return lambda m, v: sample(m, v)
    bound = forms.FORMS[function][1] if function.startswith("SSVAE") else right(function)
    if function.startswith("SSVAE"):  # whose noise is standard: as students write it

        def bound(model, x):
            log_q_y = model.cls.classify(x).log_softmax(-1)
            q_m, q_v, z = forms.draw(model, x, torch.eye(10)[:, None], sample=sample)
            rec = -utils.log_bernoulli_with_logits(x, model.dec.decode(z, torch.eye(10)[:, None]))
            kl_y = utils.kl_cat(log_q_y.exp(), log_q_y, forms.LOG_P_Y).mean()
            terms = (utils.kl_normal(q_m, q_v, *model.z_prior), rec)
            kl_z, rec = ((log_q_y.exp().T * term).sum(0).mean() for term in terms)
            return kl_y + kl_z + rec, kl_z, kl_y, rec

    def run(model, *args):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(utils, "sample_gaussian", sample)
            return bound(model, *args)

    return run


@pytest.mark.parametrize("function", ["sample_gaussian", *BOUNDS])
def test_right_noise_loses_nothing(function):
    for name, sample in RIGHT_NOISE.items():
        if name not in ON_AVERAGE:
            marked = mark(function, sampled(function, sample))
            assert marked.lost == (), (name, marked.said)


@pytest.mark.catalogue
@pytest.mark.parametrize("function", ["sample_gaussian", *BOUNDS])
def test_right_noise_that_cannot_be_set_loses_nothing(function, monkeypatch):
    """It loses points once in a million times; here no mean is off by 4 standard errors."""
    monkeypatch.setattr(marking, "STANDARD_ERRORS", 4)
    for name in ON_AVERAGE:
        np.random.seed(0)
        marked = mark(function, sampled(function, RIGHT_NOISE[name]))
        assert marked.lost == (), (name, marked.said)


@pytest.mark.parametrize("function", MARKED)
def test_wrong_noise_loses_points(function):
    for name, wrong in WRONG_NOISE.items():
        marked = mark(function, sampled(function, lambda m, v, w=wrong: w(m, v, by_torch)))
        assert students.BY_FUNCTION[function].terms[0] in marked.lost, (name, marked.said)


@pytest.mark.catalogue
@pytest.mark.parametrize("function", ["sample_gaussian", *BOUNDS])
def test_wrong_noise_that_cannot_be_set_loses_points(function, monkeypatch):
    """To be found 999 times in 1,000 it must be off by 8.1 standard errors: the limit plus 3.1."""
    monkeypatch.setattr(marking, "STANDARD_ERRORS", 8.1)
    first = ["sample_gaussian", *BOUNDS].index(function) % 3  # others in other functions
    for name, wrong in list(WRONG_NOISE.items())[first::2]:
        np.random.seed(0)
        marked = mark(function, sampled(function, lambda m, v, w=wrong: w(m, v, by_numpy)))
        assert students.BY_FUNCTION[function].terms[0] in marked.lost, (name, marked.said)


@pytest.mark.parametrize("function", MARKED)
def test_noise_that_is_kept_loses_points(function):
    """Noise kept between calls of one model, or by a seed set inside, loses points."""
    kept = {}

    def keeps(m, v):
        if m.shape not in kept:
            kept[m.shape] = torch.randn(m.shape)
        return m + v.sqrt() * kept[m.shape]

    def seeds(m, v):
        torch.manual_seed(0)
        return m + v.sqrt() * torch.randn_like(m)

    for sample in (keeps, seeds):
        kept.clear()
        marked = mark(function, sampled(function, sample))
        assert marked.lost, sample
    assert marking.SAME_NOISE in marked.said or marked.mistakes, marked.said


def mean_of(function: str, *samples):
    """A bound that is a mean over draws of z, each made in its own way."""

    def run(model, *args):
        found = [sampled(function, sample)(model, *args) for sample in samples]
        return tuple(sum(terms) / len(terms) for terms in zip(*found, strict=True))

    return run


@pytest.mark.parametrize("function", ELBOS)
def test_a_mean_over_draws_is_right(function):
    five = mean_of(function, *[utils.sample_gaussian] * 5)
    assert mark(function, five).lost == ()
    kept = {}

    def plus(m, v):
        kept["noise"] = torch.randn_like(m)
        return m + v.sqrt() * kept["noise"]

    antithetic = mean_of(function, plus, lambda m, v: m - v.sqrt() * kept["noise"])
    assert mark(function, antithetic).lost == ()


@pytest.mark.parametrize("function", WEIGHTED)
def test_antithetic_draws_cost_the_weighted_bound_alone(function):
    """Its draws are independent by definition; the means of its terms stay the same."""

    def sample(m, v):
        half = torch.randn((len(m) + 1) // 2, m.shape[-1])
        return m + v.sqrt() * torch.cat([half, -half])[: len(m)]

    marked = mark(function, sampled(function, sample))
    assert "niwae" in marked.lost and not {"kl", "rec"} & set(marked.lost), marked.said


@pytest.mark.parametrize("chunk", [1, 3, 4])
@pytest.mark.parametrize("function", WEIGHTED)
def test_weights_in_chunks_are_right(function, chunk):
    def run(model, x, iw):
        parts = [model.importance_terms(x, min(chunk, iw - i)) for i in range(0, iw, chunk)]
        kl, rec = (torch.cat(terms) for terms in zip(*parts, strict=True))
        return -utils.log_mean_exp(-kl - rec, 0).mean(), kl.mean(), rec.mean()

    assert mark(function, run).lost == ()


@pytest.mark.parametrize("function", ELBOS)
def test_separate_draws_for_the_terms_are_right(function):
    def run(model, *args):
        one, other = right(function)(model, *args), right(function)(model, *args)
        return (sum(one[1:-1]) + other[-1], *one[1:-1], other[-1])

    assert mark(function, run).lost == ()


def test_published_forms_get_full_points():
    for function, run in {
        "sample_gaussian": lambda m, v: m + torch.randn_like(v) * v.sqrt(),
        "log_normal_mixture": lambda z, m, v: (
            utils.log_normal(z.unsqueeze(1).expand_as(m), m, v).logsumexp(1) - math.log(m.shape[1])
        ),
        "log_normal": lambda x, m, v: (
            -0.5 * ((x - m) ** 2 / v).sum(-1)
            - 0.5 * v.log().sum(-1)
            - 0.5 * x.shape[-1] * math.log(2 * math.pi) * torch.ones(())
        ),
    }.items():
        expected = ("shapes",) if function == "log_normal" else ()
        lost = mark(function, run).lost
        assert set(lost) <= set(expected), function


# Mistakes


def lost_and_named(function: str, sentence: str) -> None:
    marked = mark(function, MISTAKES[function][sentence])
    assert sorted(marked.lost) == PARTS[function][sentence], (sentence, marked.said)
    assert any(sentence in name for name in marked.mistakes), (sentence, marked.said)


@pytest.mark.parametrize("function", students.BY_FUNCTION)
def test_a_mistake_loses_its_parts_and_is_named(function):
    for sentence in list(MISTAKES[function])[:: 20 if "." in function else 1]:
        lost_and_named(function, sentence)


@pytest.mark.catalogue
@pytest.mark.parametrize("function", BOUNDS)
def test_each_mistake_loses_its_parts_and_is_named(function):
    assert MISTAKES[function].keys() == PARTS[function].keys()
    for sentence in MISTAKES[function]:
        lost_and_named(function, sentence)


def other_draws(bound):
    """A bound with other draws than the reference's."""

    def run(model, *args):
        torch.rand(1)
        return bound(model, *args)

    return run


RANDOM = ("You sample an image", "You sample one label", "You choose one component")


@pytest.mark.catalogue
@pytest.mark.parametrize("function", BOUNDS)
def test_mistakes_are_named_in_any_order_of_draws(function):
    """Random numbers that are not normal draws cannot be set: such mistakes are only detected."""
    for sentence, run in list(MISTAKES[function].items())[::9]:
        marked = mark(function, other_draws(run))
        assert set(marked.lost) >= set(PARTS[function][sentence]), (sentence, marked.said)
        named = any(sentence in name for name in marked.mistakes)
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

    def sample(m, v):
        noise = torch.randn(m.shape)
        return m + v.sqrt() * torch.cat([noise[..., :1], noise[..., :1], noise[..., 2:]], -1)

    for function in BOUNDS:
        marked = mark(function, sampled(function, sample))
        assert marked.lost and marked.mistakes == (), (function, marked.mistakes)


def _rec(model, x, z):
    return forms.reconstruction(model, x, z)


def _small(change):
    """A bound of the VAE or GMVAE with one small mistake that has no name."""

    def run(model, x):
        q_m, q_v, z = forms.draw(model, x)
        kl, rec = change(model, x, q_m, q_v, z)
        return forms.bound(kl, rec)

    return run


def _without_last(model, x, q_m, q_v, z):
    p_m, p_v = (p[:, :-1] for p in model.z_prior)
    kl = utils.log_normal(z, q_m, q_v) - utils.log_normal_mixture(z, p_m, p_v)
    return kl, _rec(model, x, z)


SMALL = {
    "KL is detached": (
        "VAE.negative_elbo_bound",
        _small(lambda model, x, m, v, z: (model.kl_to_prior(z, m, v).detach(), _rec(model, x, z))),
        "gradient",
    ),
    "one component is left out": ("GMVAE.negative_elbo_bound", _small(_without_last), "kl"),
    "kl is 7 times as large": (
        "VAE.negative_elbo_bound",
        lambda model, x: (lambda n, kl, rec: (n, 7 * kl, rec))(*model.negative_elbo_bound(x)),
        "kl",
    ),
    "only the bound is returned": (
        "SSVAE.negative_elbo_bound",
        lambda model, x: model.negative_elbo_bound(x)[0],
        "rec",
    ),
    "logits overflow": (
        "VAE.negative_elbo_bound",
        _small(
            lambda model, x, m, v, z: (
                model.kl_to_prior(z, m, v),
                (lambda a: ((1 + a.exp()).log() - x * a).sum(-1))(model.dec.decode(z)),
            )
        ),
        "rec",
    ),
    "kl and rec are detached": (
        "VAE.negative_elbo_bound",
        lambda model, x: (lambda n, *t: (n, *(one.detach() for one in t)))(
            *model.negative_elbo_bound(x)
        ),
        "gradient",
    ),
    "only kl is detached": (
        "VAE.negative_elbo_bound",
        lambda model, x: (lambda n, kl, rec: (n, kl.detach(), rec))(*model.negative_elbo_bound(x)),
        "gradient",
    ),
    "half of the weights": (
        "VAE.negative_iwae_bound",
        lambda model, x, iw: model.negative_iwae_bound(x, max(iw // 2, 1)),
        "niwae",
    ),
    "weights by their mean over images": (
        "GMVAE.negative_iwae_bound",
        lambda model, x, iw: (
            lambda kl, rec: (
                -utils.log_mean_exp((-kl - rec).mean(1), 0),
                *forms.means(kl, rec),
            )
        )(*model.importance_terms(x, iw)),
        "niwae",
    ),
    "one slip": ("log_normal", lambda x, m, v: 1.01 * utils.log_normal(x, m, v), "values"),
    "1e-5 in the variance": (
        "log_normal",
        lambda x, m, v: utils.log_normal(x, m, v) - 0.5 * ((v + 1e-5) / v).log().sum(-1),
        "values",
    ),
    "a doubled gradient": (
        "log_normal",
        lambda x, m, v: 2 * utils.log_normal(x, m, v) - utils.log_normal(x, m, v).detach(),
        "gradient",
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_small_mistake_loses_its_part(name):
    function, run, part = SMALL[name]
    for wrong in (run, other_draws(run)) if "." in function else (run,):
        marked = mark(function, wrong)
        assert part in marked.lost and marked.score > 0, (marked.lost, marked.said)


@pytest.mark.parametrize("function", MARKED[1:])
def test_one_batch_size_costs_its_part(function):
    """For 100 images, the training's batch; or for the grader's own batch."""
    own = [] if function in WEIGHTED else [cases.BATCHES[students.BY_FUNCTION[function].model]]
    for size in (100, *own):

        def wired(model, x, *more, size=size):
            found = right(function)(model, x, *more)
            return tuple(term * len(x) / size for term in found)

        marked = mark(function, wired)
        assert marked.lost == ("sizes",), marked.said
    marked = mark(function, lambda model, x, *more: wired(model, x, *more, size=100))
    assert "batches of 100" in marked.said[0]


def test_an_axis_that_is_found_by_its_size_costs_its_part():
    [sentence] = [s for s in MISTAKES[WEIGHTED[0]] if "axis of the weights by its size" in s]
    for function in WEIGHTED:
        assert mark(function, MISTAKES[function][sentence]).lost == ("sizes",)


def test_garbage_gets_nothing():
    """Gradients and sizes count only if a term is right; shapes if values resemble the right."""

    def bound(model, x):
        m, v = model.enc.encode(x)
        total = m.sum() + v.sum() + model.dec.decode(m).sum()
        return total, total, total

    def constants(model, x):
        trained = 1e-5 * sum(parameter.sum() for parameter in model.parameters())
        return tuple(value + torch.rand(()) + trained for value in (505, 5, 500))

    def huge(model, x):
        value = torch.tensor(1.7e308, dtype=torch.float64)
        return value, value, value

    assert mark("log_normal", lambda x, m, v: (x + m + v).sum(-1)).score == 0
    assert mark("sample_gaussian", lambda m, v: v - m).score == 0
    assert mark("VAE.negative_elbo_bound", bound).score == 0
    assert mark("VAE.negative_elbo_bound", huge).score == 0
    assert mark("VAE.negative_elbo_bound", constants).score == 0


def test_a_wrong_helper_costs_its_caller_nothing():
    name = "VAE.negative_elbo_bound"

    def running(case, helpers) -> Output:
        run = right(name) if helpers else (lambda model, x: model.negative_elbo_bound(1 - x))
        return Output(tuple(cases.outputs.__wrapped__(case, run)))

    marked = marking.mark(students.BY_FUNCTION[name], 6, running)
    assert marked.score == 6 and "you lose no points for it here" in marked.said[0]


def test_means_of_no_draws_get_nothing():
    """The right means, found in earlier reports, with a little noise that cannot be set."""
    problem = students.BY_FUNCTION["VAE.negative_elbo_bound"]
    case = cases.plan(problem, "average", 0).case
    means = {}  # by batch size
    for call, found in zip(case.calls, cases.outputs(case, right(problem.function)), strict=True):
        values = torch.tensor([output["values"] for output in found]).mean(0).flatten()
        means[call.args[0].shape[0]] = values

    def known(model, x):
        return tuple(means.get(len(x), torch.ones(3)) + 1e-3 * torch.rand(()))

    def running(case, helpers) -> Output:
        return Output(tuple(cases.outputs.__wrapped__(case, known)))

    marked = marking.mark(problem, problem.points, running)
    assert {"nelbo", "rec"} <= set(marked.lost), marked


def test_nobody_can_hand_in_the_right_value_that_is_told():
    """It is told in too few digits to be right."""
    right_one = cases.outputs(cases.plan(BY_KEY["log_normal"]).case, utils.log_normal)[0][0]
    for factor in (0.5, 1.0001):
        told = mark("log_normal", lambda x, m, v, f=factor: f * utils.log_normal(x, m, v)).said[-1]
        for value in map(float, re.findall(r"-?\d+\.?\d*", told)):
            assert not any(marking.close(value, one) for one in right_one["values"][0]), told


@pytest.mark.catalogue
def test_another_seed_changes_no_mark(monkeypatch):
    for function in ("VAE.negative_elbo_bound", "log_normal"):
        some = list(MISTAKES[function].values())[::5]
        lost = [mark(function, run).lost for run in some]
        with monkeypatch.context() as patch:
            patch.setattr(cases, "SEED", 1)
            assert [mark(function, run).lost for run in some] == lost


def test_helpers_hold_no_part_of_what_is_asked_for():
    for problem in PROBLEMS:
        source = cases.helpers_for(problem)["utils.py"]
        tree = {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
        later = {"sample_gaussian", "log_normal", "log_normal_mixture", "_log_normal_all_pairs"}
        if problem.model:
            assert later <= tree
        else:
            assert tree & later == set(cases.GRADED[: cases.GRADED.index(problem.function)])


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
    assert problems.read_points(None) == problems.POINTS


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"log_norm": 1}', '{"log_normal": -1}', '{"log_normal": "4"}']
    + ['{"log_normal": NaN}', '{"log_normal": true}', '{"log_normal": 1e300}'],
)
def test_points_that_are_none_are_refused(tmp_path, content):
    path = tmp_path / "points.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="--points"):
        problems.read_points(path)
