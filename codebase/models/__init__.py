"""Four variational autoencoders, one a file, and the architectures that they are built of."""
