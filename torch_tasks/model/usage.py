"""What a task used of models, and what that cost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from pydantic import Field

from torch_tasks.model.fields import Model


class TokenCounts(Model):
    """What models read and wrote."""

    input_tokens: int = 0
    """Read, without what came from the provider's cache."""
    cached_tokens: int = 0
    """Read from the provider's cache."""
    output_tokens: int = 0
    cache_written_tokens: int = 0
    """Of the input, what was written into that cache."""

    def plus(self, other: TokenCounts) -> TokenCounts:
        return TokenCounts(**{name: getattr(self, name) + getattr(other, name) for name in TokenCounts.model_fields})


class Usage(TokenCounts):
    """What a task used, as the agent's program reports it."""

    cost_usd: float | None = None
    """What it cost: as the program says, else by the prices of prices.toml; None where neither knows."""
    models: dict[str, TokenCounts] = Field(default={})
    """What each model used, where the program names it."""

    @classmethod
    def of(cls, model: str | None, tokens: TokenCounts, cost_usd: float | None = None) -> Self:
        """What one model used."""
        return cls(**dict(tokens), cost_usd=cost_usd, models={model: tokens} if model else {})

    @classmethod
    def total(cls, parts: Iterable[Usage]) -> Self:
        total, models, costs = TokenCounts(), dict[str, TokenCounts](), list[float]()
        for part in parts:
            total = total.plus(part)
            for model, tokens in part.models.items():
                models[model] = models[model].plus(tokens) if model in models else tokens
            if part.cost_usd is not None:
                costs.append(part.cost_usd)
        return cls(**dict(total), cost_usd=sum(costs) if costs else None, models=models)
