"""What students get besides the solution with blanks: the assignment, and public tests."""
