"""What a call will cost, before it runs."""
