from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from labelstudio_config import payloads, rle


@pytest.mark.parametrize("module", [payloads, rle], ids=lambda module: module.__name__)
def test_the_examples_in_the_docstrings_run(module: ModuleType) -> None:
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0
