"""Process settings that affect speed, and atomic writing of files."""
