"""What simulated clients do: write with idempotence, read, and keep the history for the oracles."""
