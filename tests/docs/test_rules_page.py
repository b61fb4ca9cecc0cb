"""The examples of docs/rules.md are valid, and their lists are what the rules make of its shop."""

from __future__ import annotations

import json
import re
from functools import cache

import numpy as np
import pytest

from contracts.features import text_id
from contracts.rules import Freshness, Match, Pin, Quota, Rules, Shift, arrange
from contracts.settings import ROOT, Settings
from orchestrator.request import parse_recommend

PLACES = 4
BLOCK = re.compile(r"```json\n([\s\S]*?)```\n((?:- list.*\n)*)")
LIST = re.compile(r"- list(?:, last item in (\w+))?: (.*)")
Row = dict[str, str]


@cache
def page() -> str:
    return (ROOT / "docs/rules.md").read_text()


def examples() -> list[tuple[str, str, str]]:
    """(rules, category of the last item, list), one for each list of the page."""
    return [(text, *told) for text, lists in BLOCK.findall(page()) for told in LIST.findall(lists)]


def shop() -> list[Row]:
    table = page().split("| item | ")[1].split("\n\n")[0]
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in f"item | {table}".split("\n")
    ]
    return [dict(zip(head, row, strict=True)) for row in rows]


def number(cell: str) -> float:
    return float({"yes": "1", "no": "0", "-": "nan"}.get(cell, cell))


def the_list(rules: Rules, last: str) -> list[str]:
    rows = shop()
    items = [row["item"] for row in rows]
    known = {
        name: np.array([text_id(row[of].strip("-")) for row in rows], np.int64)
        for name, of in (("category_id", "category"), ("brand_id", "brand"))
    }
    numbers = {
        name: np.array([number(row[of]) for row in rows], np.float32)
        for name, of in (
            ("price", "price"),
            ("available", "can be bought"),
            ("days_since_new", "days since first viewed"),
            ("score", "score"),
        )
    }
    found = arrange(rules, items, numbers.pop("score"), known | numbers, PLACES, text_id(last))
    return [items[row] for row in found.order]


def test_every_example_is_valid() -> None:
    blocks = BLOCK.findall(page())
    assert len(blocks) > 8
    for text, _ in blocks:
        Rules.model_validate_json(text)


def test_the_whole_file_says_everything_and_every_field_has_an_example() -> None:
    documents = [json.loads(text) for text, _ in BLOCK.findall(page())]
    assert set(documents[0]) == set(Rules.model_fields)
    fields = {*Match.model_fields, *Shift.model_fields, *Pin.model_fields}
    fields |= {*Quota.model_fields, *Freshness.model_fields}
    text = json.dumps(documents)
    assert {name for name in fields if f'"{name}":' not in text} == set()


@pytest.mark.parametrize(("text", "last", "expected"), examples())
def test_an_example_does_what_the_page_says(text: str, last: str, expected: str) -> None:
    assert ", ".join(the_list(Rules.model_validate_json(text), last)) == expected


def test_the_page_has_a_list_for_every_rule() -> None:
    shown = [Rules.model_validate_json(text).model_fields_set for text, _, _ in examples()]
    told = {name for fields in shown for name in fields}
    assert {"exclude_unavailable", "shifts", "category_quota", "freshness", "pins"} <= told


def test_the_request_of_the_page_is_taken() -> None:
    [body] = re.findall(r"-d '(\{.*\})'", page())
    assert parse_recommend(body.encode(), Settings(), 0).exclude_seen is True
