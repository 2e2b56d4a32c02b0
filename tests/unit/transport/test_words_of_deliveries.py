"""A retry that is due is not logged as a loss."""

from __future__ import annotations

from torch_tasks.transport.deliveries import list_of, new_tag
from torch_tasks.transport.leases import _back_in_words


def test_what_waited_by_intent_was_not_lost() -> None:
    tag = new_tag(list_of("torch.any.any", 6))
    assert _back_in_words(f"parked:{tag}") == "what was to wait for a while is in torch.any.any again"
    lost = _back_in_words(tag)
    assert lost == f"delivery {tag.partition(':')[0]} was lost with its holder and is in torch.any.any again"
