"""Marking and handing out: what is graded, the grader, its catalogue of mistakes, the starter."""

SANDBOXES = ("bubblewrap", "container", "none")
