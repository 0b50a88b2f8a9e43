"""The interactive explorer for a trained model: `python -m codebase explore`."""
