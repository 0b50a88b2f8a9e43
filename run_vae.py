"""Train a VAE on MNIST and report its bounds (--train 0: report those of trained weights).

The model is codebase/models/vae.py, the training loop codebase/train.py; what this script does
with them, and its flags, are in codebase/runs/experiment.py.
"""

from codebase.runs import cli


def main():
    cli.main("vae", __doc__)


if __name__ == "__main__":
    main()
