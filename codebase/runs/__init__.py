"""The run scripts: train or evaluate a run, report it, and manage its files."""
