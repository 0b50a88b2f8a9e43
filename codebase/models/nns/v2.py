"""Multilayer perceptrons for SVHN: 3×32×32 = 3072 pixels, two hidden layers of 500 units."""

from codebase.models.nns import v1


class Encoder(v1.Encoder):
    x_dim = 3072
    image_shape = (3, 32, 32)
    hidden_dim = 500


class Decoder(v1.Decoder):
    x_dim = 3072
    hidden_dim = 500
