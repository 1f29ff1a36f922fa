"""The log of one bucket: offsets, segments, indexes, epochs, writers, recovery and retention."""
