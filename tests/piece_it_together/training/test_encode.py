"""From pictures to the token cache: what is encoded, what is kept, what is left out, and stopping midway."""

import json
import random
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from pit.files.pictures import open_picture
from pit.images import clip_pixel_values
from pit.ip_adapter.encoder import TokenEncoder, fingerprints
from pit.ip_adapter.resampler import Resampler
from pit.piece_it_together.parts import reference_grid
from pit.piece_it_together.sketch import SKETCH_FIT
from pit.piece_it_together.training.augment import Augmentation, augment_part
from pit.piece_it_together.training.cache import CacheError, TokenCache, open_cache
from pit.piece_it_together.training.dataset import Dataset, read_dataset
from pit.piece_it_together.training.encode import GRID_SIZE, Preparation, Ring, encode_dataset

SIZE, WIDTH, PATCH = 32, 12, 8
HALF = {"rtol": 2e-3, "atol": 2e-3}
LIVELY = Augmentation(crop_probability=0.5, rotation_probability=0.5, sketch_probability=0.3)


def tiny_encoder(vision_seed: int = 0, adapter_seed: int = 0) -> TokenEncoder:
    """Patches through a random projection, then a real resampler."""
    projection = torch.randn(3 * PATCH**2, 20, generator=torch.Generator().manual_seed(vision_seed)) / 10

    def features(pixels: Tensor) -> Tensor:
        return torch.tanh(functional.unfold(pixels, PATCH, stride=PATCH).transpose(1, 2) @ projection)

    with torch.random.fork_rng():
        torch.manual_seed(adapter_seed)
        resampler = Resampler(
            dim=16, depth=1, dim_head=8, heads=2, embedding_dim=20, output_dim=WIDTH
        ).requires_grad_(False)
    return TokenEncoder(f"vision {vision_seed}", f"adapter {adapter_seed}", SIZE, features, resampler)


ENCODER = tiny_encoder()


def picture(path: Path, seed: int, size: tuple[int, int]) -> None:
    """Coarse random blocks of colour on white."""
    rng = random.Random(seed)
    image = Image.new("RGB", size, "white")
    for _ in range(4):
        x, y = rng.randrange(size[0] - 8), rng.randrange(size[1] - 8)
        image.paste(tuple(rng.randrange(200) for _ in range(3)), (x, y, x + 8, y + 8))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def make_concepts(folder: Path, numbers, parts: int = 2) -> None:
    """Concepts in the folder layout."""
    for number in numbers:
        picture(folder / "target" / f"c{number:02d}.png", number, (48, 40))
        for part in range(parts):
            picture(folder / "parts" / f"c{number:02d}" / f"{part}.png", 100 * number + part + 7, (20, 16))


def encode(source: Path, cache: Path, encoder: TokenEncoder = ENCODER, **options):
    options = {"variants": 2, "batch": 5, "augmentation": LIVELY} | options
    return encode_dataset(read_dataset(source), cache, encoder, **options)


def expected_tokens(images: list[Image.Image]) -> Tensor:
    return ENCODER.tokens(clip_pixel_values(images, SIZE))


def assert_same_tokens(one: TokenCache, other: TokenCache) -> None:
    assert one.names == other.names and one.groups == other.groups
    assert torch.equal(one.part_offsets, other.part_offsets)
    variants = torch.arange(one.variants)
    for rows in (
        lambda cache: cache.target_rows,
        lambda cache: (cache.part_rows[:, None] + variants).flatten(),
        lambda cache: cache.reference_rows.flatten(),
    ):
        torch.testing.assert_close(one.rows(rows(one)), other.rows(rows(other)), **HALF)


@pytest.mark.parametrize("batch", [1, 5, 100])
def test_each_row_holds_the_tokens_of_its_picture(tmp_path, batch):
    make_concepts(tmp_path / "set", range(3))
    report = encode(tmp_path / "set", tmp_path / "cache", batch=batch, seed=3)
    assert (report.added, report.kept, report.skipped) == (3, 0, ())
    cache = open_cache(tmp_path / "cache", verify=True)
    for i, concept in enumerate(read_dataset(tmp_path / "set").concepts):
        target = open_picture(concept.target)
        tokens = [cache.target_rows[i:i + 1]]
        images = [target]
        first = int(cache.part_offsets[i])
        for number, path in enumerate(concept.parts):
            for variant in range(2):
                rng = random.Random(f"3/{concept.name}/{path.name}/{variant}")
                images.append(augment_part(open_picture(path), target.size, LIVELY, rng))
                tokens.append(cache.part_rows[first + number, None] + variant)
        torch.testing.assert_close(cache.rows(torch.cat(tokens)).float(), expected_tokens(images), **HALF)


