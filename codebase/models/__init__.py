"""Four variational autoencoders, one a file, and the architectures in `nns` that they are built of."""
