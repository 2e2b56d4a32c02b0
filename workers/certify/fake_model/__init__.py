"""A language model that answers as its rules say, over the wire formats that real CLIs speak."""
