"""The three tools that Torch replaces: the same arguments and lines, and what they say is true."""
