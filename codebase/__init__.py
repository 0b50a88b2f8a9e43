"""Variational autoencoders on MNIST and SVHN: densities, models, training and evaluation."""

from pathlib import Path

ROOT = (
    Path(__file__).resolve().parents[1]
)  # data/, checkpoints/ and logs/ lie beside the run scripts


class UserError(Exception):
    """What was asked for cannot be done; the message is one line that names the cause and a way out."""
