"""Settings of the process that were measured to matter, and files written whole or not at all."""
