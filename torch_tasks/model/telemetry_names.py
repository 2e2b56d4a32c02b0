"""What OpenTelemetry is told under which names: those of its conventions for generative AI, and Torch's own.

The conventions may still change, so their names are here alone.
"""

from __future__ import annotations

from urllib.parse import quote

from torch_tasks.model.agent import AgentInfo

RESOURCE_ATTRIBUTES = "OTEL_RESOURCE_ATTRIBUTES"
"""The variable by which a program's own telemetry gets attributes."""

SERVICE = "torch"
AGENT, ROLE, NODE, TASK = "torch.agent", "torch.role", "torch.node", "torch.task"
ATTEMPT, ATTEMPTS, OUTCOME, LINK = "torch.attempt", "torch.attempts", "torch.outcome", "torch.link"
PRIORITY = "torch.priority"
MESSAGE, MESSAGE_KIND, SENDER, CHECKIN = "torch.message", "torch.message.kind", "torch.sender", "torch.checkin"

OPERATION, INVOKE_AGENT = "gen_ai.operation.name", "invoke_agent"
AGENT_ID, AGENT_NAME = "gen_ai.agent.id", "gen_ai.agent.name"
INPUT_TOKENS, OUTPUT_TOKENS = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
ERROR = "error.type"


def resource_attributes(info: AgentInfo, task_id: str | None = None) -> str:
    """Whose program it is, and at which task, if a program is begun for one."""
    values = {AGENT: info.agent_id, ROLE: info.role, NODE: info.node, TASK: task_id}
    return ",".join(f"{name}={quote(value)}" for name, value in values.items() if value)
