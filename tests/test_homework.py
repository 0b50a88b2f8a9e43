"""Marking: the catalogue of mistakes, what submissions look like, and what reports say."""

import ast
import contextlib
import io
import json
import math
import os
import re
import stat
import time
import zipfile

import numpy as np
import pytest
import students
import torch

from codebase import UserError, utils
from codebase.homework import (
    alternatives,
    cases,
    comparing,
    grade,
    marking,
    problems,
    report,
    sandbox,
    submission,
)
from codebase.homework.mistakes import MISTAKES, catalogue, without_code
from codebase.homework.problems import BY_FUNCTION, PROBLEMS

POINTS = {problem.function: problem.points for problem in PROBLEMS}  # of what is graded as code
SEED = 3
BOUNDS = [problem.function for problem in PROBLEMS if problem.model]


def running(run=None):
    """Outputs of a function in this process; of the right one where it is None."""

    def output(case, helpers) -> cases.Output:
        try:
            return cases.Output(cases.outputs(case, run) if run else cases.reference(case))
        except (RuntimeError, IndexError, ValueError) as error:
            return cases.Output(None, str(error), type(error).__name__)

    return output


def mark(function: str, run=None, seed: int = SEED) -> marking.Mark:
    problem = BY_FUNCTION[function]
    return marking.mark(problem, problem.points, seed, running(run))


# Marking


def test_points_are_the_homeworks():
    by_question = {}
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


@pytest.mark.parametrize("function", BY_FUNCTION)
def test_the_solution_gets_full_points(function):
    for seed in range(cases.SEEDS):
        marked = mark(function, seed=seed)
        assert (marked.score, marked.notes, marked.lost) == (marked.points, (), [])


def named(function: str, mistake) -> list[str]:
    """Mark a mistake, which loses its parts; the names of the mistakes that the report gives."""
    marked = mark(function, mistake.run)
    assert set(marked.lost) == mistake.loses, (mistake.name, marked.reasons)
    share = sum(BY_FUNCTION[function].parts[part] for part in mistake.loses)
    assert marked.score == pytest.approx(marked.points * (1 - share), abs=0.006)
    found = [other.name for other in marked.mistakes]
    assert mistake.name in found
    return found


@pytest.mark.parametrize("function", BY_FUNCTION)
def test_a_mistake_loses_its_parts_and_is_named(function):
    named(function, MISTAKES[function][0])
    named(function, MISTAKES[function][-1])


@pytest.mark.catalogue
@pytest.mark.parametrize("function", BY_FUNCTION)
def test_each_mistake_loses_its_parts_and_is_named(function):
    together = set()
    for mistake in MISTAKES[function]:
        names = named(function, mistake)
        together |= {frozenset((mistake.name, name)) for name in names if name != mistake.name}
    # Two mistakes with the same numbers are both named, whichever it was.
    for pair in together:
        one, other = (m for m in MISTAKES[function] if m.name in pair)
        assert {one, other} <= set(mark(function, other.run).mistakes)
    assert len(together) <= 1


RANDOM = ("sampled reconstruction", "one sampled label", "one random component")


@pytest.mark.catalogue
@pytest.mark.parametrize("function", BOUNDS)
def test_each_mistake_is_named_in_any_order_of_draws(function):
    """Mistakes with random numbers that are not normal draws cannot be set: they are only detected.

    One shows too little in GMVAE's importance weights to be found on average.
    """
    for mistake in MISTAKES[function]:
        if function.startswith("GMVAE") and mistake.name == "log-mean-exp of each term per image":
            continue
        marked = mark(function, other_draws(mistake.run))
        assert set(marked.lost) == mistake.loses, (mistake.name, marked.reasons)
        if mistake.name not in RANDOM:
            assert mistake.name in [other.name for other in marked.mistakes]


def test_the_catalogue_is_large_and_each_mistake_has_a_name_of_its_own():
    assert sum(map(len, MISTAKES.values())) >= 348 and without_code() == []
    for mistakes in MISTAKES.values():
        assert len({mistake.name for mistake in mistakes}) == len(mistakes)
        for mistake in mistakes:  # what the student did; what to do
            assert re.fullmatch(r"You .+; .+\.", mistake.sentence), mistake.sentence


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("| no log 2π |", "| no log | 2π |", "line [0-9]+: expected three cells"),
        ("| no log v |", "| no log w |", "no row or section 'no log v'"),
        ("## fsvae:", "## others:", "no row or section 'fsvae'"),
        ("## iwae:", "## Hints for assistants\n\n## iwae:", None),
    ],
)
def test_a_broken_edit_of_the_sentences_is_named(tmp_path, monkeypatch, old, new, reason):
    text = catalogue.TABLE.read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "README.md").write_text(text.replace(old, new), encoding="utf-8")
    monkeypatch.setattr(catalogue, "TABLE", tmp_path / "README.md")
    expected = pytest.raises(UserError, match=reason) if reason else contextlib.nullcontext()
    with expected:
        sections = catalogue._table()
        for kind, (_, rows) in catalogue._SECTIONS.items():
            assert sections[kind] and rows == {}
        sections["normal"][1]["no log v"]


