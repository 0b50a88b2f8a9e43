"""The code inside the sandbox, shipped as a zip. It imports nothing else from this project.

The grader also uses `calling`, to call the correct functions.
"""
