from __future__ import annotations

import gc

import pytest

from torch_tasks.system.loading import loading


def test_garbage_is_looked_for_again_whatever_loading_ends_with() -> None:
    before = gc.get_freeze_count()
    try:
        with pytest.raises(ImportError), loading():
            _fail_without_garbage_collection()
        assert gc.isenabled()
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()


def _fail_without_garbage_collection() -> None:
    assert not gc.isenabled()
    raise ImportError
