"""A language model that answers as it is told, over the wire formats that real CLIs speak."""
