"""ARROW payloads of log batches: values to bytes and back, without pyarrow."""
