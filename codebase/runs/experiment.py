"""The four experiments of the homework, and what identifies a run of them."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch

from codebase import UserError, data, evaluate
from codebase.data import Data
from codebase.minibatches import Minibatches
from codebase.models.fsvae import FSVAE
from codebase.models.gmvae import GMVAE
from codebase.models.laplace_vae import LaplaceVAE
from codebase.models.likelihoods import BERNOULLI, Gaussian
from codebase.models.ssvae import SSVAE
from codebase.models.vae import VAE
from codebase.runs import options
from codebase.runs.options import OneOf, Option, Real, Whole, exactly


@dataclass(frozen=True)
class Run:
    """What determines the weights of a run: its identity.

    Args:
        model: the kind of model: "vae", "gmvae", "ssvae" or "fsvae"
        options: the values of the model's own flags
        data: "mnist", "svhn" or "synthetic"
        run: its number
        seed: of all its random draws
        batch_size: images in a minibatch
        lr: Adam's learning rate
        compile: 1 where torch.compile computed the loss, which changes last bits; else 0
    """

    model: str
    options: Mapping[str, int | float | str]
    data: str
    run: int
    seed: int
    batch_size: int
    lr: float
    compile: int

    def __post_init__(self):
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    @property
    def experiment(self) -> "Experiment":
        return EXPERIMENTS[self.model]

    @property
    def name(self) -> str:
        """Its folder in checkpoints/ and logs/.

        The homework's name plus a suffix for each non-default choice of data and of the model.
        """
        return self._name(f"_run={self.run:04d}")

    @property
    def group(self) -> str:
        """The name without the run's number, which its replicates share."""
        return self._name("")

    def _name(self, number: str) -> str:
        padded, suffixes = f"model={self.model}", ""
        if self.data == "synthetic":
            suffixes += "_data=synthetic"
        for option in self.experiment.options:
            value = self.options[option.flag]
            if option.digits is not None:
                padded += f"_{option.flag}={value:0{option.digits}d}"
            elif value != option.default:
                suffixes += f"_{option.flag}={exactly(value)}"
        return padded + number + suffixes

    def identity(self) -> dict[str, int | float | str]:
        """Its fields and options by their flags, as records have them."""
        keys = ("data", "run", "seed", "batch_size", "lr", "compile")
        return {"model": self.model, **self.options, **{key: getattr(self, key) for key in keys}}

    @classmethod
    def from_identity(cls, identity: Mapping) -> "Run":
        """The run that `identity` describes. Raises ValueError where there is no such run."""
        model = identity.get("model")
        if not isinstance(model, str) or model not in EXPERIMENTS:
            raise ValueError(f"model is {model!r:.40}")
        experiment = EXPERIMENTS[model]
        types = experiment.types()
        if identity.keys() != types.keys() | {"model"}:
            unknown = sorted(map(str, identity.keys() ^ (types.keys() | {"model"})))
            raise ValueError(f"it lacks {unknown[0]}, or should not have it")
        for flag, kind in types.items():
            try:
                kind.check(identity[flag])
            except ValueError as error:
                raise ValueError(f"{flag}: {error}") from None
        fields = dict(identity)
        own = {option.flag: fields.pop(option.flag) for option in experiment.options}
        return cls(options=own, **fields)

    def numbered(self, number: int, seed: int) -> "Run":
        """A replicate of it."""
        return replace(self, run=number, seed=seed)

    def build(self) -> torch.nn.Module:
        """The model, with weights as they are before training: torch's generator draws them."""
        return self.experiment.build(self)


