"""Files that the starter adds: the assignment, the submit command, and public tests."""
