"""Estimates what a call will cost, before it runs."""
