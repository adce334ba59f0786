"""Pictures and clips: read from files, laid out in grids, and written with their records."""
