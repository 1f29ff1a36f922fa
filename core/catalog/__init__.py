"""The catalog: what both the coordinator and the tablet servers know of the cluster."""
