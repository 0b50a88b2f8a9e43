"""What runs inside the sandbox: it is shipped there as a zip, and imports nothing of this project.

`calling` is also what the grader calls the right functions with.
"""
