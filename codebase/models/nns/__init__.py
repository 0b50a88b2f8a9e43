"""Interchangeable architectures: each module has an Encoder, a Decoder and, for MNIST, a Classifier."""
