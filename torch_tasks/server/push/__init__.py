"""Web Push: browsers are told of what needs a person, also while no page of the console is open."""
