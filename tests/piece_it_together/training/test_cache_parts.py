"""Parts of a token cache put together, also after a break at any point of that."""

import shutil

import pytest

from pit.files.lock import InUseError, only_process
from pit.piece_it_together.training import cache_parts
from pit.piece_it_together.training.cache import MANIFEST, CacheError, open_cache
from pit.piece_it_together.training.cache_parts import PARTS, WHOLE, Share, gather_parts
from pit.piece_it_together.training.dataset import read_dataset
from pit.piece_it_together.training.encode import encode_dataset
from tests.piece_it_together.training.test_encode import ENCODER, make_concepts, tiny_encoder


@pytest.fixture
def pictures(tmp_path):
    make_concepts(tmp_path / "set", range(5))
    return tmp_path / "set"


def encode(pictures, cache, share=WHOLE, encoder=ENCODER, **options):
    return encode_dataset(read_dataset(pictures), cache, encoder, share=share, variants=1, **options)


def test_shares_hold_everything_once():
    items = list(range(11))
    shares = [Share(number, 3).of(items) for number in range(3)]
    assert sorted(sum(shares, [])) == items and WHOLE.of(items) == items


@pytest.mark.parametrize("broken_at", range(6))
def test_a_break_at_any_point_loses_nothing_and_adds_nothing_twice(
    tmp_path, pictures, monkeypatch, broken_at
):
    cache = tmp_path / "cache"
    for number in range(2):
        encode(pictures, cache, Share(number, 2))
    calls = []

    def breaking(action):
        def run(*arguments):
            calls.append(action)
            if len(calls) > broken_at:
                raise KeyboardInterrupt
            return action(*arguments)

        return run

    with monkeypatch.context() as patch:
        patch.setattr(cache_parts, "link", breaking(cache_parts.link))
        patch.setattr(cache_parts, "write_whole", breaking(cache_parts.write_whole))
        patch.setattr(shutil, "rmtree", breaking(shutil.rmtree))
        with pytest.raises(KeyboardInterrupt):
            gather_parts(cache)
    gather_parts(cache)
    found = open_cache(cache, verify=True)
    assert found.names == [f"target/c{number:02d}" for number in range(5)]
    assert sum(len(shard) for shard in found.shards) == 5 * 3
    assert not (cache / PARTS).exists()


def test_files_are_copied_where_they_cannot_be_linked(tmp_path, pictures, monkeypatch):
    def refuse(*_):
        raise OSError("not supported")

    monkeypatch.setattr(cache_parts.os, "link", refuse)
    encode(pictures, tmp_path / "cache", Share(0, 2))
    gather_parts(tmp_path / "cache")
    assert len(open_cache(tmp_path / "cache", verify=True)) == 3


def test_a_part_that_was_ended_before_it_began_is_removed(tmp_path, pictures):
    encode(pictures, tmp_path / "cache", Share(0, 2))
    (tmp_path / "cache" / PARTS / "0001").mkdir()
    gather_parts(tmp_path / "cache")
    assert len(open_cache(tmp_path / "cache")) == 3 and not (tmp_path / "cache" / PARTS).exists()


def test_a_part_that_somebody_still_writes_is_left_alone(tmp_path, pictures):
    encode(pictures, tmp_path / "cache", Share(0, 2))
    part = tmp_path / "cache" / PARTS / "0000"
    with only_process(part), pytest.raises(InUseError, match="no other process at work in"):
        gather_parts(tmp_path / "cache")
    assert (part / MANIFEST).exists()


def test_parts_of_other_settings_are_refused_before_anything_is_encoded(tmp_path, pictures):
    encode(pictures, tmp_path / "cache")
    with pytest.raises(CacheError, match="encoded by another encoder"):
        encode(pictures, tmp_path / "cache", Share(0, 2), tiny_encoder(vision_seed=1))
    gather_parts(tmp_path / "cache")  # a part of other settings in which there is nothing
    with pytest.raises(CacheError, match="seed 0 .now 5"):
        encode(pictures, tmp_path / "cache", Share(0, 2), seed=5)
    gather_parts(tmp_path / "cache")
    assert len(open_cache(tmp_path / "cache")) == 5


def test_more_processes_than_concepts(tmp_path, pictures):
    reports = [encode(pictures, tmp_path / "cache", Share(number, 7)) for number in range(7)]
    assert [report.added for report in reports] == [1, 1, 1, 1, 1, 0, 0]
    gather_parts(tmp_path / "cache")
    assert len(open_cache(tmp_path / "cache")) == 5