def test_empty_and_uncond_are_those_of_a_white_and_of_a_zero_picture(tmp_path):
    make_concepts(tmp_path / "set", range(1))
    encode(tmp_path / "set", tmp_path / "cache")
    cache = open_cache(tmp_path / "cache")
    white = expected_tokens([Image.new("RGB", (300, 200), "white")])
    torch.testing.assert_close(cache.empty, white)
    torch.testing.assert_close(cache.uncond, ENCODER.tokens(torch.zeros(1, 3, SIZE, SIZE)))
    assert (cache.empty - cache.uncond).abs().max() > 0.1


def test_adding_pictures_gives_the_same_as_one_go(tmp_path):
    make_concepts(tmp_path / "set", range(0, 12, 2))
    encode(tmp_path / "set", tmp_path / "cache")
    make_concepts(tmp_path / "set", range(1, 12, 2))
    report = encode(tmp_path / "set", tmp_path / "cache", batch=7)
    assert (report.added, report.kept) == (6, 6)
    encode(tmp_path / "set", tmp_path / "once")
    assert_same_tokens(open_cache(tmp_path / "cache"), open_cache(tmp_path / "once"))


def test_nothing_is_encoded_again_and_the_cache_stays_as_it_is(tmp_path):
    make_concepts(tmp_path / "set", range(3))
    encode(tmp_path / "set", tmp_path / "cache")
    before = open_cache(tmp_path / "cache").fingerprint
    calls = []
    watched = replace(ENCODER, features=lambda pixels: calls.append(len(pixels)) or ENCODER.features(pixels))
    report = encode(tmp_path / "set", tmp_path / "cache", watched)
    assert (report.added, report.kept) == (0, 3)
    assert calls == [2, 1]  # the empty and zero pictures, and the one for the fingerprints
    assert open_cache(tmp_path / "cache").fingerprint == before


@pytest.mark.parametrize("change", [
    lambda folder: picture(folder / "target" / "c01.png", 55, (48, 40)),
    lambda folder: picture(folder / "parts" / "c01" / "0.png", 55, (20, 16)),
    lambda folder: picture(folder / "parts" / "c01" / "2.png", 55, (20, 16)),
    lambda folder: (folder / "parts" / "c01" / "1.png").unlink(),
])
def test_a_changed_concept_is_encoded_again(tmp_path, change):
    make_concepts(tmp_path / "set", range(3))
    encode(tmp_path / "set", tmp_path / "cache")
    change(tmp_path / "set")
    report = encode(tmp_path / "set", tmp_path / "cache")
    assert (report.added, report.kept) == (1, 2)
    encode(tmp_path / "set", tmp_path / "once")
    assert_same_tokens(open_cache(tmp_path / "cache"), open_cache(tmp_path / "once"))


@pytest.mark.parametrize("encoder, message", [
    (tiny_encoder(vision_seed=1), "another encoder.*vision 0.*vision 1"),
    (tiny_encoder(adapter_seed=1), "another adapter.*adapter 0.*adapter 1"),
])
def test_another_encoder_or_adapter_is_noticed_and_refused(tmp_path, encoder, message):
    make_concepts(tmp_path / "set", range(2))
    encode(tmp_path / "set", tmp_path / "cache")
    with pytest.raises(CacheError, match=message):
        encode(tmp_path / "set", tmp_path / "cache", encoder)


@pytest.mark.parametrize("change, message", [
    ({"variants": 3}, "variants 2 .now 3."),
    ({"seed": 1}, "seed 0 .now 1."),
    ({"references": 1}, "references 0 .now 1."),
    ({"augmentation": replace(LIVELY, sketch_probability=0.5)}, "sketch_probability 0.3 .now 0.5."),
])
def test_other_settings_are_refused(tmp_path, change, message):
    make_concepts(tmp_path / "set", range(2))
    encode(tmp_path / "set", tmp_path / "cache")
    with pytest.raises(CacheError, match=message):
        encode(tmp_path / "set", tmp_path / "cache", **change)


