"""The classes with which programs ask the fleet, beside ``Torch``: each method makes a request and performs it."""
