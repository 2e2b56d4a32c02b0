"""Everything that can die dies at random, while tasks flow; afterwards an oracle counts what was lost or done twice."""
