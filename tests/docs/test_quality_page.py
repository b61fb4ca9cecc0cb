"""docs/quality.md says what the kept results say."""

from __future__ import annotations

import copy

import pytest

from contracts.settings import ROOT
from docs import generate_quality as quality


def test_the_page_is_made_of_the_kept_results() -> None:
    found = quality.documents(quality.RESULTS)
    for path in quality.PAGES:
        text = path.read_text()
        assert quality.page(text, found) == text, "python docs/generate_quality.py"
    assert len(quality.BLOCK.findall(quality.PAGE.read_text())) > 8
    assert quality.BLOCK.search((ROOT / "README.md").read_text())


def test_another_figure_makes_another_page() -> None:
    found = copy.deepcopy(quality.documents(quality.RESULTS))
    found["rees46"]["hit_rate@20"]["value"] = 0.1234
    assert "**0.1234**" in quality.page(quality.PAGE.read_text(), found)


def test_a_table_that_nobody_makes_is_told() -> None:
    text = "<!-- table: methods-nowhere -->\n<!-- end -->"
    with pytest.raises(ValueError, match="no evaluation 'nowhere'"):
        quality.page(text, {})


def test_every_picture_of_the_page_is_there() -> None:
    text = quality.PAGE.read_text()
    for name in ("diginetica", "rees46"):
        assert f"images/quality-{name}.png" in text
        assert (ROOT / f"docs/images/quality-{name}.png").is_file()
