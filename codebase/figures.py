"""Pictures of what a model learned: sample sheets, reconstructions, and the plane of a z of two.

Each function returns images or a figure, and asks the model through its methods alone.
"""

import contextlib
import io
from collections.abc import Iterator

import torch
from torch import Tensor
from torchvision.utils import make_grid, save_image

from codebase.data import binarise, one_hot

IMAGE_SHAPES = {784: (1, 28, 28), 3072: (3, 32, 32)}
COLUMNS = 20
SEED = 0  # of the draws for pictures: the same z in each sheet, whatever the run's seed


@contextlib.contextmanager
def own_draws(device: torch.device) -> Iterator[None]:
    """Draw from generators of the pictures' own: those of the run go on as if nothing was drawn."""
    devices = [device] if device.type == "cuda" else []
    on_mps = torch.mps.get_rng_state() if device.type == "mps" else None  # fork_rng leaves it out
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            torch.manual_seed(SEED)
            yield
    finally:
        if on_mps is not None:
            torch.mps.set_rng_state(on_mps)


def sample_sheet(model: torch.nn.Module, rows: int = 10, columns: int = COLUMNS) -> Tensor:
    """A sheet of samples from p(x), as their means: (3, height, width) in [0, 1].

    A model with labels has class i in row i, and in column j one style z_j for all classes.
    """
    if model.y_dim:
        z = model.sample_z(columns)
        y = torch.eye(model.y_dim, device=z.device)[:, None]
        x = model.compute_mean_given(z, y)  # (class, style, x_dim)
    else:
        x = model.compute_mean_given(model.sample_z(rows * columns))
    return _grid(x, columns)


def reconstructions(model: torch.nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Rows of images, under each the row of their reconstructions: (3, height, width) in [0, 1].

    x, y: tensors: (n, x_dim), (n, y_dim): images, one-hot labels; n is a multiple of the columns
    """
    pairs = torch.stack([x, model.reconstruct(x, y)]).unflatten(1, (-1, COLUMNS))
    return _grid(pairs.transpose(0, 1), COLUMNS)  # (row, original or not, column, x_dim)


def manifold(model: torch.nn.Module, x: Tensor, labels: Tensor, size: int = 20) -> Tensor:
    """Means of p(x|z) over the range of the posterior means, z_1 to the right and z_2 upwards.

    The grid's lines are at quantiles of the means, so that they are close where the images are: on
    an even grid, a few outlying images would leave most digits to its middle.

    x, labels: tensors: (n, x_dim), (n,): images, of a model whose z has two dimensions
    """
    means = _posterior_means(model, x, labels)
    steps = torch.linspace(0, 1, size, device=means.device)
    z_1, z_2 = means.quantile(steps, dim=0).unbind(1)
    z = torch.stack([z_1.expand(size, size), z_2.flip(0)[:, None].expand(size, size)], dim=-1)
    return _grid(model.compute_mean_given(z), size)


def latent_plane(model: torch.nn.Module, x: Tensor, labels: Tensor):
    """A scatter of posterior means by digit, and a mixture prior's components as ellipses.

    x, labels: tensors: (n, x_dim), (n,): images, of a model whose z has two dimensions

    Returns a matplotlib Figure. The ellipses are one standard deviation in radius.
    """
    from matplotlib.collections import EllipseCollection  # here, because few runs draw it
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.add_subplot()
    means, labels = _posterior_means(model, x, labels).cpu().numpy(), labels.cpu().numpy()
    for digit in range(10):
        z = means[labels == digit]
        axes.scatter(z[:, 0], z[:, 1], s=3, alpha=0.6, color=f"C{digit}", label=str(digit))
    prior_m, prior_v = (p.detach().cpu().numpy() for p in model.z_prior)
    if prior_m.ndim == 3:  # a mixture: (1, components, 2)
        widths, heights = 2 * prior_v[0].T ** 0.5
        axes.add_collection(
            EllipseCollection(
                widths,
                heights,
                angles=0 * widths,
                units="xy",
                offsets=prior_m[0],
                offset_transform=axes.transData,
                facecolors="none",
                edgecolors="black",
                alpha=0.25,
                zorder=0,
                linewidths=0.4,
            )
        )
    axes.set(
        xlabel="$z_1$", ylabel="$z_2$", title="Posterior means of the test set", aspect="equal"
    )
    axes.legend(title="digit", markerscale=4, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def png(picture) -> bytes:
    """An image tensor or a matplotlib Figure as the contents of a PNG file."""
    buffer = io.BytesIO()
    if isinstance(picture, Tensor):
        save_image(picture, buffer, format="png")
    else:
        picture.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def as_images(x: Tensor) -> Tensor:
    """(..., x_dim) → (n, channels, height, width), in [0, 1], on the CPU."""
    return x.detach().cpu().clamp(0, 1).reshape(-1, *IMAGE_SHAPES[x.shape[-1]])


def _grid(x: Tensor, columns: int) -> Tensor:
    return make_grid(as_images(x), nrow=columns)


def _posterior_means(model: torch.nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    x = binarise(x) if model.binary else x
    means, *_ = model.infer_latents(x, one_hot(labels))
    return means
