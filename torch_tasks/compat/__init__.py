"""The three tools that Torch replaces, with the same arguments and output lines."""