def test_edited_results_are_no_results(tmp_path):
    """They are graded again."""
    right = report.results(graded(), "key")
    assert report.read_results(students.folder(tmp_path, {"results.json": json.dumps(right)}))
    for edit in (
        lambda r: r["tests"].pop(),
        lambda r: r.update(score="58"),
        lambda r: r["tests"][0].update(score=None),
        lambda r: r["tests"][0]["extra_data"].update(mistakes=[[1]]),
    ):
        edited = json.loads(json.dumps(right))
        edit(edited)
        students.folder(tmp_path, {"results.json": json.dumps(edited)})
        assert report.read_results(tmp_path) is None


def other_draws(bound):
    """A bound with other draws than the reference's."""

    def run(model, *args):
        torch.rand(1)
        return bound(model, *args)

    return run


@pytest.mark.parametrize("function", BOUNDS)
def test_other_draws_of_the_right_bound_are_right(function):
    problem = BY_FUNCTION[function]
    right = getattr(cases.MODELS[problem.model], problem.method)
    marked = mark(function, other_draws(right))
    assert marked.score == marked.points, marked.reasons
    assert "you lose no points" in marked.notes[0]


@pytest.mark.parametrize(
    ("function", "mistake", "lost"),
    [
        ("VAE.negative_iwae_bound", "no − log m", ["niwae"]),
        ("GMVAE.negative_iwae_bound", "mean of logarithms", ["niwae"]),
        ("GMVAE.negative_elbo_bound", "prior without − log k", ["nelbo", "kl"]),
        ("VAE.negative_elbo_bound", "KL without ½", ["nelbo", "kl"]),
        ("SSVAE.negative_elbo_bound", "kl_y left out", ["nelbo"]),
        ("FSVAE.negative_elbo_bound", "kl left out", ["nelbo"]),
        ("VAE.negative_elbo_bound", "without gradient", ["gradient"]),
        ("FSVAE.negative_elbo_bound", "without gradient", ["gradient"]),
    ],
)
def test_other_draws_hide_no_mistake(function, mistake, lost):
    [wrong] = [m for m in MISTAKES[function] if m.name == mistake]
    assert mark(function, other_draws(wrong.run)).lost == lost


def test_noise_hides_no_mistake():
    def noisy(model, x):
        nelbo, kl, rec = model.negative_elbo_bound(x)
        noise = 1000 * torch.randn(())
        return 0.5 * nelbo + noise, kl, 0.5 * rec + noise

    marked = mark("VAE.negative_elbo_bound", noisy)
    assert {"nelbo", "rec"} <= set(marked.lost)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda m, v: m + v.sqrt() * (torch.rand_like(m) - 0.5) * 12**0.5, "not normal"),
        (lambda m, v: m + 2 * v.sqrt() * torch.randn_like(m), "variance"),
        (lambda m, v: m + 0.5 + v.sqrt() * torch.randn_like(m), "mean"),
        (lambda m, v: m + v.sqrt() * torch.randn(m.shape[-1]), "share their noise"),
    ],
)
def test_draws_of_another_distribution_lose_points(wrong, reason):
    marked = mark("sample_gaussian", lambda m, v: (torch.rand(1), wrong(m, v.expand_as(m)))[1])
    assert "draws" in marked.lost and reason in marked.reasons[0]


def test_numbers_beyond_all_measure_pass_no_test():
    """Their squares overflow, and no comparison with nan is true."""
    calls = [0]

    def huge(model, x):
        calls[0] += 1
        value = torch.tensor((-1) ** calls[0] * 1.7e308, dtype=torch.float64)
        return value, value, value

    assert mark("VAE.negative_elbo_bound", huge).score == 0


def drawn(model, x, *y):
    """q's parameters and a draw of it, in another order than the reference's."""
    m, v = model.enc.encode(x, *y)
    return m, v, m + v.sqrt() * torch.randn(m.T.shape).T


def terms(kl, rec):
    return kl.mean() + rec.mean(), kl.mean(), rec.mean()


def _rec(model, x, z):
    return -utils.log_bernoulli_with_logits(x, model.dec.decode(z))


def _kl(model, m, v):
    return utils.kl_normal(m, v, *model.z_prior)


def _detached_z(model, x):
    m, v, z = drawn(model, x)
    return terms(_kl(model, m, v), _rec(model, x, z.detach()))


def _detached_kl(model, x):
    m, v, z = drawn(model, x)
    return terms(_kl(model, m, v).detach(), _rec(model, x, z))


def _detached_prior(model, x):
    m, v, z = drawn(model, x)
    p_m, p_v = utils.gaussian_parameters(model.z_pre.detach(), dim=1)
    kl = utils.log_normal(z, m, v) - utils.log_normal_mixture(z, p_m, p_v)
    kl = kl + 1e-3 * (model.z_pre - model.z_pre.detach()).sum()
    return terms(kl, _rec(model, x, z))


def _other_k(model, x):
    kl, rec = (term for term in _mixture(model, x))
    return terms(kl + math.log(model.k + 1) - math.log(model.k), rec)


def _no_last_component(model, x):
    m, v, z = drawn(model, x)
    p_m, p_v = (p[:, :-1] for p in model.z_prior)
    kl = utils.log_normal(z, m, v) - utils.log_normal_mixture(z, p_m, p_v)
    return terms(kl, _rec(model, x, z))


