"""A coding agent for the terminal that behaves as today's do, fails as its scenario says, and records what it read.

A test writes what it shall do, runs it in a pane, and asks what the model got::

    cli = FakeCli(folder, Scenario(
        turns=(Turn((Permission(command="make"), Run("make"), Say("Built.")), match="build"),),
        faults=Faults(swallow_enters=1),
    ))
    pane = AgentPane.start(socket, "developer-1", cli.argv, workdir=folder, environment=dict(os.environ))
    ...
    assert cli.submitted() == ["build it"]
    cli.play(Scenario(default=Turn((Limit("3:45pm"),))))  # from now on

``scenario`` has all that can be said, ``steps`` all that a turn can do. The prompt whose text contains a turn's
``match`` gets its steps. Neither network nor anything beyond the standard library is used, and nothing while it idles.
"""
