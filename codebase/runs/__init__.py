"""What a command does: flags, the run and its record, the report, replicates and their table."""