def _mixture(model, x):
    m, v, z = drawn(model, x)
    kl = utils.log_normal(z, m, v) - utils.log_normal_mixture(z, *model.z_prior)
    return kl, _rec(model, x, z)


def _loop(model, x, iw, detach=False):
    """Log weights, (batch, iw), drawn one after the other."""
    weights = []
    for _ in range(iw):
        m, v = model.enc.encode(x)
        z = utils.sample_gaussian(m, v)
        z = z.detach() if detach else z
        kl = utils.log_normal(z, m, v) - utils.log_normal(z, *model.z_prior)
        weights.append((kl, _rec(model, x, z)))
    kl, rec = (torch.stack(term, 1) for term in zip(*weights, strict=True))
    return -kl - rec, kl.mean(), rec.mean()


def _detached_weights(model, x, iw):
    weights, kl, rec = _loop(model, x, iw, detach=True)
    return -utils.log_mean_exp(weights, 1).mean(), kl, rec


def _one_more(model, x, iw):
    weights, kl, rec = _loop(model, x, iw)
    return -(weights.logsumexp(1) - math.log(iw + 1)).mean(), kl, rec


def _first_weights(model, x, iw):
    weights, kl, rec = _loop(model, x, iw)
    return -utils.log_mean_exp(weights[:, : iw // 2], 1).mean(), kl, rec


def _detached_style(model, x, y):
    m, v, z = drawn(model, x, y)
    mean = model.dec.decode(z.detach(), y)
    return terms(_kl(model, m, v), -utils.log_normal(x, mean, torch.tensor([0.1])))


@pytest.mark.catalogue
@pytest.mark.parametrize(
    ("function", "wrong"),
    [
        ("VAE.negative_elbo_bound", _detached_z),
        ("VAE.negative_elbo_bound", _detached_kl),
        ("GMVAE.negative_elbo_bound", _detached_prior),
        ("GMVAE.negative_elbo_bound", _other_k),
        ("GMVAE.negative_elbo_bound", _no_last_component),
        ("VAE.negative_iwae_bound", _detached_weights),
        ("VAE.negative_iwae_bound", _one_more),
        ("VAE.negative_iwae_bound", _first_weights),
        ("FSVAE.negative_elbo_bound", _detached_style),
    ],
)
def test_other_draws_hide_no_small_mistake(function, wrong):
    marked = mark(function, wrong)
    assert marked.lost, marked.notes


# Noise: z = m + √v·ε, an ε for each element, whatever draws it


def ssvae_bound(model, x):
    """The SSVAE's bound as students write it, with a draw for every label from q(z|x, y).

    The solution draws standard noise, in which a wrong variance would not show.
    """
    log_q_y = model.cls.classify(x).log_softmax(-1)
    q_y, y = log_q_y.exp().T, torch.eye(10, dtype=x.dtype)[:, None]
    m, v = model.enc.encode(x, y)
    z = utils.sample_gaussian(m, v)
    kl_z = (q_y * utils.kl_normal(m, v, *model.z_prior)).sum(0).mean()
    rec = -(q_y * utils.log_bernoulli_with_logits(x, model.dec.decode(z, y))).sum(0).mean()
    kl_y = utils.kl_cat(q_y.T, log_q_y, -math.log(10)).mean()
    return kl_y + kl_z + rec, kl_z, kl_y, rec


def sampled(function: str, sample):
    """A bound that draws z in another way."""
    problem = BY_FUNCTION[function]
    right = getattr(cases.MODELS[problem.model], problem.method)
    right = ssvae_bound if problem.model == "SSVAE" else right

    def run(model, *args):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(utils, "sample_gaussian", sample)
            return right(model, *args)

    return run


def by_numpy(m, *shape):
    return torch.from_numpy(np.random.standard_normal(shape or tuple(m.shape))).to(m.dtype)


RIGHT_NOISE = {
    "in another order": lambda m, v: (
        m + v.sqrt() * torch.randn(m.shape[::-1]).permute(*range(m.ndim - 1, -1, -1))
    ),
    "normal_": lambda m, v: m + v.sqrt() * torch.empty(m.shape).normal_(),
    "torch.normal": lambda m, v: torch.normal(torch.zeros(m.shape), 1.0).mul(v.sqrt()).add(m),
    "rsample": lambda m, v: (torch.rand(1), torch.distributions.Normal(m, v.sqrt()).rsample())[1],
    "standard": lambda m, v: m + v.sqrt() * torch.distributions.Normal(0.0, 1.0).sample(m.shape),
    "numpy": lambda m, v: m + v.sqrt() * by_numpy(m),
    "Box-Muller": lambda m, v: (
        m + (-2 * v * torch.rand(m.shape).log()).sqrt() * (2 * math.pi * torch.rand(m.shape)).cos()
    ),
}
WRONG_NOISE = {
    "times v": lambda m, v, noise: m + v * noise(m),
    "0.01": lambda m, v, noise: m + 0.01 * v.sqrt() * noise(m),
    "twice": lambda m, v, noise: m + 2 * v.sqrt() * noise(m),
    "half the variance": lambda m, v, noise: m + (v / 2).sqrt() * noise(m),
    "0.9 of the variance": lambda m, v, noise: m + (0.9 * v).sqrt() * noise(m),
    "one for the batch": lambda m, v, noise: m + v.sqrt() * noise(m, m.shape[-1]),
    "one for all dimensions": lambda m, v, noise: m + v.sqrt() * noise(m, *m.shape[:-1], 1),
    "one for all": lambda m, v, noise: m + v.sqrt() * noise(m, 1),
}


def by_torch(m, *shape):
    return torch.randn(shape or m.shape)


@pytest.mark.catalogue
@pytest.mark.parametrize("function", BOUNDS)
def test_right_noise_loses_nothing(function, monkeypatch):
    """With torch's normal draws right noise loses no points; with others, once in a million times.

    Each of some ten means and spreads may be off by 5 standard errors; here none is off by 4.
    """
    monkeypatch.setattr(comparing, "STANDARD_ERRORS", 4)
    for seed in range(cases.SEEDS):
        np.random.seed(seed)
        for name, sample in RIGHT_NOISE.items():
            if seed and name in ("numpy", "Box-Muller"):
                continue
            marked = mark(function, sampled(function, sample), seed)
            assert marked.score == marked.points, (name, seed, marked.reasons)


SOME = ("times v", "half the variance", "one for the batch", "one for all dimensions")


def expect_wrong_noise_to_lose(function, monkeypatch, seeds, names) -> int:
    """Wrong noise loses points: always with torch's normal draws, otherwise 999 times in 1,000.

    To be found so often, it must be off by 8.1 standard errors: the limit of 5, plus 3.1.

    An exception is a change that a bound hardly shows: 10 % of the variance drawn by NumPy.
    """
    tried = 0
    for seed in seeds:
        for name in names:
            for noise in (by_torch, by_numpy):
                by_chance = noise is by_numpy
                if by_chance and (name == "0.9 of the variance" or seed):
                    continue
                monkeypatch.setattr(comparing, "STANDARD_ERRORS", 8.1 if by_chance else 5)
                np.random.seed(seed)
                wrong = WRONG_NOISE[name]
                run = sampled(function, lambda m, v, w=wrong, n=noise: w(m, v, n))
                marked = mark(function, run, seed)
                assert {marked.problem.terms[0], "rec"} <= set(marked.lost), (name, seed, by_chance)
                tried += 1
    return tried


@pytest.mark.catalogue
@pytest.mark.parametrize("function", BOUNDS)
def test_wrong_noise_loses_points(function, monkeypatch):
    expect_wrong_noise_to_lose(function, monkeypatch, [0], SOME)


@pytest.mark.attack
@pytest.mark.parametrize("function", BOUNDS)
def test_all_wrong_noise_loses_points(function, monkeypatch, count):
    seeds = range(cases.SEEDS)
    count("wrong noise", expect_wrong_noise_to_lose(function, monkeypatch, seeds, WRONG_NOISE))


@pytest.mark.parametrize("function", BOUNDS)
def test_noise_that_is_kept_loses_points(function):
    """Noise kept between calls of one model, or by a seed set inside, loses points."""
    kept = {}

    def keeps(m, v):
        if m.shape not in kept:
            kept[m.shape] = torch.randn_like(m)
        return m + v.sqrt() * kept[m.shape]

    def seeds(m, v):
        torch.manual_seed(0)
        return m + v.sqrt() * torch.randn_like(m)

    for sample in (keeps, seeds):
        kept.clear()
        marked = mark(function, sampled(function, sample))
        assert {marked.problem.terms[0], "rec"} <= set(marked.lost)
        assert "the same noise at every call" in marked.reasons[0]


@pytest.mark.parametrize("function", [name for name in BOUNDS if "elbo" in name])
def test_a_mean_over_several_draws_is_right(function):
    problem = BY_FUNCTION[function]
    right = getattr(cases.MODELS[problem.model], problem.method)

    def run(model, *args):
        return tuple(
            sum(terms) / 5 for terms in zip(*(right(model, *args) for _ in range(5)), strict=True)
        )

    marked = mark(function, run)
    assert marked.score == marked.points, marked.reasons


def test_sharing_noise_between_labels_is_right():
    """q(z|x, y) of each label then has the right z, on average."""

    def shared(m, v):
        return m + v.sqrt() * torch.randn(m.shape[1:])

    marked = mark("SSVAE.negative_elbo_bound", sampled("SSVAE.negative_elbo_bound", shared))
    assert marked.score == marked.points, marked.reasons


def test_kl_has_two_estimators():
    """In closed form, at the draw, and with the entropy of q in closed form."""
    for function, others in alternatives.ALTERNATIVES.items():
        for run in (*others, *map(other_draws, others)):
            marked = mark(function, run)
            assert marked.score == marked.points, (function, marked.reasons)


def test_an_axis_that_is_found_by_its_size_loses_points():
    for function in ("VAE.negative_iwae_bound", "GMVAE.negative_iwae_bound"):
        [wrong] = [m for m in MISTAKES[function] if m.name == "axis found by its size"]
        assert mark(function, wrong.run).lost == ["niwae"]


def test_a_seed_changes_no_mark():
    """A comment in a submission changes its seed."""
    for function in ("VAE.negative_elbo_bound", "SSVAE.negative_elbo_bound"):
        for mistake in MISTAKES[function]:
            assert len({mark(function, mistake.run, s).score for s in range(cases.SEEDS)}) == 1


# What costs points, and what gets a note


def test_the_published_forms_get_full_points():
    for function, right in {
        "sample_gaussian": lambda m, v: m + torch.randn_like(v) * v.sqrt(),
        "log_normal_mixture": lambda z, m, v: (
            utils.log_normal(z.unsqueeze(1).expand_as(m), m, v).logsumexp(1) - math.log(m.shape[1])
        ),
        "log_normal": lambda x, m, v: (
            -0.5 * ((x - m) ** 2 / v).sum(-1)
            - 0.5 * v.log().sum(-1)
            - 0.5 * x.shape[-1] * math.log(2 * math.pi)
        ),
    }.items():
        marked = mark(function, right)
        assert marked.score == marked.points and not marked.lost, marked.reasons
        assert "You lose no points for that." in marked.notes[0]


@pytest.mark.parametrize(
    ("function", "returned", "lost"),
    [
        ("VAE.negative_elbo_bound", lambda n, kl, rec: (n, kl * 7, rec), ["kl"]),
        ("VAE.negative_elbo_bound", lambda n, kl, rec: (n, kl, rec / 3), ["rec"]),
        ("VAE.negative_elbo_bound", lambda n, kl, rec: n, ["kl", "rec"]),
        ("GMVAE.negative_elbo_bound", lambda n, kl, rec: (n, kl / 10, rec), ["kl"]),
        ("SSVAE.negative_elbo_bound", lambda n, *terms: n, ["kl_z", "kl_y", "rec"]),
        ("FSVAE.negative_elbo_bound", lambda n, kl, rec: (n, kl, rec / 3), ["rec"]),
    ],
)
def test_a_wrong_term_costs_a_right_bound_nothing(function, returned, lost):
    problem = BY_FUNCTION[function]
    right = getattr(cases.MODELS[problem.model], problem.method)
    marked = mark(function, lambda model, *args: returned(*right(model, *args)))
    assert marked.lost == lost, marked.reasons


def test_separate_draws_for_the_terms_of_kl_are_right():
    def run(model, x):
        m, v = model.enc.encode(x)
        z, other = (utils.sample_gaussian(m, v) for _ in range(2))
        return terms(utils.log_normal(z, m, v) - model.log_p_z(other), _rec(model, x, z))

    for function in ("VAE.negative_elbo_bound", "GMVAE.negative_elbo_bound"):
        marked = mark(function, run)
        assert marked.score == marked.points, marked.reasons


@pytest.mark.parametrize("function", ["VAE.negative_elbo_bound", "SSVAE.negative_elbo_bound"])
def test_the_graders_batch_size_alone_is_not_enough(function):
    problem = BY_FUNCTION[function]
    right = getattr(cases.MODELS[problem.model], problem.method)

    def run(model, x):
        bound, *others = right(model, x)
        return bound * len(x) / cases.BATCHES[problem.model], *others

    assert mark(function, run).lost == [problem.terms[0]]


def test_behaving_while_draws_are_set_is_not_enough():
    """A function that looks for the grader's constant noise."""

    def sample(m, v):
        noise = torch.randn(m.shape[::-1]).permute(*range(m.ndim - 1, -1, -1))
        return m + v.sqrt() * (noise if bool((noise == noise.flatten()[0]).all()) else 0.01 * noise)

    for function in BOUNDS:
        assert mark(function, sampled(function, sample)).lost, function
    assert "draws" in mark("sample_gaussian", sample).lost


def test_a_wrong_name_is_not_given():
    """Noise of another kind than the catalogue's."""

    def sample(m, v):
        noise = torch.randn(m.shape)
        return m + v.sqrt() * torch.cat([noise[..., :1], noise[..., :1], noise[..., 2:]], -1)

    for function in BOUNDS:
        marked = mark(function, sampled(function, sample))
        assert "rec" in marked.lost and marked.mistakes == (), (function, marked.mistakes)


def test_a_slip_that_has_no_name_keeps_its_gradient():
    """What resembles the right values is not garbage."""
    marked = mark("log_normal", lambda x, m, v: 1.01 * utils.log_normal(x, m, v))
    assert marked.lost == ["values"] and marked.mistakes == ()


def test_clipped_variances_get_a_note():
    def clipped(x, m, v):
        return utils.log_normal(x, m, v.clamp(min=1e-4))

    marked = mark("log_normal", clipped)
    assert marked.score == 4 and "far outside the training range" in marked.notes[0]


def test_right_functions_that_do_not_fit_together_cost_a_little():
    """GMVAE passes (1, k, dim) to a mixture that expects (batch, k, dim)."""
    function = "GMVAE.negative_elbo_bound"

    def run(case, helpers):
        if helpers is not None and "log_normal_mixture" in helpers.names:
            return cases.Output(cases.reference(case))
        return cases.Output(None, "RuntimeError: expand", "RuntimeError")

    right = {name: mark(name) for name in cases.MARKED_BEFORE}
    marked = marking.mark(BY_FUNCTION[function], 7, SEED, run, right)
    assert marked.score == pytest.approx(0.8 * 7) and "do not accept" in marked.notes[0]


def test_garbage_gets_nothing():
    """Gradients that are there and shapes that are right are worth nothing by themselves."""

    def bound(model, x):
        m, v = model.enc.encode(x)
        total = m.sum() + v.sum() + model.dec.decode(m).sum()
        return total, total, total

    assert mark("log_normal", lambda x, m, v: (x + m + v).sum(-1)).score == 0
    assert mark("sample_gaussian", lambda m, v: m + v).score == 0
    assert mark("VAE.negative_elbo_bound", bound).score == 0


def test_a_wrong_gradient_is_not_called_a_detached_one():
    def doubled(x, m, v):
        value = utils.log_normal(x, m, v)
        return 2 * value - value.detach()

    marked = mark("log_normal", doubled)
    assert marked.lost == ["gradient"] and not marked.mistakes


def test_float32_alone_is_right():
    def single(x, m, v):
        inside = math.log(2 * math.pi) + v.log() + (x - m) ** 2 / v
        return -0.5 * torch.matmul(inside, torch.ones(inside.shape[-1]))

    marked = mark("log_normal", single)
    assert marked.score == 4 and "float32" in marked.notes[0]


def test_helpers_hold_no_part_of_what_is_asked_for():
    for problem in PROBLEMS:
        source = cases.helpers_for(problem).sources["utils"]
        tree = {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
        later = {"sample_gaussian", "log_normal", "log_normal_mixture", "_log_normal_all_pairs"}
        if problem.model:
            assert later <= tree
        else:
            given = cases.MARKED_BEFORE[problem.function]
            assert tree & later == given


def test_two_mistakes_are_both_named():
    def both(model, x):
        q_m, q_v = model.enc.encode(x)
        z = utils.sample_gaussian(q_m, q_v)
        zero, one = torch.zeros_like(q_m), torch.ones_like(q_v)
        kl = utils.kl_normal(zero, one, q_m, q_v).mean()
        rec = utils.log_bernoulli_with_logits(x, model.dec.decode(z)).mean()
        return kl + rec, kl, rec

    marked = mark("VAE.negative_elbo_bound", both)
    assert [mistake.name for mistake in marked.mistakes] == ["KL reversed", "sign of rec"]


@pytest.mark.parametrize("function", BOUNDS)
def test_one_batch_size_alone_is_a_deduction(function):
    problem = BY_FUNCTION[function]

    def wired(model, x, *more):
        right = getattr(cases.MODELS[problem.model], problem.method)(model, x, *more)
        return tuple(term * len(x) / 100 for term in right)

    marked = mark(function, wired)
    assert marked.score == pytest.approx(0.8 * problem.points)
    assert "batches of 100" in marked.notes[0]


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
    + ['{"log_normal": NaN}', '{"log_normal": true}', "[" * 100_000, '{"log_normal": 1e300}'],
)
def test_points_that_are_none_are_refused(tmp_path, content):
    path = tmp_path / "points.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="--points"):
        problems.read_points(path)


# Answers, which a submission may have written itself


def test_an_answer_is_numbers_of_the_form_that_the_case_has():
    case = cases.cases(BY_FUNCTION["log_normal"], 1)["values"]
    right = {"calls": cases.reference(case)}
    assert sandbox.checked(json.loads(json.dumps(right)), case).calls == right["calls"]
    output = right["calls"][0][0]
    for wrong in (
        {"calls": None},
        {"calls": []},
        {"calls": [[]]},
        {"calls": [[output, output]]},
        {"calls": [[output], [output]]},
        {"calls": [[{}]]},
        {"calls": [[None]]},
        {"calls": [[output | {"values": 1}]]},
        {"calls": [[output | {"values": [["1e", 2]]}]]},
        {"calls": [[output | {"values": [[1.0]]}]]},
        {"calls": [[output | {"shapes": [[-8]]}]]},
        {"calls": [[output | {"shapes": []}]]},
        {"calls": [[output | {"gradients": [1]}]]},
        {"calls": [[output | {"gradients": {"0": [1.0]}}]]},
        {"calls": [[output | {"gradients": {"x": 1.0}}]]},
        {"calls": [[output | {"gradients": {"9": [1.0]}}]]},
        {"error": 7, "kind": [], "printed": 3, "missing": 4, "broken": [1], "cpu": "x"},
        {},
    ):
        kept = sandbox.checked(wrong, case)
        assert kept.calls is None and isinstance(kept.error, str) and kept.cpu == 0
    case = cases.cases(BY_FUNCTION["sample_gaussian"], 1)["set noise"]
    output = cases.reference(case)[0][0]
    for wrong in ({"noise": 3}, {"noise": [["x"]]}, {"drawn": None}, {"noise": None}):
        assert sandbox.checked({"calls": [[output | wrong], [output]]}, case).calls is None


# Submissions as they are


def test_a_submission_is_found_wherever_it_lies(tmp_path):
    files = students.homework()
    noise = {
        "__MACOSX/hw2/codebase/._utils.py": b"\0\5\26\7",
        "hw2/notebook.ipynb": "{}",
        "hw2/.git/codebase/utils.py": "",
        "hw2/checkpoints/model=vae_z=10_run=0000/model-20000.pt": b"PK",
        "hw2/checkpoints/model=vae_z=10_run=0000/state.pkl": b"cos\nsystem\n",
    }
    nested = {f"hw2/{name}": content for name, content in files.items()} | noise
    for path in (
        students.zipped(tmp_path / "a.zip", files),
        students.zipped(tmp_path / "b.zip", nested),
        students.folder(tmp_path / "c", nested),
        students.folder(tmp_path / "d", nested) / "hw2",
        students.folder(tmp_path / "e", files) / "codebase",
    ):
        found = submission.read(path)
        assert (found.package, found.sources) == ("codebase", files)
    assert list(submission.read(tmp_path / "b.zip").weights) == [("model=vae_z=10_run=0000", 20000)]
    successor = submission.read(
        students.zipped(tmp_path / "f.zip", students.homework(package="submission"))
    )
    assert successor.package == "submission" and "submission/models/vae.py" in successor.sources


def test_text_is_read_as_it_was_written(tmp_path):
    files = students.homework()
    utf8 = files["codebase/utils.py"]
    files["codebase/utils.py"] = b"\xef\xbb\xbf" + utf8.replace("\n", "\r\n").encode()
    files["codebase/models/vae.py"] = "# d\xe9j\xe0\n".encode("latin-1")
    files["codebase/models/gmvae.py"] = "# coding: latin-1\n# \xe9\n".encode("latin-1")
    files["codebase/models/ssvae.py"] = "x = 1\n".encode("utf-16")
    files["codebase/models/fsvae.py"] = b"x = 1\0\n"
    found = submission.read(students.zipped(tmp_path / "a.zip", files))
    assert found.sources["codebase/utils.py"] == utf8
    assert found.sources["codebase/models/vae.py"] == "# déjà\n"
    assert found.sources["codebase/models/gmvae.py"] == "# coding: latin-1\n# é\n"
    assert found.sources["codebase/models/ssvae.py"].endswith("x = 1\n")
    assert [note.split()[0] for note in found.notes] == [
        "codebase/models/ssvae.py",
        "codebase/models/vae.py",
    ]


def test_what_would_take_long_to_read_does_not(tmp_path):
    """Encodings and layouts whose time would grow with the square of their size."""
    files = students.homework() | {"codebase/a.py": b"# coding: punycode\n#-" + b"a" * 900_000}
    files |= {f"d{i}/utils.py": "" for i in range(9000)} | {f"e{i}/x.py": "" for i in range(9000)}
    path = students.zipped(tmp_path / "a.zip", files)
    begun = time.process_time()
    found = submission.read(path)
    assert time.process_time() - begun < 5
    assert found.sources.keys() - {"codebase/a.py"} == students.homework().keys()
    assert any("a.py is not UTF-8; it was read as latin-1" in note for note in found.notes)


def test_notes_about_files_are_few(tmp_path):
    link = [zipfile.ZipInfo(f"{i}.py") for i in range(100)]
    path = students.zipped(tmp_path / "a.zip", students.homework())
    with zipfile.ZipFile(path, "a") as archive:
        for entry in link:
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, "x")
    assert submission.read(path).notes[-1] == "More files were ignored: 80."


def test_what_leads_out_of_a_zip_is_left_out(tmp_path):
    link = zipfile.ZipInfo("codebase/models/secret.py")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    for name in ("/etc/codebase/utils.py", "../../codebase/utils.py", "a/../../codebase/x.py"):
        path = students.zipped(tmp_path / "a.zip", students.homework())
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, "raise")
            archive.writestr(link, "/etc/passwd")
        found = submission.read(path)
        assert found.sources == students.homework()
        assert len(found.notes) == 2 and "ignored" in found.notes[0]
    assert sorted(os.listdir(tmp_path)) == ["a.zip"]


