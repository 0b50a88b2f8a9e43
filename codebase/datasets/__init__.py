"""Sources of images: the real data sets, downloaded if they are missing, and digits that this
program draws in their place."""
