"""ZooKeeper's data model as a machine: the tree of nodes, sessions and watches."""