@dataclass(frozen=True)
class Experiment:
    """What one run script does: the model that it trains, on what, and how it is evaluated.

    Subclasses say how to build, load and evaluate.

    Args:
        model: the kind of model, by its name in runs' names
        dataset: "mnist" or "svhn"
        iter_max: iterations of training by default
        batch_size: images in a minibatch by default
        options: the choices that its model leaves
        next: what to try after it
        classes: labels that the model knows, each a row in a sheet of samples; 0 for none
    """

    model: str
    dataset: str
    iter_max: int
    batch_size: int
    options: tuple[Option, ...]
    next: str
    classes: int = 0

    def types(self) -> dict[str, Whole | Real | OneOf]:
        """What each field of the identity may be, the kind of model excepted."""
        return {option.flag: option.type for option in self.options} | {
            "data": OneOf(self.dataset, "synthetic"),
            "run": options.RUN_NUMBER,
            "seed": options.SEED,
            "batch_size": options.BATCH_SIZE,
            "lr": options.LEARNING_RATE,
            "compile": options.SWITCH,
        }

    def run(self, given: Mapping, source: str) -> Run:
        """The run that some flags describe, with default values for the others.

        Args:
            given: values by their flags
            source: "mnist", "svhn" or "synthetic"
        """
        number = given.get("run", 0)
        return Run(
            model=self.model,
            options={o.flag: given.get(o.flag, o.default) for o in self.options},
            data=source,
            run=number,
            seed=given.get("seed", number),
            batch_size=given.get("batch_size", self.batch_size),
            lr=given.get("lr", 1e-3),
            compile=given.get("compile", 0),
        )

    def build(self, run: Run) -> torch.nn.Module:
        """The model of a run."""
        raise NotImplementedError

    def load(self, run: Run, device: torch.device, data_dir: Path, train: bool) -> Data:
        """The data of a run; without minibatches where no training is to come.

        Raises:
            DataError: a file is missing or damaged
        """
        raise NotImplementedError

    def evaluate(self, model: torch.nn.Module, data: Data) -> dict[str, float]:
        """Print and return the figures that the homework reports."""
        return evaluate.evaluate_lower_bound(model, data.subset)

    def details(self, model: torch.nn.Module, data: Data) -> dict:
        """What results.json has beside the figures; printed to standard error."""
        return {}


NO_IMAGES = torch.empty(0, 784, dtype=torch.uint8)


class _VAE(Experiment):
    """The VAE of the homework and, with other options, of its sister homework and of β-VAEs."""

    def build(self, run: Run) -> VAE:
        kind = LaplaceVAE if run.options["prior"] == "laplace" else VAE
        return kind(name=run.name, **self.shared_options(run))

    def shared_options(self, run: Run) -> dict:
        """The arguments that VAE's constructor and GMVAE's share."""
        own, likelihood = run.options, BERNOULLI
        if own["likelihood"] == "gaussian":
            likelihood = Gaussian(own["sigma2"], squash=torch.sigmoid)
        return {
            "nn": own["nn"],
            "z_dim": own["z"],
            "likelihood": likelihood,
            "beta": own["beta"],
        }

    def load(self, run: Run, device: torch.device, data_dir: Path, train: bool) -> Data:
        """Unlabelled images, and the likelihood test subset."""
        binarised = run.options["likelihood"] == "bernoulli"
        test = data.read_mnist("test", data_dir, run.data)
        images = data.read_mnist("train", data_dir, run.data).x if train else NO_IMAGES
        batches = Minibatches(images.to(device), batch_size=run.batch_size, binarised=binarised)
        return Data(
            batches,
            data.on_device(data.test_subset(test, binarised), device),
            data.on_device(data.as_floats(test), device),
        )


class _GMVAE(_VAE):
    """The VAE with a mixture of Gaussians as its prior."""

    def build(self, run: Run) -> GMVAE:
        return GMVAE(name=run.name, k=run.options["k"], **self.shared_options(run))


