"""A page that lets one play with a trained model: `python -m codebase explore`."""
