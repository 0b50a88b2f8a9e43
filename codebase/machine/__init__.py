"""Settings of the process that affect speed, and atomic writing of files."""
