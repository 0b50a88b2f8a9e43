"""The machine: settings of the process, random generators, CUDA graphs, files, signals."""
