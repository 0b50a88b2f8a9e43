"""Why a laptop behaves so: packages, settings of the process, CUDA graphs, files and locks."""
