"""Metrics of pictures and clips."""
