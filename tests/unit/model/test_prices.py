"""What tokens cost: by the program's own word, else by the models' prices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from torch_tasks.config_files import shipped_config
from torch_tasks.errors import InvalidSettings
from torch_tasks.model.budget import Charge, amount_in_words, micro_usd
from torch_tasks.model.prices import Price, Prices
from torch_tasks.model.usage import TokenCounts, Usage
from torch_tasks.workers.configuration import configuration_faults
from torch_tasks.workers.host.quota import AccountQuota, used_by
from torch_tasks.workers.programs.prices import prices

MILLION = TokenCounts(
    input_tokens=1_000_000, cached_tokens=1_000_000, output_tokens=1_000_000, cache_written_tokens=500_000
)
CHEAP, DEAR = Price(input=1, output=5), Price(input=10, cached=1, cache_written=20, output=50)
KNOWN = Prices(({"cheap-*": CHEAP}, {"cheap-2": DEAR, "*-dear": DEAR, "cheap-dear": CHEAP}))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's own file."""
    monkeypatch.setenv("TORCH_CONFIG_DIR", str(tmp_path))
    prices.cache_clear()
    yield tmp_path / "prices.toml"
    prices.cache_clear()


@pytest.mark.parametrize(
    ("price", "dollars"),
    [(CHEAP, 1 + 1 + 5), (DEAR, 5 + 10 + 1 + 50)],
    ids=["what is unset costs as input", "each kind of token has its price"],
)
def test_tokens_cost_what_the_price_says(price: Price, dollars: float) -> None:
    assert price.of(MILLION) == pytest.approx(dollars)


@pytest.mark.parametrize(
    ("model", "price"),
    [
        ("cheap-2", CHEAP),  # the first list counts, though another fits better
        ("provider/Cheap-3", CHEAP),
        ("very-dear", DEAR),
        ("unknown", None),
    ],
)
def test_a_model_has_the_price_that_fits(model: str, price: Price | None) -> None:
    assert KNOWN.price(model) is price
    assert Prices(({"a*": CHEAP, "a-b*": DEAR},)).price("a-b-c") is DEAR


@pytest.mark.parametrize(
    ("usage", "models"),
    [
        (Usage.of("cheap-1", MILLION), []),
        (Usage.of("unknown", MILLION, 0.25), []),
        (Usage.total([Usage.of("cheap-1", MILLION), Usage.of("unknown", MILLION)]), ["unknown"]),
        (Usage.of(None, MILLION), [""]),
    ],
    ids=["it has a price", "the program says what it cost", "one of two", "nobody says which"],
)
def test_models_without_a_price_are_named(usage: Usage, models: list[str]) -> None:
    assert list(KNOWN.unpriced(usage)) == models


def test_only_so_many_models_without_a_price_are_told_apart() -> None:
    quota = AccountQuota(cast("Any", SimpleNamespace(account=None)), cast("Any", None), cast("Any", None))
    shown = [quota._shown_model(f"model-{number}\x1b[2J" + "x" * 100) for number in range(100)]
    assert len(set(shown)) == 21
    assert {*map(len, shown)} == {60, len("others")}
    assert shown[0].startswith("model-0")
    assert "\x1b" not in shown[0]
    assert quota._shown_model("model-0\x1b[2J" + "x" * 100) == shown[0]


def test_a_programs_word_counts_before_prices() -> None:
    assert KNOWN.cost(Usage.of("cheap-1", MILLION, 0.25)) == 0.25
    assert KNOWN.cost(Usage.of("cheap-1", MILLION)) == pytest.approx(7)


def test_each_model_of_a_task_costs_its_own() -> None:
    both = Usage.total([Usage.of("cheap-1", MILLION), Usage.of("a-dear", MILLION), Usage.of("cheap-1", MILLION)])
    assert both.input_tokens == 3_000_000
    assert KNOWN.cost(both) == pytest.approx(7 + 66 + 7)


def test_a_model_without_a_price_costs_nobody_knows_what_and_a_budget_the_dearest() -> None:
    usage = Usage.total([Usage.of("cheap-1", MILLION), Usage.of("unknown", MILLION)])
    assert KNOWN.cost(usage) is None
    assert KNOWN.at_most(usage) == pytest.approx(7 + 66)
    assert KNOWN.at_most(Usage(output_tokens=1_000_000)) == pytest.approx(50)
    assert KNOWN.at_most(Usage.of("unknown", MILLION, 0.0)) == 0


def test_the_shipped_prices_know_the_usual_models() -> None:
    shipped = shipped_config() / "prices.toml"
    assert shipped.is_file()
    wanted = {"claude-sonnet-4-5-20250929": 15, "claude-opus-4-5": 25, "claude-opus-4-1": 75, "gpt-5.2-codex": 14}
    found = {model: price.output for model in wanted if (price := prices().price(model))}
    assert found == wanted


def test_the_users_prices_count_before_the_shipped_ones(own: Path) -> None:
    own.write_text('"claude-*" = {input = 1, output = 2}\n')
    usage = Usage.of("claude-opus-4-1", MILLION)
    assert used_by(usage) == Charge(tokens=2_000_000, micro_usd=4_000_000)


def test_a_wrong_price_is_named(own: Path) -> None:
    own.write_text('"claude-*" = {input = -1, output = 2}\n')
    with pytest.raises(InvalidSettings, match=r"prices\.toml, line 1: claude-\*\.input"):
        prices()
    assert any("prices.toml" in fault for fault in configuration_faults())


def test_money_is_counted_in_whole_parts_and_shown_in_dollars() -> None:
    assert micro_usd(0.000_000_1) == 1
    assert amount_in_words("usd_per_day", micro_usd(1234.5)) == "1,234.50 USD per day"
    assert amount_in_words("calls_per_hour", 2000) == "2,000 calls per hour"
