"""Multilayer perceptrons for MNIST: 784 pixels, two hidden layers of 300 units."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codebase import utils as ut


def perceptron(inputs: int, hidden: int, outputs: int, activation: type) -> list[nn.Module]:
    """Return the layers of a perceptron with two hidden layers.

    Activations are in place, so their derivative is computed from their output, without another
    exponential. For the SSVAE's 970 rows, ELU takes 0.45 ms forward and backward instead of 0.55.
    """
    return [
        nn.Linear(inputs, hidden),
        activation(inplace=True),
        nn.Linear(hidden, hidden),
        activation(inplace=True),
        nn.Linear(hidden, outputs),
    ]


def apply_to_joined(
    net: nn.Sequential, x: Tensor, y: Tensor | None, rows: Tensor | None = None
) -> Tensor:
    """Return net([x; y]), with leading dimensions that broadcast; net(x) if y is None.

    With rows (n,), y is (n, y_dim) and is paired with x[rows]: the result is net([x[rows]; y]).
    """
    if y is None:
        return net(x)
    if rows is None and x.shape[:-1] == y.shape[:-1]:
        return net(torch.cat([x, y], dim=-1))
    # W[x; y] = W_x x + W_y y. With several labels for each image (SSVAE) the image's part is
    # computed only once: for ten labels 0.8 ms forward and backward; ten joined copies take 3.3.
    first: nn.Linear = net[0]  # type: ignore[assignment]
    w_x, w_y = first.weight.split([x.shape[-1], y.shape[-1]], dim=1)
    of_x = F.linear(x, w_x, first.bias)
    of_x = of_x if rows is None else of_x.index_select(0, rows)
    return net[1:](of_x + F.linear(y, w_y))


class Encoder(nn.Module):
    """q(z|x) or q(z|x, y): a Gaussian whose mean and variance are functions of x, and of y.

    Args:
        z_dim: int: dimensions of the latent variable
        y_dim: int: number of labels, given one-hot; 0 for none
    """

    x_dim = 784
    image_shape = (1, 28, 28)  # channels, height, width
    hidden_dim = 300

    def __init__(self, z_dim: int, y_dim: int = 0):
        super().__init__()
        self.net = nn.Sequential(*self.layers(z_dim, y_dim))

    def layers(self, z_dim: int, y_dim: int) -> list[nn.Module]:
        return perceptron(self.x_dim + y_dim, self.hidden_dim, 2 * z_dim, nn.ELU)

    def encode(
        self, x: Tensor, y: Tensor | None = None, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return mean and variance of q(z|x, y).

        Args:
            x: tensor: (..., x_dim): images
            y: tensor: (..., y_dim): one-hot labels; its leading dimensions broadcast with x's
            rows: tensor: (n,): the row of x (batch, x_dim) for each row of y (n, y_dim)

        Returns:
            (m, v): tensors: each (..., z_dim), or (n, z_dim)
        """
        return ut.gaussian_parameters(apply_to_joined(self.net, x, y, rows))

    forward = encode


class Decoder(nn.Module):
    """p(x|z) or p(x|z, y): one output per pixel, which the model uses as a logit or a mean.

    Args:
        z_dim: int: dimensions of the latent variable
        y_dim: int: number of labels, given one-hot; 0 for none
    """

    x_dim = 784
    hidden_dim = 300

    def __init__(self, z_dim: int, y_dim: int = 0):
        super().__init__()
        self.net = nn.Sequential(*self.layers(z_dim, y_dim))

    def layers(self, z_dim: int, y_dim: int) -> list[nn.Module]:
        return perceptron(z_dim + y_dim, self.hidden_dim, self.x_dim, nn.ELU)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the decoder's output at z.

        Args:
            z: tensor: (..., z_dim): latent variables
            y: tensor: (..., y_dim): one-hot labels; its leading dimensions broadcast with z's

        Returns:
            tensor: (..., x_dim)
        """
        return apply_to_joined(self.net, z, y)

    forward = decode


class Classifier(nn.Module):
    """q(y|x): a categorical distribution over the labels.

    Args:
        y_dim: int: number of labels
    """

    x_dim = 784
    hidden_dim = 300

    def __init__(self, y_dim: int):
        super().__init__()
        self.net = nn.Sequential(*perceptron(self.x_dim, self.hidden_dim, y_dim, nn.ReLU))

    def classify(self, x: Tensor) -> Tensor:
        """Return the logits of q(y|x): (..., x_dim) → (..., y_dim)."""
        return self.net(x)

    forward = classify
