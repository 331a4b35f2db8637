"""Many users at once, half of whom leave midway: nobody gets another one's, nothing hangs, refusals can be read."""

from __future__ import annotations

import asyncio

import load
import pytest
from test_api import load as load_models

from hfgan import HFGan


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HFGan]:
    return load_models(tmp_path_factory.mktemp("models"))


def test_a_crowd_is_served_each_its_own(address: str) -> None:
    told = asyncio.run(load.use(address, users=12, seconds=10, cancelling=0.5))
    assert told["wrong"] == []
    assert told["last_wrong"] == []
    assert set(told["statuses"]) <= {"2xx", "503"}
    assert told["drained_s"] is not None
    assert told["last_s"] < 10
    assert set(told["answers"]) == {"sample", "cutout_sample", "edit", "invert", "modes", "list_models"}
    assert set(told["cancelled"]) == {"close", "cancel"}
    assert all(load.readable(said) for said in told["refusals"])
