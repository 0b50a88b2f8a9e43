"""Train a VAE on MNIST and report its bounds, or report those of trained weights (--train 0)."""

from codebase import cli, data, evaluate
from codebase.models.vae import VAE
from codebase.run import Experiment


def main():
    flags = cli.parser(__doc__, dataset="mnist", iter_max=20_000)
    flags.add_argument("--z", type=cli.at_least(1), default=10, help="latent dimensions")
    cli.main(flags, Experiment("mnist", name, build, load, report))


def name(args):
    return f"model=vae_z={args.z:02d}"


def build(args, name):
    return VAE(z_dim=args.z, name=name)


def load(args, device, source):
    loader, subset, test = data.get_mnist_data(device, True, args.data_dir, source)
    return loader.without_labels(), subset, test


def report(model, subset, test):
    return evaluate.evaluate_lower_bound(model, subset)


if __name__ == "__main__":
    main()
