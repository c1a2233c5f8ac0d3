"""A text encoder from a folder gives transformers' own states and embeddings; what does not fit is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from pit.files.weights import WeightFileError
from pit.training.clip_text import load_clip_text, load_text_states
from pit.training.stable_diffusion import PADS, clip_tokenizer
from tests.golden import assert_equal

SIZES = {
    "hidden_size": 24, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2,
    "projection_dim": 24, "hidden_act": "gelu", "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
}
LINES = ["shiny", "a very old chair on the grass", "shiny"]


def write_text_encoder(folder: Path, **sizes) -> CLIPTextModelWithProjection:
    """A random text encoder as Kandinsky's prior has it."""
    torch.manual_seed(0)
    model = CLIPTextModelWithProjection(CLIPTextConfig(**SIZES | sizes)).eval()
    model.save_pretrained(folder)
    return model


@torch.no_grad()
def test_lines_become_states_up_to_their_end_and_embeddings(tmp_path):
    model, tokenizer = write_text_encoder(tmp_path), clip_tokenizer(PADS["tokenizer"])
    states, embeddings = load_clip_text(tmp_path)(LINES)
    assert [len(state) for state in states] == [3, 9, 3]
    for line, state, embedding in zip(LINES, states, embeddings, strict=True):
        # Alone and without any padding.
        found = model(input_ids=tokenizer([line], return_tensors="pt").input_ids)
        assert_equal(state, found.last_hidden_state[0])
        assert_equal(embedding, found.text_embeds[0])


def test_a_long_line_is_cut_and_many_lines_are_read(tmp_path):
    write_text_encoder(tmp_path)
    states, embeddings = load_clip_text(tmp_path)(["word " * 100] + ["a"] * 70)
    assert len(states[0]) == 77 and len(states) == len(embeddings) == 71


@pytest.mark.parametrize("gone", ["config.json", "model.safetensors"])
def test_an_incomplete_folder_is_refused(tmp_path, gone):
    write_text_encoder(tmp_path)
    (tmp_path / gone).unlink()
    with pytest.raises(WeightFileError, match="expected config.json and model.safetensors"):
        load_clip_text(tmp_path)


@pytest.mark.parametrize("change, message", [
    ({"hidden_size": 32}, "expected .* to fit the rest of the file"),
    ({"num_hidden_layers": 10**7}, "10000000 layers"),
    ({"num_attention_heads": 5}, "expected the sizes of a CLIP text encoder"),
    ({"num_hidden_layers": 3}, "model.safetensors"), ({"hidden_act": "none"}, "expected the sizes"),
])
def test_a_config_of_another_model_is_refused(tmp_path, change, message):
    write_text_encoder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightFileError, match=message):
        load_clip_text(tmp_path)


def test_damaged_weights_are_refused(tmp_path):
    write_text_encoder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"none")
    with pytest.raises(WeightFileError, match="model.safetensors"):
        load_clip_text(tmp_path)


@torch.no_grad()
def test_states_of_all_tokens_are_those_of_transformers_and_need_no_projection(tmp_path):
    model, tokenizer = write_text_encoder(tmp_path), clip_tokenizer(PADS["tokenizer"])
    # With the padding, which takes part as in Stable Diffusion.
    padded = model(input_ids=tokenizer(LINES, padding="max_length", return_tensors="pt").input_ids)
    assert padded.last_hidden_state.shape == (3, 77, 24)
    with_projection = load_text_states(tmp_path, "cpu", "a place")(LINES)
    state = {key: value for key, value in model.state_dict().items() if key != "text_projection.weight"}
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "model.safetensors")
    found = load_text_states(tmp_path, "cpu", "a place")(LINES)
    assert_equal(found, padded.last_hidden_state)
    assert torch.equal(found, with_projection)
    with pytest.raises(WeightFileError, match="text_projection"):
        load_clip_text(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(WeightFileError, match="Take text_encoder of a place"):
        load_text_states(tmp_path, "cpu", "a place")
