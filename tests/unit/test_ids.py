"""The allocator of user ids: stable, never shared, safe between processes."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from stoker_sdk.errors import BadInput, StokerError
from stoker_sdk.ids import FIRST_ID, ID_COUNT, UserIds, first_id_of


def test_a_purpose_keeps_its_id_and_another_gets_another(tmp_path: Path) -> None:
    ids = UserIds(tmp_path / "ids.json", 5000, 10)
    assert ids.id_for("builder") == 5000
    assert ids.id_for("tests") == 5001
    assert ids.id_for("builder") == 5000


def test_ids_outlive_the_process(tmp_path: Path) -> None:
    first = UserIds(tmp_path / "ids.json", 5000, 10).id_for("function:openfaas-fn/greet")
    again = UserIds(tmp_path / "ids.json", 5000, 10)
    assert again.id_for("function:openfaas-fn/greet") == first
    assert again.id_for("function:openfaas-fn/other") != first


def test_a_range_that_is_used_up_is_an_error_which_names_the_range(tmp_path: Path) -> None:
    ids = UserIds(tmp_path / "ids.json", 5000, 2)
    ids.id_for("a"), ids.id_for("b")
    with pytest.raises(StokerError, match="all 2 user ids from 5000 on are given"):
        ids.id_for("c")
    assert ids.id_for("b") == 5001


def test_a_moved_range_gives_new_ids_from_the_new_range_only(tmp_path: Path) -> None:
    UserIds(tmp_path / "ids.json", 5000, 2).id_for("a")
    moved = UserIds(tmp_path / "ids.json", 7000, 2)
    assert (moved.id_for("a"), moved.id_for("b")) == (5000, 7000)


def test_a_broken_table_is_an_error_and_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "ids.json").write_text("{")
    with pytest.raises(StokerError, match=r"ids\.json: cannot be read"):
        UserIds(tmp_path / "ids.json", 5000, 2).id_for("a")
    assert (tmp_path / "ids.json").read_text() == "{"


def test_the_table_is_for_its_owner_only(tmp_path: Path) -> None:
    UserIds(tmp_path / "ids.json", 5000, 2).id_for("a")
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize(("first", "count"), [(0, 10), (5000, 0), (2**31 - 5, 10)])
def test_a_range_that_is_none_is_refused(tmp_path: Path, first: int, count: int) -> None:
    with pytest.raises(BadInput, match="are not a range"):
        UserIds(tmp_path / "ids.json", first, count)


def _allocate(path: Path, process: int) -> list[tuple[str, int]]:
    ids = UserIds(path, 5000, 1000)
    own = [f"function:{process}-{number}" for number in range(20)]
    shared = [f"artefact:{number}" for number in range(20)]
    return [(purpose, ids.id_for(purpose)) for pair in zip(own, shared, strict=True) for purpose in pair]


def test_processes_at_the_same_time_share_no_id(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        answers = list(pool.map(_allocate, [tmp_path / "ids.json"] * 4, range(4)))
    given = dict(pair for answer in answers for pair in answer)
    assert all(given[purpose] == number for answer in answers for purpose, number in answer)
    assert len(set(given.values())) == len(given) == 4 * 20 + 20


def test_each_data_folder_has_ids_of_its_own_and_always_the_same(tmp_path: Path) -> None:
    ranges = {name: first_id_of(tmp_path / name) for name in ("one", "two", "three")}
    assert len(set(ranges.values())) == 3
    assert first_id_of(tmp_path / "x" / ".." / "one") == ranges["one"]
    assert all(first % ID_COUNT == 0 and FIRST_ID <= first <= 2**31 - ID_COUNT for first in ranges.values())
