"""What is done with tasks: publish, run, answer, hand over, restore, bury."""
