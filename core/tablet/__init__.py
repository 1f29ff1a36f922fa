"""The tablet server: a table of requests over the replicas that it hosts."""
