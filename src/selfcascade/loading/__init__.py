"""What is loaded beside a model's own folder, single-file checkpoints and additions, and how a pipeline then runs."""
