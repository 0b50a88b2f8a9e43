"""The homework's figures from bounds with known terms: what is averaged, repeated and printed."""

import math

import pytest
import torch

from codebase import evaluate
from codebase import utils as ut
from codebase.models import FSVAE, GMVAE, SSVAE, VAE
from codebase.runs.test_set import evaluate_test_set

SUBSET = torch.zeros(100, 784), torch.eye(10).repeat_interleave(10, 0)


class Counting(torch.nn.Module):
    """A model whose n-th evaluation of a bound is known: KL n, Rec 10·n; IWAE-m is m + n."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def observed(self, x, y):
        return (x,)

    def check_images(self, x):
        assert x is SUBSET[0]

    def negative_elbo_bound(self, x):
        assert torch.equal(x, SUBSET[0]) and not torch.is_grad_enabled()
        self.calls.append("elbo")
        kl = torch.tensor(float(len(self.calls)))
        return 11 * kl, kl, 10 * kl

    def negative_iwae_bound(self, x, iw):
        self.calls.append(iw)
        return torch.tensor(float(iw + self.calls.count(iw))), torch.tensor(0.0), torch.tensor(0.0)


def test_lower_bounds_are_means_over_a_hundred_evaluations(capsys):
    model = Counting()
    figures = ut.evaluate_lower_bound(model, SUBSET)
    assert model.calls == 100 * ["elbo"] + 100 * [1] + 10 * [10] + [100, 1000]
    assert figures == {
        "NELBO": 555.5,  # the mean of 1 to 100 is 50.5
        "KL": 50.5,
        "Rec": 505.0,
        "IWAE-1": 51.5,
        "IWAE-10": 15.5,
        "IWAE-100": 101.0,
        "IWAE-1000": 1001.0,
    }
    assert capsys.readouterr().out.splitlines() == [
        "NELBO: 555.5. KL: 50.5. Rec: 505.0",
        "Negative IWAE-1: 51.5",
        "Negative IWAE-10: 15.5",
        "Negative IWAE-100: 101.0",
        "Negative IWAE-1000: 1001.0",
    ]
    assert list(ut.evaluate_lower_bound(model, SUBSET, False)) == ["NELBO", "KL", "Rec"]


def test_labels_are_given_to_a_model_that_knows_them(capsys):
    model = FSVAE()
    x = torch.rand(100, 3072)
    figures = evaluate.evaluate_lower_bound(model, (x, SUBSET[1]), False, repeats=20)
    assert figures["NELBO"] == pytest.approx(figures["KL"] + figures["Rec"], rel=1e-6)


def test_accuracy_is_the_share_of_labels_found(capsys):
    model = SSVAE()

    class Classifier(torch.nn.Module):
        def classify(self, x):
            return x[:, :10]

    model.cls = Classifier()
    x = torch.eye(784)[:10]
    y = torch.tensor([0, 1, 2, 3, 4, 5, 6, 0, 0, 0])
    for labels in (y, torch.eye(10)[y]):  # one-hot labels too
        assert evaluate.evaluate_classifier(model, (x, labels)) == 0.7
        assert capsys.readouterr().out == "Test set classification accuracy: 0.7\n"
        by_class = evaluate.accuracy_by_class(model, (x, labels))
        assert by_class == [0.25, 1, 1, 1, 1, 1, 1, 0, 0, 0]


def test_an_ssvaes_bound_has_its_own_terms(capsys):
    figures = evaluate.evaluate_lower_bound(SSVAE(), SUBSET, repeats=20)
    assert list(figures) == ["NELBO", "KL_z", "KL_y", "Rec"]
    assert figures["NELBO"] == pytest.approx(sum(list(figures.values())[1:]), rel=1e-5)
    line = "NELBO: {NELBO}. KL_z: {KL_z}. KL_y: {KL_y}. Rec: {Rec}\n".format(**figures)
    assert capsys.readouterr().out == line


WRONG_IMAGES = {
    "as pictures": (torch.zeros(3, 1, 28, 28), "x.flatten"),
    "one image": (torch.zeros(784), r"x.reshape\(1, -1\)"),
    "doubles": (torch.zeros(3, 784, dtype=torch.float64), r"x.to\(torch.float32\)"),
    "bytes": (torch.full((3, 784), 255, dtype=torch.uint8), r"x.float\(\) / 255"),
    "0 and 1 as bytes": (torch.ones(3, 784, dtype=torch.uint8), r"x.float\(\)$"),
    "0 to 255": (torch.full((3, 784), 255.0), "x / 255"),
    "below 0": (torch.full((3, 784), -0.5), "got -0.5 to -0.5: scale them"),
    "of another kind": (torch.zeros(3, 3072), "another size"),
}


@pytest.mark.parametrize("name", WRONG_IMAGES)
def test_images_of_another_form_are_refused(name):
    x, message = WRONG_IMAGES[name]
    for act in (
        lambda: VAE().reconstruct(x),
        lambda: ut.evaluate_lower_bound(VAE(), (x, x)),
        lambda: ut.evaluate_classifier(SSVAE(), (x, x)),
        lambda: VAE().negative_elbo_bound(x),
        lambda: GMVAE(k=3).negative_iwae_bound(x, 2),
        lambda: SSVAE().negative_elbo_bound(x),
    ):
        with pytest.raises(ValueError, match=message):
            act()


def test_labels_that_are_not_one_hot_are_refused():
    wrong = (torch.tensor([1, 2]), torch.eye(10)[:1], torch.zeros(2, 7), torch.eye(10)[:2].double())
    for y in (*wrong, [1, 2]):
        with pytest.raises(ValueError, match="expected y to be one-hot labels of shape .2, 10."):
            FSVAE().negative_elbo_bound(torch.zeros(2, 3072), y)


def test_when_a_bound_looks_at_the_range():
    """At the first call, and whenever it is not a training step."""
    model, x = VAE(), torch.zeros(2, 784)
    model.negative_elbo_bound(x)
    model.negative_elbo_bound(x + 255)  # a training step does not look again
    for change in (model.eval, lambda: model.train().requires_grad_(False)):
        change()
        with pytest.raises(ValueError, match="got 255 to 255: x / 255"):
            model.negative_elbo_bound(x + 255)
    for iw in (0, -1, 2.5, None):
        with pytest.raises(ValueError, match=f"iw is {iw}, expected a whole number"):
            model.negative_iwae_bound(x, iw)


@pytest.mark.parametrize("kind", [VAE, GMVAE])
def test_the_whole_test_set(kind, capsys):
    """Means over images and their standard errors, as from each image by itself."""
    torch.manual_seed(0)
    model, images = kind(z_dim=3), torch.rand(130, 784)
    found = evaluate_test_set(model, images, iw=40)
    torch.manual_seed(0)
    x = ut.sample_bernoulli(images)
    with torch.no_grad():
        terms = [model.importance_terms(part, 40) for part in x.split(100)]
    log_w = -torch.cat([kl + rec for kl, rec in terms], dim=1).double()
    for name, values in (
        ("NELBO", -log_w.mean(0)),
        ("IWAE-40", -log_w.logsumexp(0) + math.log(40)),
    ):
        mean, error = found[name]
        assert mean == pytest.approx(values.mean().item(), rel=1e-6)
        assert error == pytest.approx(values.std().item() / math.sqrt(130), rel=1e-4)
    line = capsys.readouterr().out
    assert "130 images, binarised with seed 0" in line and f"{found['NELBO'][0]:.2f} ± " in line
