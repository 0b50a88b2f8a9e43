"""Interchangeable architectures: each has an Encoder and a Decoder, v1 a Classifier too."""
