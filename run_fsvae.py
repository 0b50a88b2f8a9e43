"""Train a fully supervised VAE on SVHN, style apart from content, and report its bound (--train 0:
report that of trained weights)."""

from codebase import cli, data, evaluate
from codebase.experiment import Experiment
from codebase.models.fsvae import FSVAE


def main():
    flags = cli.parser(__doc__, dataset="svhn", iter_max=1_000_000, batch_size=100)
    cli.main(flags, Experiment("svhn", name, build, load, report))


def name(args):
    return "model=fsvae"


def build(args, name):
    return FSVAE(name=name)


def load(args, device, source):
    """Labelled images, and the first 100 of them."""
    return data.get_svhn_data(device, args.data_dir, source, args.batch_size)


def report(model, subset, test):
    return evaluate.evaluate_lower_bound(model, subset, run_iwae=False)


if __name__ == "__main__":
    main()
