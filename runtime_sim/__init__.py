"""The simulated runtime: virtual time, and a network, disks and a registry that fail by plan."""
