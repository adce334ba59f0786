"""Reads pictures and clips from files, lays them out in grids, and writes them with their records."""
