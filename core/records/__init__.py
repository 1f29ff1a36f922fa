"""What is stored: types, schemas, descriptors, and the batches of records."""
