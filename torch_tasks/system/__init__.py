"""Files and processes of an operating system, as Torch uses them."""
