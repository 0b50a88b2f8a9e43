"""The models' base class: networks, the prior N(0, I), and ancestral sampling."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from codebase import utils as ut
from codebase.models import nns
from codebase.models.likelihoods import BERNOULLI, Bernoulli, Gaussian
from codebase.models.nns import v1


class LatentVariableModel(torch.nn.Module):
    """p(z)·p(x|z) with an encoder q(z|x); with labels, p(z)·p(y)·p(x|y, z) and q(z|x, y).

    The prior p(z) is N(0, I) unless a subclass has its own; p(y) is uniform.

    Args:
        nn: str: architecture, the name of a module in `codebase.models.nns`
        name: str: folder of the model's weights in checkpoints/ and of its logs in logs/
        z_dim: int: dimensions of the latent variable
        y_dim: int: number of labels, which both networks are given one-hot; 0 for none
        likelihood: p(x|z) as a function of the decoder's outputs

    Attributes:
        family: str: distributions p(z) and q(z|x), "gaussian" or "laplace"
        generates: bool: whether the loss trains the decoder
        compiles: bool: whether torch.compile makes the loss faster
        dataset: str: the data set on which the homework trains the model, "mnist" or "svhn"

    Raises:
        ValueError: there is no such architecture
    """

    family = "gaussian"
    generates = True
    compiles = True
    dataset = "mnist"
    _has_seen_images = False

    # What subclasses have; the SSVAE alone has a classifier.
    negative_elbo_bound: Callable[..., tuple[Tensor, ...]]
    loss: Callable[..., tuple[Tensor, dict[str, Tensor]]]
    cls: v1.Classifier
    z_prior_m: Tensor
    z_prior_v: Tensor

    def __init__(
        self,
        nn: str,
        name: str,
        z_dim: int,
        y_dim: int = 0,
        likelihood: Bernoulli | Gaussian = BERNOULLI,
    ):
        super().__init__()
        self.nn, self.name, self.z_dim, self.y_dim = nn, name, z_dim, y_dim
        self.likelihood = likelihood
        networks = nns.architecture(nn)
        self.enc = networks.Encoder(z_dim, y_dim)
        self.dec = networks.Decoder(z_dim, y_dim)
        self.init_prior()

    # The prior

    def init_prior(self) -> None:
        """Create the prior's parameters: for N(0, I), two constants saved with the weights."""
        self.register_buffer("z_prior_m", torch.zeros(1))
        self.register_buffer("z_prior_v", torch.ones(1))

    @property
    def z_prior(self) -> tuple[Tensor, Tensor]:
        """Return mean and variance of p(z), which broadcast to (..., z_dim)."""
        return self.z_prior_m, self.z_prior_v

    # Sampling from p

    def sample_z(self, batch: int) -> Tensor:
        """Draw z ~ p(z): (batch, z_dim)."""
        m, v = (parameter.expand(batch, self.z_dim) for parameter in self.z_prior)
        return ut.sample_gaussian(m, v)

    def sample_latents(self, batch: int) -> tuple[Tensor, ...]:
        """Draw the decoder's inputs from the prior: (z,), or (z, one-hot y) with labels."""
        z = self.sample_z(batch)
        if not self.y_dim:
            return (z,)
        y = torch.randint(self.y_dim, (batch,), device=z.device)
        return z, F.one_hot(y, self.y_dim).to(z.dtype)

    def compute_mean_given(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return E[x|z, y]: z (..., z_dim), one-hot y (..., y_dim) → (..., x_dim)."""
        return self.likelihood.mean(self.dec.decode(z, y))

    @torch.no_grad()
    def sample_x_given(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Draw x ~ p(x|z, y), no gradient: z (..., z_dim), y (..., y_dim) → (..., x_dim)."""
        return self.likelihood.sample(self.dec.decode(z, y))

    @torch.no_grad()
    def sample_x(self, batch: int) -> Tensor:
        """Draw x ~ p(x): (batch, x_dim), without gradient."""
        return self.sample_x_given(*self.sample_latents(batch))

    def compute_sigmoid_given(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return `compute_mean_given`, by its name in the homework, where the mean is a sigmoid."""
        return self.compute_mean_given(z, y)

    @torch.no_grad()
    def sample_sigmoid(self, batch: int) -> Tensor:
        """Return E[x|z, y] for z and y from the prior: (batch, x_dim), without gradient."""
        return self.compute_sigmoid_given(*self.sample_latents(batch))

    # Reconstruction

    def observed(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """Return a bound's arguments for labelled images: (x,), or (x, y) if y is always known."""
        return (x,)

    def observed_grey(self, grey: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """Return `observed` for grey images, binarised if the likelihood is binary."""
        return self.observed(self.likelihood.observe(grey), y)

    def infer_latents(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the decoder's inputs to reconstruct x: the posterior mean of z, and y if any."""
        return (self.enc.encode(x)[0],)

    def reconstruct(self, *observed: Tensor) -> Tensor:
        """Return E[x|z, y] for the z and y that `infer_latents` returns.

        Args:
            observed: tensors: the bounds' arguments, x (batch, x_dim) and, for the FSVAE, y

        Returns:
            tensor: (batch, x_dim)

        Raises:
            ValueError: x has the wrong shape, dtype or range
        """
        self.check_images(observed[0])
        return self.compute_mean_given(*self.infer_latents(*observed))

    def check_images(self, x: Tensor) -> None:
        """Raise ValueError, with instructions, unless x is float images in [0, 1]: (batch, x_dim).

        In training, the range is checked only at the first call; otherwise, at every call. A
        training step takes 4 to 24 ms, and the check 0.07 ms.
        """
        if torch.compiler.is_compiling():
            return
        x_dim = self.enc.x_dim
        expected = f"expected x to be float images in [0, 1] of shape (batch, {x_dim})"
        if not isinstance(x, Tensor):
            raise ValueError(f"{expected}, got {type(x).__name__}: pass torch.as_tensor(x)")
        parameter = next(self.parameters())
        own = parameter.dtype
        in_training = self.training and torch.is_grad_enabled() and parameter.requires_grad
        if own not in (torch.float32, torch.float64):
            raise ValueError(f"the model is in {own}, expected float32 or float64: model.float()")
        if x.dim() != 2 or x.shape[1] != x_dim:
            hint = "these images have another size"
            if x.numel() == x_dim:
                hint = "x.reshape(1, -1) makes a batch of one"
            elif x.dim() == 4 and x.shape[-1] == 3 and x.shape[1:].numel() == x_dim:
                hint = "x.permute(0, 3, 1, 2).flatten(1) makes rows, one colour after another"
            elif x.dim() > 0 and x.shape[1:].numel() == x_dim:
                hint = "x.flatten(1) makes rows of them"
            raise ValueError(f"{expected}, got shape {tuple(x.shape)}: {hint}")
        if not x.is_floating_point():
            hint = "x.float()" if not x.numel() or x.max() <= 1 else "x.float() / 255"
            if "/" in hint and self.likelihood.binary:
                hint += ", and utils.sample_bernoulli of that for a bound"
            raise ValueError(f"{expected}, got dtype {x.dtype}: {hint}")
        if x.dtype != own:
            raise ValueError(f"{expected}, got dtype {x.dtype}, the model has {own}: x.to({own})")
        if self._has_seen_images and in_training:
            return
        if len(x) and not (x.min() >= 0 and x.max() <= 1):
            low, high = x.min().item(), x.max().item()
            hint = "x / 255" if low >= 0 and 1 < high <= 255 else "scale them to [0, 1]"
            raise ValueError(f"{expected}, got {low:g} to {high:g}: {hint}")
        self._has_seen_images = len(x) > 0
