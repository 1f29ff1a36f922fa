"""The registry: ZooKeeper's data model as a pure machine, embedded and durable."""
