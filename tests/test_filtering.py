"""Scores, policies and manifests on numbers whose right answer is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hfgan import filtering
from hfgan.filtering import (
    gaussian_score,
    keep_below,
    keep_count,
    keep_per_mode,
    keep_quantile,
    kept_ids,
    knee,
    neighbour_score,
    read_manifest,
    write_manifest,
)

SCORES = torch.tensor([0.3, 0.1, 0.9, 0.2, 0.5])


def test_quantile_and_count_keep_the_lowest() -> None:
    assert keep_quantile(SCORES, 0.6).tolist() == [True, True, False, True, False]
    assert keep_count(SCORES, 2).tolist() == [False, True, False, True, False]
    assert keep_count(torch.tensor([1.0, 1.0, 1.0]), 2).tolist() == [True, True, False]  # of equal ones the first
    assert keep_quantile(SCORES, 0.01).sum() == 1  # never none
    assert keep_below(SCORES, 0.3).tolist() == [True, True, False, True, False]


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        (lambda: keep_quantile(SCORES, 0.0), "above 0 and up to 1"),
        (lambda: keep_quantile(SCORES, 1.5), "above 0 and up to 1"),
        (lambda: keep_count(SCORES, 6), "there are 5 photos"),
        (lambda: keep_below(SCORES, 0.05), "the lowest is 0.1"),
    ],
)
def test_impossible_wishes_are_told(policy, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        policy()


def test_per_mode_policy_spares_a_rare_mode() -> None:
    """A rare mode that is hard to draw loses everything to one threshold, its worst tenth to one per mode."""
    scores = torch.cat([torch.linspace(0, 1, 90), torch.linspace(2, 3, 10)])
    modes = torch.tensor([0] * 90 + [1] * 10)
    assert keep_quantile(scores, 0.9)[90:].sum() == 0
    kept = keep_per_mode(scores, modes, 0.9)
    assert kept[90:].sum() == 9
    assert kept[:90].sum() == 81


def test_knee_finds_the_turn() -> None:
    typical, outliers = torch.linspace(0, 1, 900), torch.linspace(1, 30, 100)
    assert knee(torch.cat([outliers, typical])) == pytest.approx(1.0, abs=0.3)
    assert knee(torch.ones(10)) == 1.0


def test_scores_on_features_rise_away_from_the_crowd() -> None:
    source = torch.Generator().manual_seed(0)
    crowd = torch.randn(500, 8, generator=source)
    far = torch.full((1, 8), 5.0)
    for scores in (
        neighbour_score(torch.cat([crowd, far]), crowd, torch.tensor([True] * 500 + [False])),
        gaussian_score(torch.cat([crowd, far]), crowd.mean(0), torch.cov(crowd.T)),
    ):
        assert scores.argmax() == 500
    d = gaussian_score(torch.tensor([[2.0, 0.0]]), torch.zeros(2), torch.diag(torch.tensor([4.0, 1.0])), shrinkage=0)
    assert d.item() == pytest.approx(1.0)  # two deviations of 2: one in units of its own


def test_an_anchor_is_not_its_own_neighbour() -> None:
    anchors = torch.tensor([[0.0], [1.0], [3.0]])
    own = neighbour_score(anchors, anchors, torch.tensor([True] * 3), k=1)
    assert own.tolist() == pytest.approx([1.0, 1.0, 2.0])
    assert neighbour_score(torch.tensor([[0.5]]), anchors, torch.tensor([False]), k=1).item() == pytest.approx(0.5)


def line(name: str, kept: bool) -> filtering.Line:
    return {"id": name, "score": 0.5, "w": [0.0, 1.0], "mode": 3, "kept": kept, "source": "photos"}


def test_manifest_returns_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    lines = [line("a.png", True), line("naïve\n.png", False), line("c.png", True)]
    write_manifest(path, lines)
    assert list(read_manifest(path)) == lines
    assert len(path.read_text().splitlines()) == 3
    assert kept_ids(path) == ["a.png", "c.png"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("not json\n", "line 1 is not JSON"),
        (json.dumps({"id": "a"}) + "\n", "has not the keys"),
        (json.dumps([1]) + "\n", "has not the keys"),
        (json.dumps(line("a", False)) + "\n", "keeps no photo"),
        ("", "keeps no photo"),
    ],
)
def test_damaged_manifests_are_told(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=sentence):
        kept_ids(path)
    with pytest.raises(FileNotFoundError, match="stage `filter`"):
        kept_ids(tmp_path / "none.jsonl")
