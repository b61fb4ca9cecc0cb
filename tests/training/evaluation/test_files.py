"""Files that an evaluation reads: what becomes of their rows, and what is said of bad ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contracts.errors import UsageError
from training.evaluation.files import UNKNOWN, event_file, session_table
from training.evaluation.run import END
from training.evaluation.shop import Shop

HEAD = "session_idx,position,item_id,split\n"
DAY = 86_400
GOOD = (
    HEAD
    + "1,0,a,train\n1,1,b,train\n2,0,b,train\n2,1,b,train\n7,1,c,test\n7,0,a,test\n7,2,c,test\n"
)


def table(folder: Path, text: str) -> Shop:
    path = folder / "t.csv"
    path.write_text(text)
    return session_table(path)


def asked(shop: Shop) -> list[tuple[tuple[str, ...], str]]:
    queries = [shop.query(prefix) for prefix in shop.prefixes(shop.cutoff, END)]
    return [(query.visited, query.label) for query in queries]


def test_every_prefix_of_a_test_session_is_asked_in_the_order_of_positions(tmp_path: Path) -> None:
    shop = table(tmp_path, GOOD)
    assert asked(shop) == [(("a",), "c"), (("a", "c"), "c")]  # a second click counts too
    assert len(shop.before(shop.cutoff)) == 4
    assert shop.catalogue is None
    assert (shop.starts == [0, 2, 4, 7]).all()


def test_parquet_says_the_same(tmp_path: Path) -> None:
    import pyarrow.csv
    import pyarrow.parquet

    (tmp_path / "t.csv").write_text(GOOD)
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(tmp_path / "t.csv"), tmp_path / "t.parquet")
    assert asked(session_table(tmp_path / "t.parquet")) == asked(table(tmp_path, GOOD))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("session_idx,position,item_id\n1,0,a\n", "no column split"),
        (HEAD + "1,0,a,train\n2,0,b,valid\n3,0,b,test\n", "1 rows have a split"),
        (HEAD + "1,0,,train\n2,0,b,test\n", "1 lack a session, a position or an item"),
        (HEAD + "1,0,a,train\n1,1,b,train\n", "1 train and 0 test sessions"),
        (HEAD + "1,0,a,test\n1,1,b,test\n", "0 train and 1 test sessions"),
        (HEAD + "1,0,a,test\n2,1,b,train\n", "in the order of time"),
        (HEAD + "1,0,a,train\n1,nan,b,train\n2,0,b,test\n", "1 lack a session, a position or"),
        (HEAD + "1,0,1.5,train\n1,1,nan,train\n2,0,2.5,test\n", "1 lack a session, a position or"),
        (HEAD + f"1,0,{'x' * 257},train\n2,0,b,test\n", "1 have an item id of over 256 characters"),
        (HEAD, "holds no row"),
        (HEAD + "1,0,a,0\n2,0,b,1\n", "split holds BIGINT, expected the texts train and test"),
        (HEAD + "s1,0,a,train\ns2,0,b,test\n", "session_idx hold VARCHAR, expected numbers"),
        ("", "t.csv"),
    ],
)
def test_what_is_wrong_with_a_table_is_told(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        table(tmp_path, text)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        session_table(tmp_path / "none.parquet")


# --- events --------------------------------------------------------------------------------------

COLUMNS = "session_id,item_id,time,type,category,brand,price\n"
BEGIN = 1_700_000_000


def rows(session: str, day: float, *clicks: tuple[str, str]) -> str:
    """A minute from one event to the next."""
    lines = [
        f"{session},{item},{(BEGIN + int(day * DAY) + 60 * place) * 1000},{kind},cat.{item},b,10\n"
        for place, (kind, item) in enumerate(clicks)
    ]
    return "".join(lines)


def views(*items: str) -> list[tuple[str, str]]:
    return [("view", item) for item in items]


OLD = "".join(rows(f"s{day}", day, *views("a", "b", "c")) for day in range(10))
NEW = rows("t", 19.5, ("view", "a"), ("cart", "a"), ("view", "new"), ("view", "b"), ("view", "b"))


def events(folder: Path, text: str, **options: Any) -> Shop:
    path = folder / "e.csv"
    path.write_text(COLUMNS + text)
    return event_file(path, None, **options)


def test_the_last_days_are_asked_about_items_that_the_train_part_knows(tmp_path: Path) -> None:
    shop = events(tmp_path, OLD + NEW, views_only=True)
    assert asked(shop) == [(("a",), "b"), (("a", "b"), "b")]
    assert shop.catalogue is not None
    assert sorted(shop.catalogue["item_id"].to_pylist()) == ["a", "b", "c", "new"]


def test_new_items_stay_where_that_is_wanted(tmp_path: Path) -> None:
    shop = events(tmp_path, OLD + NEW, views_only=True, keep_new=True)
    assert [label for _, label in asked(shop)] == ["new", "b", "b"]


def test_carts_are_events_of_a_visit_but_no_labels(tmp_path: Path) -> None:
    shop = events(tmp_path, OLD + NEW)
    kinds = [shop.query(prefix).kind for prefix in shop.prefixes(shop.cutoff, END)]
    assert [label for _, label in asked(shop)] == ["b", "b"]
    assert asked(shop)[0][0] == ("a", "a")
    assert kinds == ["click", "click"]


def test_clicks_of_the_train_part_are_counted_without_carts(tmp_path: Path) -> None:
    shop = events(tmp_path, OLD + rows("u", 5.5, ("view", "a"), ("cart", "a")) + NEW)
    assert shop.train_clicks() == {"a": 11, "b": 10, "c": 10}


def test_items_that_are_viewed_seldom_are_left_out(tmp_path: Path) -> None:
    shop = events(tmp_path, OLD + NEW, views_only=True, keep_new=True, min_item_views=5)
    assert "new" not in shop.items


def test_a_pause_of_half_an_hour_ends_a_visit(tmp_path: Path) -> None:
    later = rows("s0", 0.05, *views("c", "a"))  # 72 minutes after the same session's first visit
    shop = events(tmp_path, OLD + later + NEW)
    of_s0 = {shop.visit_of(int(begin)) for begin in shop.starts[:-1] if shop.times[begin] < (BEGIN + DAY) * 1000}  # fmt: skip
    assert len(of_s0) == 2


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (OLD + NEW, {"min_item_views": 50}, "no visit is left with two events"),
        (OLD + NEW, {"test_days": 30.0}, "at least as many are needed"),
        (rows("s", 0, *views("a")), {}, "no visit is left with two events"),
        (OLD + NEW, {"test_days": float("nan")}, "--test-days nan: expected a number"),
        (OLD + NEW, {"test_days": float("inf")}, "--test-days inf: expected a number"),
    ],
)
def test_what_is_wrong_with_events_is_told(
    tmp_path: Path, text: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        events(tmp_path, text, **options)


def test_rows_that_an_import_would_refuse_are_left_out_and_counted(tmp_path: Path) -> None:
    """Long ids were cut and became one item, so that every list was right."""
    wrong = rows("w", 19.4, *views("x" * 3000 + "1", "x" * 3000 + "2", "a", ""))
    wrong += rows("w" * 300, 19.4, *views("a", "b")) + rows("v", 19.4, ("sung", "a"))
    wrong += "u,a,yesterday,view,c,b,1\nu,b,,view,c,b,1\nu,b,99999999999999,view,c,b,1\n"
    shop = events(tmp_path, OLD + NEW + wrong, views_only=True)
    assert asked(shop) == asked(events(tmp_path, OLD + NEW, views_only=True))
    assert {reason: count for reason, count in shop.left_out.items() if reason != UNKNOWN} == {
        "no session or item": 1, "id too long": 4, "no time of 1970 to 2200": 3, "another type": 2,
        "the only event of its visit": 1,
    }  # fmt: skip


def test_what_the_file_loses_is_counted(tmp_path: Path) -> None:
    """A third of a test part went in silence."""
    lone, twice = rows("w", 19.4, *views("a")), rows("v", 19.4, *views("a", "b"))
    shop = events(tmp_path, OLD + NEW + lone + twice + twice, views_only=True)
    unknown = len(events(tmp_path, OLD + NEW, views_only=True, keep_new=True).events)
    unknown -= len(events(tmp_path, OLD + NEW, views_only=True).events)
    assert shop.left_out == {
        "another type": 1, "the only event of its visit": 1, "repeats another row, the row counts": 2,
        UNKNOWN: unknown,
    }  # fmt: skip
    assert unknown > 0
    seldom = events(tmp_path, OLD + NEW, views_only=True, min_item_views=3).left_out
    assert seldom["item viewed too seldom"] > 0
    assert "repeats another row, the row counts" in table(tmp_path, GOOD + "7,1,c,test\n").left_out


def test_a_row_counts_under_one_reason_only(tmp_path: Path) -> None:
    wrong = "u,,yesterday,sung,c,b,1\n"
    told = events(tmp_path, OLD + NEW + wrong, keep_new=True).left_out
    assert told == {"no session or item": 1}


@pytest.mark.parametrize("price", ["inf", "-inf", "-1", "1e300", "dear"])
def test_a_price_that_is_none_is_unknown(tmp_path: Path, price: str) -> None:
    told = f"s0,a,{(BEGIN + 3600) * 1000},view,cat.a,b,{price}\n"
    shop = events(tmp_path, OLD + NEW + told, views_only=True)
    assert shop.catalogue is not None
    assert {each for each in shop.catalogue["price"].to_pylist() if each is not None} == {10.0}
    assert shop.left_out["price not taken, the row counts"] == 1


def test_clicks_of_one_position_keep_the_order_of_the_file(tmp_path: Path) -> None:
    rows = "".join(f"2,0,{item},test\n" for item in ("d", "a", "c", "b"))
    shop = table(tmp_path, HEAD + "1,0,a,train\n1,1,b,train\n" + rows)
    assert shop.items.tolist() == ["a", "b", "d", "a", "c", "b"]


def test_a_file_is_read_by_what_it_is_and_not_by_its_name(tmp_path: Path) -> None:
    import pyarrow.csv
    import pyarrow.parquet

    expected = asked(table(tmp_path, GOOD))
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(tmp_path / "t.csv"), tmp_path / "t.PQ")
    assert asked(session_table(tmp_path / "t.PQ")) == expected


def test_the_item_that_is_looked_at_is_asked_for_only_where_that_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(GOOD)
    assert asked(session_table(path, current=False)) == [(("a",), "c")]
    path = tmp_path / "e.csv"
    path.write_text(COLUMNS + OLD + NEW)
    shop = event_file(path, views_only=True, current=False)
    assert asked(shop) == [(("a",), "b")]


def test_a_test_part_as_long_as_the_train_part_has_shorter_label_windows(tmp_path: Path) -> None:
    text = [f"{n},{p},i{p},{'train' if n < 9 else 'test'}\n" for n in range(18) for p in range(3)]
    shop = table(tmp_path, HEAD + "".join(text))
    assert shop.length == (shop.cutoff - shop.first) // 3


def test_a_small_test_part_does_not_make_the_train_part_centuries_long(tmp_path: Path) -> None:
    """Times before 1970 were lost to the baselines, and label windows held nothing."""
    train = "".join(f"{n},0,a,train\n{n},1,b,train\n" for n in range(6000))
    shop = table(tmp_path, HEAD + train + "6000,0,a,test\n6000,1,b,test\n")
    assert 51 * 7 < (shop.cutoff - shop.first) / 86_400_000 <= 52 * 7
    assert shop.times.min() > 0
    assert len(shop.prefixes(shop.cutoff - shop.length, shop.cutoff)) >= 6000 // 52
    assert asked(shop) == [(("a",), "b")]


def test_item_ids_among_floats_are_what_they_were(tmp_path: Path) -> None:
    """As pandas writes a column of numbers that once had a gap; half numbers stay apart."""
    text = HEAD + "1,0,12.0,train\n1,1,7.5,train\n1,2,7.0,train\n2,0,12.0,test\n2,1,7.5,test\n"
    assert set(table(tmp_path, text).items) == {"12", "7", "7.5"}


def test_a_late_stray_visit_is_not_the_test_part(tmp_path: Path) -> None:
    many = "".join(rows(f"s{n}", n / 10, *views("a", "b", "c")) for n in range(100))
    stray = rows("z", 300, *views("a", "b"))
    shop = events(tmp_path, many + stray, test_days=3)
    assert shop.cutoff < (BEGIN + 8 * DAY) * 1000
    assert shop.left_out == {"far after all others": 2}
    assert shop.times.max() < (BEGIN + 11 * DAY) * 1000


# --- counted by hand -----------------------------------------------------------------------------


def test_gaps_and_disorder_of_a_table_say_nothing(tmp_path: Path) -> None:
    """Rows in any order, numbers with gaps: sessions stand in the order of their numbers."""
    text = "90,5,x,test\n90,1,y,test\n7,0,c,train\n3,10,b,train\n3,2,a,train\n91,0,x,test\n"
    shop = table(tmp_path, HEAD + text)
    assert shop.items.tolist() == ["a", "b", "c", "y", "x", "x"]
    assert asked(shop) == [(("y",), "x")]  # 91 has no next click
    assert (shop.times[:-1] < shop.times[1:]).all()
    assert shop.times[2] < shop.cutoff <= shop.times[3]


def test_the_test_part_is_a_week_and_the_train_part_in_proportion(tmp_path: Path) -> None:
    rows = [f"{n},{p},i{p},{'train' if n < 6 else 'test'}\n" for n in range(8) for p in range(3)]
    shop = table(tmp_path, HEAD + "".join(rows))
    week = 7 * DAY * 1000
    assert shop.length == week
    assert shop.cutoff - shop.first == 3 * week  # six sessions beside two
    assert shop.times.min() == shop.first
    assert shop.times.max() < shop.cutoff + week
    assert len(shop.prefixes(shop.first, shop.cutoff)) == 12
    assert len(shop.prefixes(shop.cutoff, shop.cutoff + week)) == 4


def test_an_item_of_a_table_may_be_a_number(tmp_path: Path) -> None:
    shop = table(tmp_path, HEAD + "1,0,17,train\n1,1,18,train\n2,0,18,test\n2,1,17,test\n")
    assert asked(shop) == [(("18",), "17")]


def test_a_missing_column_is_told_beside_what_came_and_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as told:
        table(tmp_path, "session_idx,place,item_id\n1,0,a\n")
    message = str(told.value)
    assert "no column position, split" in message
    assert "found session_idx, place, item_id" in message
    assert "session_idx, position, item_id, split" in message
    assert "--events t.csv" in message


def test_a_missing_column_of_events_is_told_beside_what_came_and_what_is_needed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "e.csv"
    path.write_text("visitor,item_id,time,type\ns,a,1,view\n")
    with pytest.raises(UsageError) as told:
        event_file(path)
    message = str(told.value)
    assert "found the columns visitor, item_id, time, type" in message
    assert "needed are session_id, item_id, time, type" in message
    named = {"session": "visitor", "item": "item_id", "time": "time", "type": "type"}
    with pytest.raises(UsageError, match="no visit is left with two events"):
        event_file(path, named)


def test_what_is_left_of_too_few_views_says_which_options_did_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as told:
        events(tmp_path, OLD + NEW, views_only=True, min_item_views=50)
    for expected in ("e.csv", "two events", "item_view, view, click", "--min-item-views"):
        assert expected in str(told.value)
    assert "add_to_cart" not in str(told.value)


def test_a_history_that_is_too_short_says_its_days(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"span 19\.50 days.* 9\.50 days .* 10 days;.*--test-days"):
        events(tmp_path, OLD + NEW, test_days=10.0)


def test_events_of_one_moment_keep_their_order_and_get_moments_of_their_own(
    tmp_path: Path,
) -> None:
    moment = (BEGIN + 19 * DAY) * 1000
    lines = [f"t,{item},{moment},view,c,b,1\n" for item in ("c", "a", "b", "a")]
    shop = events(tmp_path, OLD + "".join(lines))
    assert asked(shop) == [(("c",), "a"), (("c", "a"), "b"), (("c", "a", "b"), "a")]
    times = shop.times[shop.times >= shop.cutoff]
    assert len(set(times.tolist())) == 4


def test_types_that_say_nothing_of_items_and_rows_without_item_are_left_out(tmp_path: Path) -> None:
    more = rows("u", 19.2, ("view", "a"), ("search", "b"), ("view", ""), ("wishlist", "c"))
    shop = events(tmp_path, OLD + more + NEW, views_only=True)
    assert asked(shop) == [(("a",), "b"), (("a", "b"), "b")]  # one event of u is no visit


def test_what_became_of_a_label_is_told_until_its_visit_ends(tmp_path: Path) -> None:
    visit = rows(
        "u", 19.2, ("view", "a"), ("view", "b"), ("cart", "b"), ("view", "c"), ("cart", "c"),
        ("purchase", "c"), ("view", "b"),
    )  # fmt: skip
    shop = events(tmp_path, OLD + visit)
    queries = [shop.query(prefix) for prefix in shop.prefixes(shop.cutoff, END)]
    assert [(query.label, query.kind) for query in queries] == [
        ("b", "cart"), ("c", "purchase"), ("b", "click"),
    ]  # fmt: skip


def test_a_visit_that_begins_before_the_test_part_is_not_asked(tmp_path: Path) -> None:
    """The last event is at day 12 and two minutes, the test part its last two days."""
    straddling = rows("u", 10.0 + 1 / 1440, *views("a", "b", "c"))
    shop = events(
        tmp_path, OLD + straddling + rows("v", 12.0, *views("a", "b", "c")), test_days=2.0
    )
    assert asked(shop) == [(("a",), "b"), (("a", "b"), "c")]
    assert len(shop.before(shop.cutoff)) == 30 + 2
