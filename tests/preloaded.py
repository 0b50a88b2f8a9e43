"""What the server that forks the tests' processes has imported, and drawn once, before it forks."""

import gc
import importlib
import sys
from pathlib import Path

gc.disable()
sys.path.insert(0, str(Path(__file__).parent))
for name in ("run_vae", "codebase.__main__", "codebase.runs.training", "matplotlib.figure"):
    importlib.import_module(name)
importlib.import_module("conftest").import_what_is_imported_late()
gc.freeze()
gc.enable()
