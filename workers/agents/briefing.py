"""What an agent is told once, when its program starts: its role, and how it speaks to Torch from its pane."""

from __future__ import annotations

from torch_tasks.models import AgentSpec
from torch_tasks.resources import config_file

_PANE = """\
You are {id}, {role} in a fleet of agents that Torch runs{skills}. Tasks come to you one at a time; nobody sits at the
keyboard. Commands for you, to be run in your shell:
  torch-tasks done TASK "what you did"   when a task is finished and you have checked it
  torch-tasks fail TASK "why"            when it cannot be done
  torch-tasks progress TASK "how far"    in a long task, now and then
  torch-tasks agents                     who else is there
  torch-tasks send AGENT "text"          tell another agent something; `ask` waits for the reply, `reply` answers
TASK is the id at the end of each prompt. Never say a thing is done that you have not seen work.
"""


def briefing(spec: AgentSpec) -> str:
    """The briefing of this agent: its role's file in ``config/roles``, if there is one, and the in-pane commands."""
    path = config_file(f"roles/{spec.role}.md")
    skills = f"; your skills: {', '.join(spec.skills)}" if spec.skills else ""
    own = _PANE.format(id=spec.id, role=spec.role, skills=skills)
    return f"{path.read_text().strip()}\n\n{own}" if path else own
