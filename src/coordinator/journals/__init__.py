"""The journals: where the batches go."""