def test_links_and_pipes_in_a_folder_are_left_out(tmp_path):
    root = students.folder(tmp_path / "a", students.homework())
    (tmp_path / "secret.py").write_text("secret = 1", encoding="utf-8")
    (root / "codebase" / "secret.py").symlink_to(tmp_path / "secret.py")
    (root / "codebase" / "above").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(root / "codebase" / "pipe.py")
    found = submission.read(root)
    assert found.sources == students.homework() and len(found.notes) == 2


def test_bombs_are_not_unpacked(tmp_path):
    files = students.homework()
    path = students.zipped(tmp_path / "a.zip", files | {"codebase/big.py": bytes(1 << 28)})
    found = submission.read(path)
    assert found.sources == files and "more than 1,048,576 bytes" in found.notes[0]
    many = {f"codebase/{number}.py": bytes(1_000_000) for number in range(20)}
    found = submission.read(students.zipped(tmp_path / "b.zip", files | many))
    assert sum(map(len, found.sources.values())) <= submission.LARGEST_SUM
    entries = io.BytesIO()
    with zipfile.ZipFile(entries, "w") as archive:
        for number in range(submission.MOST_ENTRIES + 1):
            archive.writestr(str(number), "")
    (tmp_path / "c.zip").write_bytes(entries.getvalue())
    with pytest.raises(UserError, match="more than 20,000 entries"):
        submission.read(tmp_path / "c.zip")


