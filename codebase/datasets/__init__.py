"""Sources of images: the real data sets, downloaded if missing, and synthetic digits."""
