"""One replica of one bucket: its role, its epochs, and what it may acknowledge."""