def test_what_is_no_submission_is_refused_with_the_reason(tmp_path):
    (tmp_path / "text.zip").write_text("text", encoding="utf-8")
    students.zipped(tmp_path / "other.zip", {"a/b.py": "x"})
    students.zipped(tmp_path / "notebook.zip", {"hw2.ipynb": "{}"})
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.zip")
    for name, reason in {
        "text.zip": "cannot be read as a zip",
        "other.zip": "expected a folder codebase/ or submission/",
        "notebook.zip": "notebooks are not graded",
        "empty": "it is empty",
        "pipe.zip": "not an ordinary file",
        "missing.zip": "there is no such zip or folder",
    }.items():
        with pytest.raises(UserError, match=reason):
            submission.read(tmp_path / name)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_compression_is_left_out(tmp_path, method):
    """Its reader unpacks without a limit: a few kilobytes may hold gigabytes."""
    path = students.zipped(tmp_path / "a.zip", students.homework())
    with zipfile.ZipFile(path, "a", method) as archive:
        archive.writestr("codebase/bomb.py", bytes(1 << 20))
    found = submission.read(path)
    assert found.sources == students.homework()
    assert "codebase/bomb.py was ignored: it is not compressed" in found.notes[0]


def test_any_coding_line_is_survived(tmp_path):
    for coding in ("undefined", "idna", "punycode", "utf-7", "rot13", "hex", "mbcs", "zlib"):
        files = students.homework() | {"codebase/utils.py": f"# coding: {coding}\nx = 1\n"}
        found = submission.read(students.zipped(tmp_path / "a.zip", files))
        assert found.sources.keys() == files.keys()


