"""Tab About: what a model's card says, without what a page must not show."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy import save_toy

from hfgan import HFGan
from hfgan.app import about
from hfgan.app.studio import Studio

CARD = """---
license: cc-by-4.0
tags: [hfgan]
---
# A model

Draws <b>things</b>.
Never people.

![Samples](samples.png)

## More
Text.
"""


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    folder = tmp_path_factory.mktemp("models")
    paths = [save_toy(folder / "told", alpha=True, encoder=True), save_toy(folder / "bare", seed=1)]
    (paths[0] / "README.md").write_text(CARD)
    (paths[1] / "README.md").unlink(missing_ok=True)
    return Studio({path.name: HFGan.from_pretrained(path, dtype="float32") for path in paths})


def test_a_model_is_told_by_its_card_and_its_parts(studio: Studio) -> None:
    told = about.tell(studio, "told")
    assert told.startswith("## told\nDraws &lt;b&gt;things&lt;/b&gt;.\nNever people.\n")
    assert told.endswith("It inverts photos, cuts out what it draws, cuts out photos. Licence: cc-by-4.0.")


def test_the_whole_card_comes_without_front_matter_and_pictures(studio: Studio) -> None:
    read = about.read(studio, "told")
    assert read.startswith("# A model\n")
    assert read.endswith("## More\nText.\n")
    assert "license" not in read
    assert "samples.png" not in read


def test_a_model_without_a_card_says_so(studio: Studio) -> None:
    assert about.NO_CARD in about.tell(studio, "bare")
    assert about.tell(studio, "bare").endswith("It draws.")
    assert about.read(studio, "bare") == about.NO_CARD


def test_bundled_cards_are_told_in_their_own_first_words() -> None:
    cards = Path(__file__).parents[1] / "model_cards"
    for name, first in (("hfaces-64", "A 64 x 64 StyleGAN2 that draws"), ("flowers-64", "A 64 x 64 StyleGAN2")):
        studio = Studio({name: HFGan.from_pretrained(cards / name)})
        assert about.tell(studio, name).startswith(f"## {name}\n{first}")


def test_files_are_deleted_when_the_page_says() -> None:
    from hfgan.app import KEPT

    assert 2 * KEPT <= about.HOURS * 3600, "swept every KEPT seconds, what is older than that"
