"""What students get beside the solution with blanks: the assignment, and public tests."""