def test_a_damaged_file_costs_itself_alone(tmp_path):
    files = students.homework()
    path = students.zipped(tmp_path / "a.zip", files)
    with zipfile.ZipFile(path) as archive:
        begins = archive.getinfo("codebase/models/fsvae.py").header_offset
    content = bytearray(path.read_bytes())
    content[begins + 60] ^= 0xFF
    path.write_bytes(content)
    found = submission.read(path)
    assert found.sources.keys() == files.keys() - {"codebase/models/fsvae.py"}
    assert "codebase/models/fsvae.py was ignored" in found.notes[0]


# Reports


def graded(**changed) -> grade.Graded:
    """A submission with one mistake, and texts that it wrote."""
    marks = [mark(function) for function in BY_FUNCTION]
    [wrong] = [m for m in MISTAKES["log_normal"] if m.name == "no log 2π"]
    marks[2] = mark("log_normal", wrong.run)
    fields = {"name": "a|b", "package": "codebase", "marks": tuple(marks), "notes": ()}
    fields |= {"printed": "", "seconds": dict.fromkeys(BY_FUNCTION, 0.1)}
    return grade.Graded(**fields | changed)


def test_results_are_gradescopes():
    found = report.results(graded(), "key")
    assert found["score"] == 53.6 and found["stdout_visibility"] == "hidden"
    assert [test["max_score"] for test in found["tests"]] == list(POINTS.values())
    wrong = found["tests"][2]
    assert (wrong["number"], wrong["name"]) == ("2.1", "log_normal")
    assert (wrong["score"], wrong["status"], wrong["visibility"]) == (1.6, "failed", "visible")
    assert wrong["extra_data"]["mistakes"] == ["no log 2π"]
    assert "You leave out −½ log 2π; add it for every dimension." in wrong["output"]
    assert found["tests"][8]["name"] == "FSVAE.negative_elbo_bound (bonus)"
    assert report.total(found) == "49.6 of 52, and 4 bonus"
    formats = {"text", "html", "simple_format", "md", "ansi"}
    assert all(test["output_format"] in formats for test in found["tests"])
    hidden = report.results(graded(), show_points=False, show_output=True)
    assert {test["visibility"] for test in hidden["tests"]} == {"hidden"}
    assert hidden["stdout_visibility"] == "visible"
    assert "log_normal: You leave out −½ log 2π" in hidden["output"]
    assert "points**" not in report.markdown(hidden) and "points**" in report.markdown(found)