@pytest.mark.parametrize("probability", [0.0, 0.3])
def test_caches_with_the_sketches_of_0_5_0_are_not_added_to(tmp_path, probability):
    make_concepts(tmp_path / "set", range(2))
    chosen = {"augmentation": replace(LIVELY, sketch_probability=probability)}
    encode(tmp_path / "set", tmp_path / "cache", **chosen)
    manifest = tmp_path / "cache" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["augmentation"].pop("sketches", None)  # which 0.5.0 did not write
    manifest.write_text(json.dumps(content))
    if probability:
        with pytest.raises(CacheError, match="sketches None .now curves fitted by Nelder-Mead."):
            encode(tmp_path / "set", tmp_path / "cache", **chosen)
    else:
        assert encode(tmp_path / "set", tmp_path / "cache", **chosen).kept == 2


def test_fingerprints_are_of_the_weights_and_not_of_their_precision():
    encoder, adapter = fingerprints(ENCODER)
    half = replace(ENCODER, features=lambda pixels: ENCODER.features(pixels).half().float())
    assert all(mine.matches(its) for mine, its in zip((encoder, adapter), fingerprints(half), strict=True))
    other_vision, adapter_on_it = fingerprints(tiny_encoder(vision_seed=1))
    assert not encoder.matches(other_vision) and not adapter.matches(adapter_on_it)
    same_vision, other_adapter = fingerprints(tiny_encoder(adapter_seed=1))
    assert encoder.matches(same_vision) and not adapter.matches(other_adapter)


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_a_corrupt_part_is_named_and_left_out_and_costs_no_second_encoding(tmp_path, content):
    make_concepts(tmp_path / "set", range(3))
    broken = tmp_path / "set" / "parts" / "c01" / "0.png"
    broken.write_bytes(broken.read_bytes()[:60] if content is None else content)
    for counts in ((3, 0), (0, 3)):
        report = encode(tmp_path / "set", tmp_path / "cache")
        assert (report.added, report.kept) == counts
        assert [each.path for each in report.skipped] == [broken]
    assert open_cache(tmp_path / "cache").part_offsets.tolist() == [0, 2, 3, 5]


def test_a_concept_without_a_usable_target_or_part_is_left_out_and_named(tmp_path):
    make_concepts(tmp_path / "set", range(5))
    target, parts = tmp_path / "set" / "target", tmp_path / "set" / "parts"
    (target / "c00.png").write_bytes(b"no picture")
    Image.new("RGB", (4100, 2)).save(target / "c01.png")
    for part in (parts / "c02").iterdir():
        part.write_bytes(b"no picture")
    report = encode(tmp_path / "set", tmp_path / "cache")
    assert open_cache(tmp_path / "cache").names == ["target/c03", "target/c04"]
    named = {each.path.relative_to(tmp_path / "set").as_posix() for each in report.skipped}
    assert named == {f"target/c0{i}.png" for i in range(3)} | {"parts/c02/0.png", "parts/c02/1.png"}


def test_one_picture_is_a_dataset(tmp_path):
    make_concepts(tmp_path / "set", [0], parts=1)
    assert encode(tmp_path / "set", tmp_path / "cache", variants=1).added == 1
    assert len(open_cache(tmp_path / "cache").shards[0]) == 2


def test_progress_counts_every_picture(tmp_path):
    make_concepts(tmp_path / "set", range(3))
    (tmp_path / "set" / "parts" / "c00" / "0.png").write_bytes(b"no picture")
    for _ in range(2):
        seen = []
        encode(
            tmp_path / "set", tmp_path / "cache",
            on_progress=lambda done, total, seen=seen: seen.append((done, total)),
        )
        assert {total for _, total in seen} == {15} and seen[-1] == (15, 15)
        assert [done for done, _ in seen] == sorted({done for done, _ in seen})


class Cancelled(Exception):
    pass


def test_cancel_keeps_what_is_complete_and_the_next_run_goes_on(tmp_path):
    make_concepts(tmp_path / "set", range(8))

    def cancel(done: int, total: int) -> None:
        if done >= 20:
            raise Cancelled

    with pytest.raises(Cancelled):
        encode(tmp_path / "set", tmp_path / "cache", on_progress=cancel)
    assert open_cache(tmp_path / "cache", verify=True).names == [f"target/c0{i}" for i in range(4)]
    report = encode(tmp_path / "set", tmp_path / "cache")
    assert (report.added, report.kept) == (4, 4)
    encode(tmp_path / "set", tmp_path / "once")
    assert_same_tokens(open_cache(tmp_path / "cache"), open_cache(tmp_path / "once"))


