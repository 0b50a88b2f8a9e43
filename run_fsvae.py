"""Train a fully supervised VAE on SVHN, style apart from content, and report its bound (--train 0:
report that of trained weights).

The model is codebase/models/fsvae.py, the training loop codebase/train.py; what this script does
with them, and its flags, are in codebase/runs/experiment.py.
"""

from codebase.runs import cli


def main():
    cli.main("fsvae", __doc__)


if __name__ == "__main__":
    main()
