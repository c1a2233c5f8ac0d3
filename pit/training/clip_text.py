"""CLIP text encoders for the command line, by transformers.

Inside ComfyUI its own CLIP takes their place.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from ..files.checked import MOST_LAYERS, computable, sound, without_wrappers
from ..files.plain_json import read_json
from ..files.weights import WeightFileError, read_state
from ..messages import quoted
from .stable_diffusion import LENGTH, PADS, clip_tokenizer

WEIGHT_FILES = ("model.safetensors", "model.fp16.safetensors", "pytorch_model.bin")
LINES_AT_ONCE = 64
Words = Callable[[Sequence[str]], tuple[list[Tensor], Tensor]]


def load_clip_text(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Words:
    """A CLIP text encoder with its projection: lines -> last hidden states, and embeddings.

    The states `[L, E]` are those after the final layer norm, from the first token to that of the end.

    Args:
        folder: with `config.json` and the weights, such as `text_encoder` of the prior of Kandinsky 2.2.
    Raises:
        WeightFileError: missing, damaged, or of another model.
    """
    model = read_text_model(folder).to(device, dtype).requires_grad_(False)
    tokenizer = clip_tokenizer(PADS["tokenizer"])

    @torch.no_grad()
    def words(lines: Sequence[str]) -> tuple[list[Tensor], Tensor]:
        states, embeddings = [], []
        for first in range(0, len(lines), LINES_AT_ONCE):
            given = tokenizer(
                list(lines[first:first + LINES_AT_ONCE]), padding="max_length", truncation=True,
                max_length=LENGTH, return_tensors="pt",
            )
            found = model(input_ids=given.input_ids.to(device))
            lengths = given.attention_mask.sum(dim=1).tolist()
            states += [
                row[:length].float().cpu()
                for row, length in zip(found.last_hidden_state, lengths, strict=True)
            ]
            embeddings.append(found.text_embeds.float().cpu())
        return states, torch.cat(embeddings)

    return words


def load_text_states(folder: Path, device: torch.device | str, source: str) -> Callable[..., Tensor]:
    """A CLIP text encoder without a projection: lines -> last hidden states `[n, 77, E]` on the CPU.

    Those after the final layer norm, at all tokens, as Stable Diffusion 1.5 reads them.

    Args:
        folder: with `config.json` and the weights.
        source: where to get one, for messages.
    Raises:
        WeightFileError: missing, damaged, or of another model.
    """
    model = read_text_model(folder, source, projected=False).to(device).requires_grad_(False)
    tokenizer = clip_tokenizer(PADS["tokenizer"])

    @torch.no_grad()
    def states(lines: Sequence[str]) -> Tensor:
        given = tokenizer(
            list(lines), padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
        )
        return model.text_model(input_ids=given.input_ids.to(device)).last_hidden_state.float().cpu()

    return states


def read_text_model(
    folder: Path, source: str = "kandinsky-community/kandinsky-2-2-prior", projected: bool = True
) -> CLIPTextModelWithProjection:
    """The model in a folder, on the CPU; errors as in `load_clip_text`.

    Args:
        source: the repository with such a folder, for messages.
        projected: whether its projection is read, too.
    """
    file = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if file is None or not (folder / "config.json").is_file():
        raise WeightFileError(
            f"{folder}: expected config.json and model.safetensors of a CLIP text encoder, got a folder "
            f"without them. Take text_encoder of {source}."
        )
    try:
        config = CLIPTextConfig.from_dict(read_json(folder / "config.json"))
        if config.num_hidden_layers > MOST_LAYERS:  # each is built before the first weight is looked at
            raise ValueError(f"it has {quoted(config.num_hidden_layers)} layers")
        with torch.device("meta"):
            model = CLIPTextModelWithProjection(config)
        if not projected:
            model.text_projection = nn.Identity()
    except Exception as error:  # torch and transformers refuse odd sizes with errors of every kind
        reason = " ".join(str(error).split())
        raise WeightFileError(
            f"{folder}: expected the sizes of a CLIP text encoder, got others ({reason}). Fetch config.json "
            "again."
        ) from error
    state = without_wrappers(read_state(file)[0])
    # Old files list the positions, which are not weights.
    unread = ("position_ids",) if projected else ("position_ids", "text_projection.weight")
    state = {key: computable(value) for key, value in state.items() if not key.endswith(unread)}
    state = sound(file, state, {key: value.shape for key, value in model.state_dict().items()})
    model.load_state_dict(state, assign=True)
    embeddings = model.text_model.embeddings
    embeddings.position_ids = torch.arange(config.max_position_embeddings)[None]  # in no file
    return model.eval()
