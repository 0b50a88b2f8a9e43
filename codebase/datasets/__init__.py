"""Where images come from: the real data sets, downloaded where they are missing, and digits drawn
by this program in their place."""
