"""Parts are found as published, from made-up features by themselves, and what cannot be found is told."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from pit.encoders.dino import features_of, load_dino
from pit.messages import ShortError
from pit.partcraft import kmeans
from pit.partcraft.discovery import (
    PartClusters,
    caption,
    codes_of,
    discover,
    find_parts,
    words_in,
)
from pit.partcraft.kmeans import cluster, lloyd, nearest
from pit.partcraft.prompt import PartWord
from tests.encoders.test_dino import STATE, written
from tests.golden import assert_equal, relative_error


def published_clusters(golden) -> PartClusters:
    state = {key: value.float() for key, value in golden.below("partcraft_tiny_state", "kmeans.").items()}
    facts = golden.facts("partcraft_tiny_config")["seg"]
    return PartClusters(
        state["foreground_background"].T, state["coarse"].T, state["fine"].transpose(1, 2),
        facts["foreground_idx"], facts["background_code"],
    )


@pytest.mark.parametrize("chunk", [8192, 100])
def test_parts_are_found_as_published(golden, monkeypatch, chunk):
    monkeypatch.setattr(kmeans, "CHUNK", chunk)
    io, clusters = golden.below("partcraft_tiny_io", "seg/"), published_clusters(golden)
    facts = golden.facts("partcraft_tiny_config")["seg"]
    found = find_parts(io["feats"], clusters)
    codes = codes_of(found, clusters)
    assert torch.equal(found.near.flatten(1), io["fg_labels"].long())
    assert torch.equal(found.labels.flatten(1), io["coarse_labels"].long())
    assert torch.equal(found.masks(), io["masks"].float())
    assert torch.equal(codes, io["fine_labels"].long())
    assert_equal(found.features, io["features"])
    assert_equal(found.places(), io["location"])
    assert found.appeared() == facts["appeared"]
    rows = codes.tolist()
    assert [caption(row, clusters.absent) for row in rows] == facts["prompts"]
    assert [caption(row, clusters.absent, [0]) for row in rows] == facts["filter0"]


def test_the_search_is_the_published_one(golden):
    io, facts = golden.below("partcraft_tiny_io", "lloyd/"), golden.facts("partcraft_tiny_config")["lloyd"]
    steps = []
    centroids, labels, similarity = lloyd(io["data"].T, io["init"].T, lambda: steps.append(0))
    assert torch.equal(labels, io["labels"].long()) and len(steps) == facts["iterations"]
    assert relative_error(centroids, io["centroids"].T) < 1e-4
    assert similarity == pytest.approx(-facts["inertia"], abs=1e-6)


def directions(count: int, width: int = 24) -> Tensor:
    """Directions at right angles."""
    return torch.eye(width)[:count] * 4


def pictures(count: int, seed: int = 0, grid: tuple[int, int] = (8, 10)) -> tuple[Tensor, Tensor]:
    """Features `[n,24,h,w]` of things with two parts before a background, and the kinds of the parts.

    The upper part is of one of three kinds, the lower one of one of two.
    """
    random = torch.Generator().manual_seed(seed)
    basis = directions(8)
    kinds = torch.stack([
        torch.randint(0, 3, (count,), generator=random), torch.randint(0, 2, (count,), generator=random)
    ], dim=1)
    rows = basis[0].expand(count, *grid, -1).clone()
    for row, (upper, lower) in zip(rows, kinds.tolist(), strict=True):
        row[1:4, 2:8] = basis[1] + basis[3 + upper] * 0.6 + basis[7]
        row[4:7, 2:8] = basis[2] + basis[3 + lower] * 0.6 + basis[7]
    rows += 0.2 * torch.randn(rows.shape, generator=random)
    return rows.movedim(-1, 1), kinds


def reader(features: Tensor):
    return lambda numbers: features[numbers]


def matched(codes: Tensor, kinds: Tensor) -> bool:
    """Whether codes and kinds divide the pictures in the same way."""
    pairs = {(code, kind) for code, kind in zip(codes.tolist(), kinds.tolist(), strict=True)}
    return len(pairs) == len(set(codes.tolist())) == len(set(kinds.tolist()))


@pytest.mark.parametrize("seed, start", [(1, "published"), (1, "spread"), (2, "spread"), (42, "spread")])
def test_parts_are_found_by_themselves(seed, start):
    features, kinds = pictures(60)
    found = discover(reader(features), 60, 3, 3, seed=seed, start=start)
    parts = find_parts(features, found.clusters)
    back = found.clusters.background_part
    assert (parts.labels[:, 0] == back).all() and not (parts.labels[:, 2:6, 3:7] == back).any()
    upper, lower = (int(parts.labels[0, row, 4]) for row in (2, 5))
    assert {upper, lower, back} == {0, 1, 2}
    assert (parts.labels[:, 1:4, 2:8] == upper).all() and (parts.labels[:, 4:7, 2:8] == lower).all()
    assert matched(found.codes[:, upper], kinds[:, 0])
    assert torch.equal(codes_of(parts, found.clusters), found.codes) and found.notes == ()


def test_the_same_seed_finds_the_same_and_leaves_the_global_generators_alone():
    features, _ = pictures(12)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second = (discover(reader(features), 12, 3, 2) for _ in range(2))
    assert torch.equal(first.clusters.fine, second.clusters.fine) and torch.equal(first.codes, second.codes)
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()


def test_pictures_are_asked_for_a_few_at_a_time():
    features, _ = pictures(150, grid=(4, 5))
    asked = []
    discover(lambda numbers: asked.append(len(numbers)) or features[numbers], 150, 3, 2)
    assert max(asked) == 32 and sum(asked) == 100 + 150


def test_the_foreground_can_be_chosen_by_hand():
    features, _ = pictures(20)
    found = discover(reader(features), 20, 3, 2).clusters
    other = discover(reader(features), 20, 3, 2, foreground=1 - found.foreground).clusters
    parts = find_parts(features, other)
    assert (parts.labels[:, 2:6, 3:7] == other.background_part).all()


def test_where_the_border_tells_nothing_it_is_said():
    features, _ = pictures(20)
    column = features[:, :, :, 4:5]
    assert "all border" in discover(reader(column), 20, 3, 2).notes[0]
    halves = directions(2)[[0, 1]].reshape(1, 1, 2, 24).repeat(4, 6, 4, 1).movedim(-1, 1)
    assert "look alike" in discover(reader(halves), 4, 2, 2).notes[0]


def test_parts_that_are_absent_have_the_code_behind_the_last():
    features, kinds = pictures(30)
    features[3] = features[3, :, :1].repeat(1, 8, 1)  # a picture of nothing
    found = discover(reader(features), 30, 3, 2)
    back = found.clusters.background_part
    assert all((code == 2) == (part != back) for part, code in enumerate(found.codes[3].tolist()))
    assert words_in(found.codes[3].tolist(), 2) == [PartWord(back, (int(found.codes[3, back]),))]
    # And one without background.
    parts = find_parts(features[:1, :, 2:6, 3:7], found.clusters)
    assert codes_of(parts, found.clusters)[0, back] == 2 and parts.features.isfinite().all()
    assert (parts.places()[0, back] == 0).all()


def test_a_part_with_fewer_pictures_than_codes_has_fewer_codes():
    features, _ = pictures(12)
    features[4:] = features[4:, :, :1].repeat(1, 1, 8, 1)
    found = discover(reader(features), 12, 3, 6, start="spread")
    filled = (found.clusters.fine != 0).any(dim=-1).sum(dim=1)
    back = found.clusters.background_part
    assert all(count == (6 if part == back else 4) for part, count in enumerate(filled.tolist()))
    others = [part for part in range(3) if part != back]
    assert found.notes == tuple(
        f"The part part{part} is in 4 of 12 pictures, and has as many codes." for part in others
    )


@pytest.mark.parametrize("count, parts, codes", [(3, 3, 4), (3, 1, 2), (0, 3, 1), (5, 3, 0)])
def test_more_codes_than_pictures_are_refused(count, parts, codes):
    with pytest.raises(ShortError, match=f"1 to {count} codes for {count} pictures"):
        discover(reader(pictures(5)[0]), count, parts, codes)


def test_three_pictures_are_enough_for_three_codes():
    features, _ = pictures(3)
    codes = discover(reader(features), 3, 3, 3).codes
    assert all(sorted(column) == [0, 1, 2] for column in codes.T.tolist())


def test_pictures_of_one_color_are_told():
    features = directions(1).reshape(1, 24, 1, 1).repeat(5, 1, 6, 6)
    with pytest.raises(ShortError, match="pictures that look alike at every place"):
        discover(reader(features), 5, 3, 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_told_with_their_picture(value):
    features, _ = pictures(5)
    clusters = discover(reader(features), 5, 3, 2).clusters
    features[3, 5, 2, 2] = value
    with pytest.raises(ShortError, match="NaN or infinity for picture 3"):
        discover(reader(features), 5, 3, 2)
    with pytest.raises(ShortError, match="picture 3"):
        find_parts(features, clusters)


def test_features_of_other_sizes_are_told():
    features, _ = pictures(40)
    with pytest.raises(ShortError, match=r"\[8, 24, 8, 10\] for 8 pictures, as for those before, got"):
        discover(lambda numbers: features[numbers][..., :len(numbers)], 40, 3, 2)
    with pytest.raises(ShortError, match="for 5 pictures"):
        discover(lambda numbers: features[:3], 5, 3, 2)


def test_features_of_another_encoder_are_told():
    features, _ = pictures(5)
    clusters = discover(reader(features), 5, 3, 2).clusters
    with pytest.raises(ShortError, match=r"\[N,24,h,w\] .* got \[5, 20, 8, 10\]"):
        find_parts(features[:, :20], clusters)
    with pytest.raises(ShortError, match=r"got \[5, 24, 8\]"):
        discover(lambda numbers: features[numbers, :, :, 0], 5, 3, 2)


def test_the_search_can_be_cancelled():
    def cancel():
        raise InterruptedError

    with pytest.raises(InterruptedError):
        discover(reader(pictures(5)[0]), 5, 3, 2, on_iteration=cancel)


def test_the_best_of_five_searches_counts():
    data, random = pictures(20)[0].movedim(1, -1).flatten(0, 2), np.random.RandomState(3)
    centroids, labels = cluster(data, 6, random)
    mean = nearest(data, centroids)[1].mean()
    single = np.random.RandomState(3)
    means = []
    for _ in range(5):
        start = torch.from_numpy(single.choice(len(data), size=6, replace=False))
        means.append(nearest(data, lloyd(data, data[start])[0])[1].mean())
    assert mean == max(means) and len(labels) == len(data)


def test_searches_that_begin_apart_find_each_of_many_equal_rows():
    data = torch.cat([directions(1).repeat(500, 1), directions(5)[1:]])
    assert len(set(cluster(data, 5, np.random.RandomState(0), start="spread")[1].tolist())) == 5
    equal = directions(1).repeat(4, 1)
    assert len(cluster(equal, 3, np.random.RandomState(0), start="spread")[0]) == 3


def test_a_cluster_without_rows_becomes_zeros():
    data = directions(2)
    centroids, labels, _ = lloyd(data, torch.stack([data[0], data[1], -data[0]]))
    assert labels.tolist() == [0, 1] and (centroids[2] == 0).all()


def test_more_clusters_than_rows_are_refused():
    with pytest.raises(ShortError, match="1 to 2 clusters of 2 rows, got 3"):
        cluster(directions(2), 3, np.random.RandomState(0))


def test_the_parts_of_pictures_are_found(tmp_path):
    """From pictures to codes, with an encoder that knows nothing: two colors before a plain ground."""
    def picture(number: int) -> Image.Image:
        image = Image.new("RGB", (256, 256), "gray")
        draw = ImageDraw.Draw(image)
        draw.rectangle((70, 70, 185, 127), fill="red")
        draw.rectangle((70, 128, 185, 185), fill=("blue", "green")[number % 2])
        return image

    model = load_dino(written(tmp_path, STATE))
    # An untrained encoder mixes the places; its features are told apart from each other, not from zero.
    features = features_of(model, picture)
    found = discover(features, 6, 3, 2, start="spread")
    parts = find_parts(features([0, 1]), found.clusters)
    assert parts.labels.shape == (2, 16, 16) and found.codes.shape == (6, 3)
    assert torch.equal(found.codes[0], found.codes[2]) and torch.equal(found.codes[1], found.codes[3])
    assert not torch.equal(found.codes[0], found.codes[1])