def test_what_a_submission_prints_is_shown_by_flag_alone():
    shy = graded(printed="SECRET\nlines")
    for shown in (False, True):
        results = report.results(shy, show_output=shown)
        assert (b"SECRET" in report.encoded(results)) is shown
        assert ("    SECRET\n    lines\n" in report.markdown(results)) is shown


def test_texts_of_a_submission_command_neither_terminal_nor_page():
    evil = "\x1b[2J\x07\u202e<script>|`[a](b)`\r\n# heading"
    hostile = report.results(graded(name=evil, notes=(evil,), printed=evil), show_output=True)
    for text in (report.table(hostile), report.markdown(hostile), hostile["output"]):
        assert not set(text) & set("\x1b\x07\r\u202e")
    page = report.markdown(hostile)
    assert (
        "<script>" not in page.replace("\\<script\\>", "").replace("    �", "").split("prints")[0]
    )
    assert not any(line.startswith("# heading") for line in page.splitlines())


def test_a_reason_stays_in_its_line():
    """A second one might pass for the grader's own."""

    def run(case, helpers):
        return cases.Output(None, "x\n  total   58 of 52\nother:", "ValueError")

    problem = BY_FUNCTION["log_normal"]
    marks = list(graded().marks)
    marks[2] = marking.mark(problem, 4, SEED, run)
    forged = graded(marks=tuple(marks))
    assert report.table(report.results(forged)).count("\n  total") == 1
    assert "\nother:" not in report.table(report.results(forged))
    assert all("\n" not in line for line in report.explanation(marks[2]))
