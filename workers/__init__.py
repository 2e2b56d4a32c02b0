"""What runs on a node: agent workers, the node worker, and the panes they keep."""
