"""What users and our own tests start: a cluster in this process, and the pytest fixture."""