class _SSVAE(Experiment):
    """The semi-supervised VAE, 100 images labelled; its figure is its classifier's accuracy."""

    def build(self, run: Run) -> SSVAE:
        weights = {"gen_weight": run.options["gw"], "class_weight": run.options["cw"]}
        return SSVAE(name=run.name, **weights)

    def load(self, run: Run, device: torch.device, data_dir: Path, train: bool) -> Data:
        """Unlabelled images with the 100 labelled ones beside them, those 100, and the test set."""
        images = data.read_mnist("train", data_dir, run.data)
        labelled = data.on_device(data.labelled_subset(images), device)
        batches = Minibatches(images.x.to(device), batch_size=run.batch_size, labelled=labelled)
        test = data.as_floats(data.read_mnist("test", data_dir, run.data))
        return Data(batches, labelled, data.on_device(test, device))

    def evaluate(self, model: SSVAE, data: Data) -> dict[str, float]:
        return {"accuracy": evaluate.evaluate_classifier(model, data.test)}

    def details(self, model: SSVAE, data: Data) -> dict:
        """The accuracy of each class."""
        accuracies = evaluate.accuracy_by_class(model, data.test)
        print("class    " + " ".join(f"{c:>6}" for c in range(self.classes)), file=sys.stderr)
        print("accuracy " + " ".join(f"{a:6.4f}" for a in accuracies), file=sys.stderr)
        return {"accuracy by class": accuracies}


class _FSVAE(Experiment):
    """The fully supervised VAE; its bounds are those of the first 100 training images."""

    def build(self, run: Run) -> FSVAE:
        return FSVAE(name=run.name)

    def load(self, run: Run, device: torch.device, data_dir: Path, train: bool) -> Data:
        """Labelled images, and the first 100 of them."""
        return data.get_svhn_data(device, data_dir, run.data, run.batch_size)

    def evaluate(self, model: FSVAE, data: Data) -> dict[str, float]:
        return evaluate.evaluate_lower_bound(model, data.subset, run_iwae=False)


Z = Option("z", 10, Whole(1, 10_000), "dimensions of the latent variable", digits=2)
VARIANTS = (
    Option("nn", "v1", OneOf("v1", "v3"), "architecture, in codebase/models/nns"),
    Option("likelihood", "bernoulli", OneOf("bernoulli", "gaussian"), "p(x|z) of each pixel"),
    Option("sigma2", 0.392, Real(1e-6, 1e6), "variance of the Gaussian likelihood"),
    Option("beta", 1.0, Real(1e-6, 1e6), "weight of KL in the loss (not in the report)"),
)
PRIOR = Option("prior", "gaussian", OneOf("gaussian", "laplace"), "family of p(z) and q(z|x)")
K = Option("k", 500, Whole(1, 100_000), "components of the mixture", digits=3)
GW = Option("gw", 1, Whole(0, 1_000_000), "weight of the negative ELBO", digits=3)
CW = Option("cw", 100, Whole(0, 1_000_000), "weight of cross-entropy", digits=3)

EXPERIMENTS: dict[str, Experiment] = {
    experiment.model: experiment
    for experiment in (
        _VAE(
            *("vae", "mnist", 20_000, 97, (Z, *VARIANTS, PRIOR)),
            next="python run_gmvae.py, whose prior is a mixture; --z 2 shows the latent plane",
        ),
        _GMVAE(
            *("gmvae", "mnist", 20_000, 97, (Z, K, *VARIANTS)),
            next="python run_ssvae.py --gw 0; --z 2 shows the components on the latent plane",
        ),
        _SSVAE(
            *("ssvae", "mnist", 30_000, 97, (GW, CW)),
            next="compare --gw 1 with --gw 0, the classifier without the generative model",
            classes=10,
        ),
        _FSVAE(
            *("fsvae", "svhn", 1_000_000, 100, ()),
            next="--resume 1 with a larger --iter_max, until each row of samples.png has its digit",
            classes=10,
        ),
    )
}


def run_named(name: str) -> Run:
    """The run that a name describes, with default values of what names do not tell.

    Raises:
        UserError: no run script gives such a name
    """
    unknown = UserError(f"{name!r} is no name of a run, such as model=vae_z=10_run=0000")
    parts = dict(part.partition("=")[::2] for part in re.split(r"_(?=[a-z0-9]+=)", name))
    experiment = EXPERIMENTS.get(parts.pop("model", None))
    if experiment is None:
        raise unknown
    types = experiment.types()
    try:
        given = {flag: types[flag](text) for flag, text in parts.items()}
    except (KeyError, ValueError):
        raise unknown from None
    run = experiment.run(given, given.get("data", experiment.dataset))
    if run.name != name:
        raise unknown
    return run
