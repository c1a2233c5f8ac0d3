"""Part words of every published layout load with their LoRA, and what is none is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

import pit
from pit.files.lora import Lora, merge_lora, read_lora
from pit.files.weights import WeightFileError, read_state
from pit.partcraft.files import PAIRS, PartWords, load_part_words, save_part_words
from pit.partcraft.mapper import TokenMapper
from pit.partcraft.prompt import Part, PartWord, Vocabulary, numbered
from pit.partcraft.published_names import published_names
from tests.golden import assert_equal, relative_error
from tests.refusal import assert_refused


def random_words(depth: int = 1, parts: int = 3, codes: int = 4, dim: int = 6) -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return dict(TokenMapper(parts, codes, dim, depth).state_dict())


WORDS = random_words()
# With its LoRA the tiny UNet multiplies what is rounded: the published output, computed in float32, is 6e-4
# away from the same in float64. Without a single module of the LoRA, ours would be at least 0.2 away.
ROUNDED = 2e-3
DOWN = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight"
LORA = {DOWN: torch.ones(4, 8), DOWN.replace("down.weight", "up.weight"): torch.ones(8, 4)}


def unet_of(golden) -> UNet2DConditionModel:
    unet = UNet2DConditionModel(**golden.facts("partcraft_tiny_config")["unet"])
    state = golden.below("partcraft_tiny_state_unet", "unet.")
    unet.load_state_dict({key: value.float() for key, value in state.items()})
    return unet.eval().requires_grad_(False)


def published_folder(golden, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("pytorch_model.bin", "pytorch_model_1.bin"):
        shutil.copy(golden.path(f"partcraft_tiny_{name}"), folder / name)
    return folder


def test_the_published_files_give_the_published_words(golden, tmp_path):
    io = golden.below("partcraft_tiny_io", "mapper_l1/")
    for path in (published_folder(golden, tmp_path / "a"), tmp_path / "a" / "pytorch_model_1.bin"):
        words = pit.load_part_words(path)
        codes, parts = io["codes_index"], io["index"].expand_as(io["codes_index"])
        assert_equal(words.vectors(codes, parts), io["out_index"])
        pairs = zip(parts[0].tolist(), codes[0].tolist(), strict=True)
        assert_equal(words.of([PartWord(part, (code,)) for part, code in pairs]), io["out_index"][0])


@torch.no_grad()
def test_the_published_lora_acts_as_an_ordinary_one(golden, tmp_path):
    io = golden.below("partcraft_tiny_io", "unet/")
    inputs = io["sample"], io["timesteps"], io["encoder"]
    assert_equal(unet_of(golden)(*inputs).sample, io["out_no_lora"])
    beside = load_part_words(published_folder(golden, tmp_path / "a")).lora
    alone = read_lora(golden.path("partcraft_tiny_lora.safetensors")).unet
    for lora in (beside, alone):
        unet = unet_of(golden)
        merge_lora(unet, Lora(lora, {}, ()))
        assert relative_error(unet(*inputs).sample, io["out"]) < ROUNDED


def test_words_are_computed_in_float32_whatever_the_file_has(golden, tmp_path):
    state = {key: value.half() for key, value in golden.below("partcraft_tiny_state", "mapper_l1.").items()}
    io = golden.below("partcraft_tiny_io", "mapper_l1/")
    parts = io["index"].expand_as(io["codes_index"])
    for name, kept in (("a", state), ("b", state | {"pe": state["pe"].float()})):
        save_file(kept, tmp_path / f"{name}.safetensors")
        found = load_part_words(tmp_path / f"{name}.safetensors").vectors(io["codes_index"], parts)
        assert_equal(found, io["out_index"])


def test_words_of_the_published_sizes_load(golden, tmp_path):
    for name, shapes in golden.facts("partcraft_full_keys").items():
        if "embedding.weight" not in shapes:
            continue
        state = {key: torch.zeros(shape, dtype=torch.half) for key, shape in shapes.items()}
        save_file(state, tmp_path / "model_1.safetensors")
        mapper = load_part_words(tmp_path / "model_1.safetensors").mapper
        assert {key: list(value.shape) for key, value in mapper.state_dict().items()} == shapes, name
        assert (mapper.num_parts, mapper.num_codes) == (len(state["pe"]), 256)


def test_loras_of_the_published_sizes_load(golden, tmp_path):
    for name, shapes in golden.facts("partcraft_full_keys").items():
        if "embedding.weight" in shapes:
            continue
        state = {key: torch.zeros(shape, dtype=torch.half) for key, shape in shapes.items()}
        save_file(WORDS, tmp_path / "model_1.safetensors")
        save_file(state, tmp_path / "model.safetensors")
        lora = load_part_words(tmp_path / "model_1.safetensors").lora
        assert len(lora) == len(state), name
        assert all(key.startswith("lora_unet_") for key in lora)


@pytest.mark.parametrize("words, lora", PAIRS)
def test_words_of_any_layout_load_with_the_lora_beside_them(tmp_path, words, lora):
    for name, state in ((words, WORDS), (lora, LORA)):
        state = {f"module.{key}": value for key, value in state.items()} if "lora" not in name else state
        (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
    for path in (tmp_path, tmp_path / words):
        loaded = load_part_words(path)
        assert torch.equal(loaded.mapper.embedding.weight, WORDS["embedding.weight"])
        assert len(loaded.lora) == 2 and loaded.vocabulary == numbered(3, 4)


@pytest.mark.parametrize("depth", [0, 1, 2, 3, 7])
def test_the_number_of_projections_is_read_off_the_keys(tmp_path, depth):
    save_file(random_words(depth), tmp_path / "a.safetensors")
    mapper = load_part_words(tmp_path / "a.safetensors").mapper
    assert sum("weight" in key for key in mapper.state_dict()) == depth + 1 and not mapper.training


def test_a_folder_stands_for_its_last_checkpoint(tmp_path):
    for number in (9, 100, 20):
        folder = tmp_path / f"checkpoint-{number}"
        folder.mkdir()
        torch.save(WORDS | {"pe": torch.full((3, 6), float(number))}, folder / "pytorch_model_1.bin")
    (tmp_path / "checkpoint-best").mkdir()
    assert load_part_words(tmp_path).mapper.pe[0, 0] == 100


def test_what_is_saved_loads_with_its_lora_and_its_names(tmp_path):
    names = Vocabulary((Part("head", 2), Part("", 0), Part("back ground", 4, False)), ("cat", "big dog"))
    torch.save(WORDS, tmp_path / "pytorch_model_1.bin")
    torch.save(LORA, tmp_path / "pytorch_model.bin")
    words = load_part_words(tmp_path, names)
    save_part_words(tmp_path / "mine.safetensors", words, {"note": "x"})
    again = load_part_words(tmp_path / "mine.safetensors")
    assert again.vocabulary == names and again.source == "mine.safetensors"
    assert again.lora.keys() == words.lora.keys()
    assert read_state(tmp_path / "mine.safetensors")[1]["note"] == "x"
    codes, parts = torch.tensor([[1, 4]]), torch.tensor([[2, 0]])
    assert torch.equal(again.vectors(codes, parts), words.vectors(codes, parts))


def test_a_mixture_is_the_mean_of_its_words(tmp_path):
    save_file(WORDS, tmp_path / "a.safetensors")
    words = load_part_words(tmp_path / "a.safetensors")
    both = words.vectors(torch.tensor([[1, 3]]), torch.tensor([[2, 2]]))[0]
    mixed = words.of([PartWord(2, (1, 3)), PartWord(2, (3,)), PartWord(2, (1, 1, 3, 3))])
    assert_equal(mixed, torch.stack([both.mean(0), both[1], both.mean(0)]))
    assert words.of([]).shape == (0, 6)


@pytest.mark.parametrize("place, collection", [
    ("partcraft-cub/pytorch_model_1.bin", "cub"), ("partcraft-dogs/pytorch_model_1.bin", "dogs"),
    ("dreamcreature-sd1.5-cub200/checkpoint-74900/pytorch_model_1.bin", "cub"),
    ("dreamcreature-sd1.5-dog/checkpoint-150000/pytorch_model_1.bin", "dogs"), ("dogs.bin", "dogs"),
    ("dogma/incubator.bin", None),
])
def test_the_published_words_have_their_names(tmp_path, place, collection):
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(random_words(parts=8, codes=256, dim=4), path)
    names = load_part_words(path).vocabulary
    assert names == (published_names(collection) if collection else numbered(8, 256))


def test_the_names_of_the_published_words():
    birds, dogs = published_names("cub"), published_names("dogs")
    assert birds.word("head", "17") == birds.word("head", "cardinal") == birds.word("2", "16") == (2, (16,))
    assert birds.names() == ["body", "tail", "head", "wing", "leg", "background"]
    assert dogs.names() == ["eye", "background", "neck", "ear", "body", "leg", "nose", "forehead"]
    assert (len(birds.classes), len(dogs.classes)) == (200, 120)
    assert birds.word("background", "256") == (7, (255,)) and dogs.word("ear", "chihuahua") == (3, (0,))


def changed(**changes: Tensor | None) -> dict[str, Tensor]:
    """The words with other tensors, or without those that are None; __ stands for a dot."""
    state = WORDS | {key.replace("__", "."): value for key, value in changes.items()}
    return {key: value for key, value in state.items() if value is not None}


@pytest.mark.parametrize("state, messages", [
    (LORA, ["got a LoRA alone", "pytorch_model_1.bin"]),
    (changed(pe=None), ["expected part words of PartCraft, got"]),
    (changed(pe=torch.ones(6)), ["pe to be a matrix"]), (changed(pe=torch.ones(3, 5)), ["of shape"]),
    (changed(pe=torch.ones(4, 6)), ["as many rows for each of 4 parts", "got 15 rows"]),
    (changed(pe=torch.ones(15, 6)), ["as many rows for each of 15 parts"]),
    (changed(embedding__weight=torch.ones(15, 7)), ["of shape"]),
    (changed(projection__0__bias=None), ["missing: projection.0.bias"]),
    (changed(projection__4__weight=torch.ones(6, 6)), ["projection.2.weight"]),
    (changed(projection__0__weight=torch.full((6, 6), float("nan"))), ["in projection.0.weight, got NaN"]),
    (changed(stranger=torch.ones(1)), ["1 unknown: stranger"]),
    ({f"mapper.{key}": value for key, value in WORDS.items()} | {"stranger": torch.ones(1)}, ["expected"]),
    ({f"mapper.{key}": value for key, value in WORDS.items()} | LORA | {"stranger": torch.ones(1)},
     ["part words with a LoRA for a UNet alone"]),
    ({"vision_model.x": torch.ones(1)}, ["got a CLIP vision encoder"]),
    (WORDS | {f"projection.{2 * number}.weight": torch.ones(6, 6) for number in range(200)}, ["at most 128"]),
])
def test_what_are_no_part_words_is_refused(tmp_path, state, messages):
    save_file({key: value.clone() for key, value in state.items()}, tmp_path / "a.safetensors")
    assert_refused(load_part_words, tmp_path / "a.safetensors", *messages)


def test_the_error_for_a_lora_names_the_file_beside_it(tmp_path):
    save_file(LORA, tmp_path / "model.safetensors")
    assert_refused(load_part_words, tmp_path / "model.safetensors", "such as model_1.safetensors")


def test_a_damaged_lora_beside_the_words_is_told(tmp_path):
    torch.save(WORDS, tmp_path / "pytorch_model_1.bin")
    torch.save({DOWN: LORA[DOWN]}, tmp_path / "pytorch_model.bin")
    assert_refused(load_part_words, tmp_path / "pytorch_model_1.bin", "pytorch_model.bin: expected all parts")


def test_changes_of_text_encoders_are_named(tmp_path):
    """The published trainer of SDXL can train these as well, and writes them into the same file."""
    lora = {f"unet.{key}": value for key, value in LORA.items()}
    text = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer"
    lora |= {f"{text}.down.weight": torch.ones(4, 8), f"{text}.up.weight": torch.ones(8, 4)}
    torch.save(WORDS, tmp_path / "hash_mapper.pth")
    save_file(lora, tmp_path / "pytorch_lora_weights.safetensors")
    words = load_part_words(tmp_path)
    assert len(words.lora) == 2 and words.source == "hash_mapper.pth"
    assert [name.split(".")[0] for name in words.unused] == ["text_encoder"]


def test_a_folder_without_words_is_told(tmp_path):
    with pytest.raises(WeightFileError, match="a folder without one"):
        load_part_words(tmp_path)


@pytest.mark.parametrize("content", [
    "", "[]", "{}", '{"parts": 3, "classes": []}', '{"parts": [{"name": "a"}], "classes": []}',
    '{"parts": [{"name": "a:b", "count": 1, "named": true}], "classes": []}',
    '{"parts": [{"name": "a", "count": -1, "named": true}], "classes": []}',
    '{"parts": [{"name": "a", "count": true, "named": true}], "classes": []}',
    '{"parts": [], "classes": ["12"]}', '{"parts": ["a"], "classes": []}', "[" * 100_000,
])
def test_damaged_names_are_told(tmp_path, content):
    state = {f"mapper.{key}": value for key, value in WORDS.items()}
    save_file(state, tmp_path / "a.safetensors", {"vocabulary": content})
    assert_refused(load_part_words, tmp_path / "a.safetensors", "expected the names of parts and classes")


@pytest.mark.parametrize("parts, count", [(2, 4), (3, 5)])
def test_names_of_other_words_are_refused(tmp_path, parts, count):
    names = {"parts": [{"name": "a", "count": count, "named": False}] * parts, "classes": []}
    save_file({f"mapper.{key}": value for key, value in WORDS.items()}, tmp_path / "a.safetensors",
              {"vocabulary": json.dumps(names)})
    assert_refused(load_part_words, tmp_path / "a.safetensors", "names of 3 parts with at most 4 codes")


def test_part_words_are_named_to_other_loaders(tmp_path):
    save_file(WORDS, tmp_path / "a.safetensors")
    assert_refused(pit.load_ip_adapter, tmp_path / "a.safetensors", "got part words", "for Load PartCraft")
    assert isinstance(load_part_words(tmp_path / "a.safetensors"), PartWords)
