"""``prices.toml``: what models cost. The user's file counts before Torch's own."""

from __future__ import annotations

from functools import cache

from pydantic import RootModel

from torch_tasks.config_files import shipped_config, user_config
from torch_tasks.model.prices import Price, Prices
from torch_tasks.model.usage import Usage
from torch_tasks.toml_config import read_config

FILE = "prices.toml"


class _File(RootModel[dict[str, Price]]):
    """The whole file."""


@cache
def prices() -> Prices:
    """:class:`InvalidSettings` if a file cannot be used."""
    files = (folder / FILE for folder in (user_config(), shipped_config()))
    return Prices(tuple(read_config(file, _File).root for file in files if file.is_file()))


def priced(usage: Usage | None) -> Usage | None:
    """The same use with its cost, as far as that is known."""
    return usage and usage.model_copy(update={"cost_usd": prices().cost(usage)})
