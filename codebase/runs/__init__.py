"""What a run script's command does: train or evaluate a run, report it, and keep its files."""
