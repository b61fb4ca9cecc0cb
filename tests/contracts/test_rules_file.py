"""Files of rules that are wrong: what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import UsageError
from contracts.rules import Rules, read_rules


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "the file: Invalid JSON"),
        ("[]", "the file: Input should be an object"),
        ('{"exclude_sen": true}', "exclude_sen: Extra inputs are not permitted, got True"),
        ('{"exclude_seen": "perhaps"}', "exclude_seen: .*boolean.*, got 'perhaps'"),
        ('{"pins": [{"item": "a", "place": 0}]}', r"pins\.0\.place: .*, got 0"),
        ('{"pins": [{"item": "a", "place": 1, "when": "x"}]}', r"pins\.0\.when: Extra.*, got 'x'"),
        ('{"pins": [{"item": "a", "place": 1}, {"item": "b", "place": 1}]}', "pins: two .* place .*1"),
        ('{"pins": [{"item": "a", "place": 1}, {"item": "a", "place": 2}]}', "pins: two .* item .*a"),
        ('{"shifts": [{"by": 1}]}', r"shifts\.0: .*matches every item"),
        ('{"shifts": [{"items": ["a"], "by": 0}]}', r"shifts\.0: .*by: 0 moves nothing"),
        ('{"shifts": [{"items": ["a"], "by": 11}]}', r"shifts\.0\.by: .*, got 11"),
        ('{"shifts": [{"items": ["a"]}]}', r"shifts\.0\.by: Field required"),
        ('{"shifts": [{"price_from": 9, "price_to": 1, "by": 1}]}', "price_from 9.* above price_to 1"),
        ('{"category_quota": {"most": 0}}', r"category_quota\.most: .*, got 0"),
        ('{"freshness": {"least": 1, "new_within_days": -3}}', r"freshness\.new_within_days: .*, got -3"),
        ('{"version": "a b"}', "version: .*, got 'a b'"),
        ('{"exclude_seen": 1}', "exclude_seen: .*boolean, got 1"),
        ('{"category_quota": {"most": "3"}}', r"category_quota\.most: .*integer, got '3'"),
        ('{"pins": [{"item": "a", "place": 1, "place": 2}]}', "place: stands there twice"),
        ('{"version": "default", "exclude_seen": true}', "'default' names the rules without a file"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_told(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "rules.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=said) as error:
        read_rules(path)
    assert str(error.value).startswith(f"rules {path}: ")
    assert "docs/rules.md" in str(error.value)


def test_an_editors_mark_before_the_text_is_none_of_it(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    path.write_text('{"exclude_seen": true}', encoding="utf-8-sig")
    assert read_rules(path) == Rules(exclude_seen=True)
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(UsageError, match="no UTF-8 text"):
        read_rules(path)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.json cannot be read: No such file"):
        read_rules(tmp_path / "none.json")
