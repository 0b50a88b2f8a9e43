"""Train a VAE with a mixture-of-Gaussians prior on MNIST and report its bounds (--train 0: report
those of trained weights)."""

from codebase import cli, data, evaluate
from codebase.models.gmvae import GMVAE
from codebase.run import Experiment


def main():
    flags = cli.parser(__doc__, dataset="mnist", iter_max=20_000)
    flags.add_argument("--z", type=cli.at_least(1), default=10, help="latent dimensions")
    flags.add_argument("--k", type=cli.at_least(1), default=500, help="mixture components")
    cli.main(flags, Experiment("mnist", name, build, load, report))


def name(args):
    return f"model=gmvae_z={args.z:02d}_k={args.k:03d}"


def build(args, name):
    return GMVAE(z_dim=args.z, k=args.k, name=name)


def load(args, device, source):
    loader, subset, test = data.get_mnist_data(device, True, args.data_dir, source)
    return loader.without_labels(), subset, test


def report(model, subset, test):
    return evaluate.evaluate_lower_bound(model, subset)


if __name__ == "__main__":
    main()
