"""Variational autoencoders on MNIST and SVHN: densities, models, training and evaluation."""

from pathlib import Path

# data/, checkpoints/ and logs/ lie beside the run scripts, wherever those are called from.
ROOT = Path(__file__).resolve().parents[1]


class UserError(Exception):
    """What was asked for cannot be done; the message is one line, the cause and a way out."""
