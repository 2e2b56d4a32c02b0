"""Time: the scheduler and the standing entries."""
