"""What models cost: prices by the models' names, and what tokens cost by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from torch_tasks.model.usage import TokenCounts, Usage

Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_MILLION = 1_000_000


class Price(BaseModel):
    """What a million tokens cost, in US dollars."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Dollars
    output: Dollars
    cached: Dollars | None = None
    """Read from the provider's cache; unset: as input."""
    cache_written: Dollars | None = None
    """Written into it; unset: as input."""

    def of(self, tokens: TokenCounts) -> float:
        cached = self.input if self.cached is None else self.cached
        written = self.input if self.cache_written is None else self.cache_written
        dollars = (
            (tokens.input_tokens - tokens.cache_written_tokens) * self.input
            + tokens.cache_written_tokens * written
            + tokens.cached_tokens * cached
            + tokens.output_tokens * self.output
        )
        return dollars / _MILLION


@dataclass(frozen=True)
class Prices:
    """Prices by patterns of models' names: the first list that has one counts, and in it the longest that fits."""

    lists: tuple[Mapping[str, Price], ...]

    def price(self, model: str) -> Price | None:
        name = model.rsplit("/", 1)[-1].casefold()
        for prices in self.lists:
            if fitting := [pattern for pattern in prices if fnmatchcase(name, pattern.casefold())]:
                return prices[max(fitting, key=len)]
        return None

    def cost(self, usage: Usage) -> float | None:
        """What it cost: as the program says, else by these prices; None if one of its models has none."""
        if usage.cost_usd is not None or not usage.models:
            return usage.cost_usd
        priced = [(self.price(model), tokens) for model, tokens in usage.models.items()]
        costs = [price.of(tokens) for price, tokens in priced if price]
        return sum(costs) if len(costs) == len(priced) else None

    def unpriced(self, usage: Usage) -> dict[str, TokenCounts]:
        """What no cost is known of, by model; a program that names none is nameless here, too."""
        if usage.cost_usd is not None:
            return {}
        return {model: tokens for model, tokens in (usage.models or {"": usage}).items() if not self.price(model)}

    def at_most(self, usage: Usage) -> float:
        """What it cost, and not less: a model without a price counts as the dearest that has one."""
        cost = self.cost(usage)
        if cost is not None:
            return cost
        return sum(self._at_most(model, tokens) for model, tokens in (usage.models or {"": usage}).items())

    def _at_most(self, model: str, tokens: TokenCounts) -> float:
        if price := self.price(model):
            return price.of(tokens)
        return max((price.of(tokens) for prices in self.lists for price in prices.values()), default=0.0)
