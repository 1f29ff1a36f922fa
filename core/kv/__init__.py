"""Primary-key buckets: the rows folded from a changelog, and the batches of changes to it."""