def make_group(folder: Path, numbers) -> None:
    """Targets with one part each in the published layout."""
    for number in numbers:
        picture(folder / f"x_{number:02d}.jpg", number, (40, 40))
        picture(folder / f"x_{number:02d}_0.jpg", 50 + number, (20, 16))


def test_references_are_grids_of_four_other_targets_of_a_group_that_is_large_enough(tmp_path):
    make_group(tmp_path / "set" / "large", range(9))
    make_group(tmp_path / "set" / "small", range(8))
    report = encode(tmp_path / "set", tmp_path / "cache", references=2, variants=1)
    assert report.added == 9 and {each.path.parent.name for each in report.skipped} == {"small"}
    cache = open_cache(tmp_path / "cache")
    assert cache.groups == ["large"] * 9 and cache.reference_rows.shape == (9, 2)
    dataset = read_dataset(tmp_path / "set")
    concept = next(concept for concept in dataset.concepts if concept.name == "large/x_05")
    others = list(Ring(dataset.targets["large"], "0/1").after(concept))
    assert len(set(others)) == 8 and concept.target not in others
    grid = reference_grid([open_picture(path) for path in others[:4]], size=GRID_SIZE)
    tokens = cache.rows(cache.reference_rows[5, 1:]).float()
    torch.testing.assert_close(tokens, expected_tokens([grid]), **HALF)


def prepared(dataset: Dataset, references: int) -> Preparation:
    return Preparation(dataset, SIZE, 1, Augmentation(), references, 0, {})


def test_targets_without_parts_count_and_serve_as_references(tmp_path):
    make_group(tmp_path / "set" / "group", range(9))
    for number in range(1, 9):
        (tmp_path / "set" / "group" / f"x_{number:02d}_0.jpg").unlink()
    preparation = prepared(read_dataset(tmp_path / "set"), references=1)
    (concept,) = preparation.concepts
    assert concept.name == "group/x_00" and len(preparation.first_grids(concept)[0]) == 4


@pytest.mark.parametrize("references", [0, 1])
def test_concepts_with_references_are_those_of_the_published_loader(golden, tmp_path, references):
    layout = golden.facts("pit_dataset_layout")
    for name in layout["files"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    ours = {each.target for each in prepared(read_dataset(tmp_path), references).concepts}
    theirs = layout[f"use_ref_{bool(references)}"]["parts_of"]
    assert {path for path in ours if path.suffix == ".jpg"} == {
        tmp_path / target for target, parts in theirs.items() if parts
    }


def test_references_follow_a_growing_group_and_pass_over_corrupt_pictures(tmp_path):
    make_group(tmp_path / "set" / "group", range(12))
    (tmp_path / "set" / "group" / "x_03.jpg").write_bytes(b"no picture")
    for added in (11, 0):
        report = encode(tmp_path / "set", tmp_path / "cache", references=1, variants=1)
        assert report.added == added
    make_group(tmp_path / "set" / "group", [12])
    report = encode(tmp_path / "set", tmp_path / "cache", references=1, variants=1)
    assert 1 < report.added <= 7 and report.added + report.kept == 12
    encode(tmp_path / "set", tmp_path / "once", references=1, variants=1)
    assert_same_tokens(open_cache(tmp_path / "cache"), open_cache(tmp_path / "once"))


@pytest.mark.parametrize("change", [{"variants": 0}, {"batch": 0}, {"references": -1}])
def test_impossible_numbers_are_refused(tmp_path, change):
    make_concepts(tmp_path / "set", [0])
    with pytest.raises(ValueError, match="at least"):
        encode(tmp_path / "set", tmp_path / "cache", **change)


def test_a_picture_that_vanishes_meanwhile_is_left_out(tmp_path):
    make_concepts(tmp_path / "set", range(2))
    dataset = read_dataset(tmp_path / "set")
    shutil.rmtree(tmp_path / "set" / "parts" / "c00")
    report = encode_dataset(dataset, tmp_path / "cache", ENCODER)
    assert report.added == 1 and len(report.skipped) == 3


def test_the_settings_are_in_the_cache(tmp_path):
    make_concepts(tmp_path / "set", [0])
    encode(tmp_path / "set", tmp_path / "cache", seed=4)
    settings = open_cache(tmp_path / "cache").settings
    assert settings.augmentation == asdict(LIVELY) | {"seed": 4, "references": 0, "sketches": SKETCH_FIT}
