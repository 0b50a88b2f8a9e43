"""The interactive explorer of a trained model: `python -m codebase explore`."""
