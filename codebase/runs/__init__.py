"""What a command does: experiment and flags, a run, its training and report, replicates, table."""
