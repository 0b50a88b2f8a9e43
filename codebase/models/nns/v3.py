"""Perceptrons with one hidden layer for MNIST: 784 pixels, 512 ReLU units on each side."""

from torch import nn

from codebase.models.nns import v1


class Encoder(v1.Encoder):
    hidden_dim = 512

    def layers(self, z_dim: int, y_dim: int) -> list[nn.Module]:
        hidden = nn.Linear(self.x_dim + y_dim, self.hidden_dim)
        parameters = nn.Linear(self.hidden_dim, 2 * z_dim)
        nn.init.normal_(parameters.weight[:z_dim], std=0.01)  # the rows of the mean
        return _without_biases([hidden, nn.ReLU(), parameters])


class Decoder(v1.Decoder):
    hidden_dim = 512

    def layers(self, z_dim: int, y_dim: int) -> list[nn.Module]:
        hidden = nn.Linear(z_dim + y_dim, self.hidden_dim)
        nn.init.normal_(hidden.weight, std=0.01)
        return _without_biases([hidden, nn.ReLU(), nn.Linear(self.hidden_dim, self.x_dim)])


def _without_biases(layers: list[nn.Module]) -> list[nn.Module]:
    """Return the layers, with their biases set to zero."""
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
    return layers
