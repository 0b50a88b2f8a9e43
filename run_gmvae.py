"""Train a VAE whose prior is a mixture of Gaussians on MNIST and report its bounds (--train 0:
report those of trained weights)."""

from codebase import cli
from codebase.experiment import Experiment
from codebase.models.gmvae import GMVAE
from run_vae import load, report


def main():
    flags = cli.parser(__doc__, dataset="mnist", iter_max=20_000)
    cli.add_vae_flags(flags)
    flags.add_argument("--k", type=cli.at_least(1), default=500, help="components of the mixture")
    cli.main(flags, Experiment("mnist", name, build, load, report, cli.VAE_VARIANTS))


def name(args):
    return f"model=gmvae_z={args.z:02d}_k={args.k:03d}"


def build(args, name):
    return GMVAE(name=name, k=args.k, **cli.vae_options(args))


if __name__ == "__main__":
    main()
