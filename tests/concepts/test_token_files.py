"""Directions and tokens as files: ours and the published ones, and how anything else is refused."""
from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pit.concepts.directions import CLIP_SPACE, TOKEN_SPACE, Direction
from pit.concepts.token_files import read_direction, read_tokens, save_direction, save_tokens
from pit.concepts.tokens import Tokens
from pit.files.weights import WeightFileError
from tests.refusal import assert_refused


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


DIRECTION = Direction(
    drawn(16, 8), TOKEN_SPACE, 0.1 + 0.2, 1.25, source="Find IP+ Direction", adapter="0123456789abcdef",
    notes={"method": "shrinkage", "pictures": "24 and 32", "words": "größer, \"rund\""},
)
TOKENS = Tokens(
    drawn(3, 16, 8), drawn(1, 16, 8), drawn(3, 9, 5), source="Encode", adapter="0123456789abcdef",
    notes={"made by": "Encode"},
)
DIRECTION_FACTS = {"piece_it_together": "direction", "version": "1", "space": "tokens"}
TOKENS_FACTS = {"piece_it_together": "tokens", "version": "1"}


class Touch:
    """Pickled, it is a call: unpickling it without care creates a file."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def write(path: Path, state: dict[str, Tensor], facts: dict[str, str]) -> Path:
    save_file(state, path, facts)
    return path


# Round trips --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space, shape", [
    (TOKEN_SPACE, (16, 8)), (CLIP_SPACE, (257, 5)), (CLIP_SPACE, (16, 5)),
])
def test_a_direction_comes_back_with_all_that_is_known_of_it(tmp_path, space, shape):
    saved = replace(DIRECTION, values=drawn(*shape), space=space)
    save_direction(tmp_path / "muscular.safetensors", saved)
    read = read_direction(tmp_path / "muscular.safetensors", "muscular")
    assert torch.equal(read.values, saved.values)
    assert read.source == "muscular, Find IP+ Direction"
    for name in ("space", "deviation", "recommended", "adapter", "notes"):
        assert getattr(read, name) == getattr(saved, name), name


def test_what_is_not_known_of_a_direction_stays_unknown(tmp_path):
    save_direction(tmp_path / "x.safetensors", Direction(drawn(16, 8), TOKEN_SPACE, source=""))
    read = read_direction(str(tmp_path / "x.safetensors"), "x")
    assert (read.source, read.adapter, read.notes) == ("x", "", {})
    assert read.deviation is None and read.recommended is None


def test_a_direction_in_half_precision_and_turned_in_memory_is_written_in_full(tmp_path):
    values = drawn(8, 16).half().T
    save_direction(tmp_path / "x.safetensors", replace(DIRECTION, values=values))
    read = read_direction(tmp_path / "x.safetensors", "x").values
    assert read.dtype == torch.float32 and torch.equal(read, values.float())


def test_tokens_come_back_with_all_that_is_known_of_them(tmp_path):
    save_tokens(tmp_path / "x.safetensors", TOKENS)
    read = read_tokens(tmp_path / "x.safetensors", "wall")
    for name in ("values", "uncond", "features"):
        assert torch.equal(getattr(read, name), getattr(TOKENS, name)), name
    assert (read.source, read.adapter) == ("wall, Encode", TOKENS.adapter)
    assert read.notes == TOKENS.notes


def test_tokens_without_features_and_in_half_precision_come_back(tmp_path):
    saved = Tokens(TOKENS.values.half(), TOKENS.values[:1].half(), source="")
    save_tokens(tmp_path / "x.safetensors", saved)
    read = read_tokens(tmp_path / "x.safetensors", "x")
    assert read.values.dtype == read.uncond.dtype == torch.float32
    assert torch.equal(read.values, saved.values.float()) and torch.equal(read.uncond, saved.uncond.float())
    assert (read.source, read.adapter, read.notes, read.features) == ("x", "", {}, None)


@pytest.mark.parametrize("save, thing", [(save_direction, DIRECTION), (save_tokens, TOKENS)])
def test_a_folder_that_is_not_there_is_named(tmp_path, save, thing):
    with pytest.raises(WeightFileError, match="none.x.safetensors could not be written"):
        save(tmp_path / "none" / "x.safetensors", thing)


# Published directions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape, space", [
    ((16, 2048), TOKEN_SPACE), ((1, 16, 2048), TOKEN_SPACE), ((257, 1280), CLIP_SPACE),
    ((1, 257, 1280), CLIP_SPACE), ((16, 8), TOKEN_SPACE), ((17, 8), CLIP_SPACE),
])
def test_the_shape_of_a_published_direction_tells_its_space(tmp_path, shape, space, dtype):
    values = drawn(*shape).to(dtype)
    torch.save(values, tmp_path / "ip_direction.pt")
    read = read_direction(tmp_path / "ip_direction.pt", "ip_direction.pt")
    assert torch.equal(read.values, values.reshape(shape[-2:]).float())
    assert (read.space, read.source) == (space, "ip_direction.pt")
    assert (read.deviation, read.recommended, read.adapter, read.notes) == (None, None, "", {})


def test_a_direction_in_eight_bits_is_read(tmp_path):
    torch.save(drawn(16, 8).to(torch.float8_e4m3fn), tmp_path / "small.pt")
    assert (read_direction(tmp_path / "small.pt", "x").values - drawn(16, 8)).abs().max() < 0.2


def test_a_direction_under_a_name_and_in_safetensors_is_read(tmp_path):
    torch.save({"smile": drawn(16, 8)}, tmp_path / "named.pt")
    save_file({"smile": drawn(16, 8)}, tmp_path / "named.safetensors")
    for name in ("named.pt", "named.safetensors"):
        assert torch.equal(read_direction(tmp_path / name, name).values, drawn(16, 8))


# Refused directions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [read_direction, read_tokens])
@pytest.mark.parametrize("where", ["alone", "inside"])
def test_code_in_a_pickle_never_runs(tmp_path, read, where):
    canary, path = tmp_path / "canary", tmp_path / "ip_direction.pt"
    torch.save(Touch(canary) if where == "alone" else {"a": drawn(16, 8), "b": Touch(canary)}, path)
    assert_refused(read, path, "system. It was not opened", name="x")
    assert not canary.exists()
    os.system(f"touch {canary}")
    assert canary.exists()  # the canary would have sung


def spoiled(values: Tensor, number: float) -> Tensor:
    values = values.clone()
    values.view(-1)[7] = number
    return values


@pytest.mark.parametrize("content, message", [
    ({"a": drawn(16, 8), "b": drawn(16, 8)}, "got a file of another kind, with the keys a, b"),
    ([drawn(16, 8), drawn(16, 8)], "expected an edit direction"),
    (torch.ones(16, 8, dtype=torch.int64), "CLIP space, got torch.int64 of the shape [16, 8] for tensor"),
    (torch.ones(16, 8, dtype=torch.bool), "got torch.bool of the shape [16, 8] for tensor"),
    (drawn(16).to(torch.complex64), "got torch.complex64"),
    (drawn(2048), "got torch.float32 of the shape [2048] for tensor"),
    (torch.tensor(1.0), "of the shape []"),
    (drawn(2, 16, 8), "of the shape [2, 16, 8]"),
    (drawn(1, 1, 16, 8), "of the shape [1, 1, 16, 8]"),
    (drawn(1, 2048), "of the shape [1, 2048]"),
    (torch.empty(16, 0), "of the shape [16, 0]"),
    (spoiled(drawn(16, 8), float("nan")), "finite numbers in tensor, got NaN or infinite values"),
    (spoiled(drawn(16, 8), float("-inf")), "finite numbers in tensor, got NaN or infinite values"),
    (torch.full((16, 8), 1e300, dtype=torch.float64), "finite numbers in tensor, got NaN or infinite values"),
])
def test_what_is_no_direction_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "ip_direction.pt")
    assert_refused(read_direction, tmp_path / "ip_direction.pt", message, name="x")


DAMAGED_NOTES = [
    ({"notes": "{not JSON"}, "has notes that cannot be read"),
    ({"notes": ""}, "has notes that cannot be read"),
    ({"notes": "[" * 100_000}, "has notes that cannot be read"),
    ({"notes": "[1, 2]"}, "expected named values as its notes, got a list"),
    ({"notes": "null"}, "notes, got a NoneType"),
]


@pytest.mark.parametrize("facts, message", [
    ({"space": "latent"}, "expected 'tokens', 'clip' or 'embedding' as its space, got 'latent'"),
    ({"space": ""}, "as its space, got ''"),
    ({"deviation": "wide"}, "expected a number as its deviation, got 'wide'"),
    ({"deviation": "nan"}, "expected a number as its deviation, got 'nan'"),
    ({"recommended": "inf"}, "expected a number as its recommended, got 'inf'"),
    ({"recommended": ""}, "expected a number as its recommended, got ''"),
    *DAMAGED_NOTES,
])
def test_damaged_metadata_of_a_direction_is_refused(tmp_path, facts, message):
    path = write(tmp_path / "x.safetensors", {"direction": drawn(16, 8)}, DIRECTION_FACTS | facts)
    assert_refused(read_direction, path, message, name="x")


def test_a_direction_of_ours_must_say_its_space(tmp_path):
    facts = {key: value for key, value in DIRECTION_FACTS.items() if key != "space"}
    path = write(tmp_path / "x.safetensors", {"direction": drawn(16, 8)}, facts)
    assert_refused(read_direction, path, "as its space, got None", name="x")


def test_tokens_are_no_direction_and_a_direction_is_no_tokens(tmp_path):
    tokens, direction = tmp_path / "tokens.safetensors", tmp_path / "direction.safetensors"
    save_tokens(tokens, TOKENS)
    save_direction(direction, DIRECTION)
    assert_refused(read_direction, tokens, "IP+ tokens", "expected an edit direction", name="x")
    assert_refused(read_tokens, direction, "an edit direction", "expected IP+ tokens with all tensors",
                   "models/ip_directions", name="x")


# Refused tokens -----------------------------------------------------------------------------------------


def token_state(**changed: Tensor | None) -> dict[str, Tensor]:
    state = {"values": drawn(3, 16, 8), "uncond": drawn(1, 16, 8), "features": drawn(3, 9, 5)} | changed
    return {key: value for key, value in state.items() if value is not None}


@pytest.mark.parametrize("changed, message", [
    ({"uncond": None}, "expected IP+ tokens with all tensors"),
    ({"values": None}, "expected IP+ tokens with all tensors"),
    ({"uncond": drawn(1, 16, 6)}, "uncond of the shape [1, 16, D], got [3, 16, 8] and [1, 16, 6]"),
    ({"uncond": drawn(2, 16, 8)}, "got [3, 16, 8] and [2, 16, 8]"),
    ({"uncond": drawn(16, 8)}, "got [3, 16, 8] and [16, 8]"),
    ({"uncond": torch.tensor(1.0)}, "got [3, 16, 8] and []"),
    *(({"values": drawn(3, rows, 8), "uncond": drawn(1, rows, 8)},
       f"expected values of the shape [B, 16, D] and uncond of the shape [1, 16, D], got [3, {rows}, 8] and")
      for rows in (1, 2, 4, 15, 17, 24, 32, 257)),
    ({"values": drawn(16, 8)}, "expected values of the shape [B, 16, D] and uncond"),
    ({"values": torch.tensor(1.0)}, "got [] and [1, 16, 8]"),
    ({"values": torch.empty(0, 16, 8)}, "got [0, 16, 8] and [1, 16, 8]"),
    ({"features": drawn(2, 9, 5)}, "features of the shape [3, N, E], for as many sets"),
    ({"features": drawn(3, 9)}, "for as many sets of tokens, got [3, 9]"),
    ({"features": torch.tensor(1.0)}, "for as many sets of tokens, got []"),
    ({"values": spoiled(drawn(3, 16, 8), float("nan"))}, "numbers in values, got NaN or infinite"),
    ({"uncond": spoiled(drawn(1, 16, 8), float("inf"))}, "numbers in uncond, got NaN or infinite"),
    ({"features": spoiled(drawn(3, 9, 5), float("nan"))}, "numbers in features, got NaN or infinite"),
    ({"values": torch.ones(3, 16, 8, dtype=torch.int32)}, "floating-point numbers in values, got"),
])
def test_tokens_that_are_not_whole_are_refused(tmp_path, changed, message):
    path = write(tmp_path / "x.safetensors", token_state(**changed), TOKENS_FACTS)
    assert_refused(read_tokens, path, message, name="x")


@pytest.mark.parametrize("facts, message", DAMAGED_NOTES)
def test_damaged_notes_of_tokens_are_refused(tmp_path, facts, message):
    path = write(tmp_path / "x.safetensors", token_state(), TOKENS_FACTS | facts)
    assert_refused(read_tokens, path, message, name="x")


def test_tensors_that_do_not_say_that_they_are_tokens_are_refused(tmp_path):
    path = write(tmp_path / "x.safetensors", token_state(), {})
    assert_refused(read_tokens, path, "expected IP+ tokens with all tensors and their metadata", name="x")


@pytest.mark.parametrize("read, save, thing", [
    (read_direction, save_direction, DIRECTION), (read_tokens, save_tokens, TOKENS),
    (read_direction, lambda path, direction: torch.save(direction.values, path), DIRECTION),
])
def test_files_cut_off_anywhere_are_refused(tmp_path, read, save, thing):
    path = tmp_path / "x.pt"
    save(path, thing)
    whole, draw = path.read_bytes(), random.Random(5)
    cuts = {1, 8, 9, len(whole) // 2, len(whole) - 1} | {draw.randrange(1, len(whole)) for _ in range(40)}
    for cut in sorted(cuts):
        path.write_bytes(whole[:cut])
        with pytest.raises(WeightFileError, match="x.pt"):
            read(path, "x")


@pytest.mark.parametrize("name", ["source", "adapter"])
def test_what_messages_repeat_of_a_file_is_short(tmp_path, name):
    path = write(tmp_path / "long.safetensors", {"values": drawn(1, 16, 8), "uncond": drawn(1, 16, 8)},
                 TOKENS_FACTS | {name: "x" * 900_000})
    assert len(getattr(read_tokens(path, path.name), name)) == 300
