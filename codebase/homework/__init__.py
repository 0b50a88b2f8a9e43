"""The homework: questions, grader, catalogue of mistakes, starter and solutions."""

SANDBOXES = ("bubblewrap", "container", "none")
