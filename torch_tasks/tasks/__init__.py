"""What is done with tasks: published, run, answered, handed over, put back, buried."""
