"""The user's own SDXL, to train an IP-LoRA on: a single file as ComfyUI has it, or a diffusers folder.

diffusers reads both; the small files that say what an SDXL is lie in `sdxl/`, so that nothing is fetched and
nothing is kept twice. The merges of CLIP's byte-pair encoding there are OpenAI's (MIT licence).
"""
from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

from transformers import CLIPTokenizer

from ..files.weights import WeightFileError
from ..files.whole import sha256_of

CONFIGS = Path(__file__).with_name("sdxl")
LENGTH = 77
START, END = "<|startoftext|>", "<|endoftext|>"
PADS = {"tokenizer": END, "tokenizer_2": "!"}


def clip_tokenizer(pad: str) -> CLIPTokenizer:
    """CLIP's tokenizer; the two text encoders of SDXL differ in what they fill up with."""
    merges = (CONFIGS / "clip_merges.txt").read_text(encoding="utf-8").splitlines()
    letters = byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair.split()) for pair in merges)]
    vocabulary = {word: number for number, word in enumerate([*words, START, END])}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        Path(folder, "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
        return CLIPTokenizer.from_pretrained(
            folder, bos_token=START, eos_token=END, unk_token=END, pad_token=pad, model_max_length=LENGTH
        )


def byte_letters() -> list[str]:
    """A printable letter for each of the 256 bytes, in the order of CLIP's vocabulary."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) for byte in shown] + [chr(256 + number) for number in range(len(hidden))]


def check_base(base: Path) -> None:
    """Raise WeightFileError for what is certainly no SDXL that can be read here."""
    if base.is_dir():
        if not (base / "unet" / "config.json").is_file():
            raise WeightFileError(f"{base} is no diffusers folder of an SDXL: there is no unet/config.json.")
    elif not base.is_file():
        raise WeightFileError(f"{base} is not there. Name an SDXL file from models/checkpoints.")
    elif base.suffix != ".safetensors":
        raise WeightFileError(
            f"{base} is not a .safetensors file. Save it as one first: `python -m pit convert`."
        )


def stamp_of(base: Path) -> str:
    """What tells one version of a base model from another: the checksums of all its weights."""
    files = [base] if base.is_file() else sorted(base.rglob("*.safetensors")) + sorted(base.rglob("*.bin"))
    return hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()


def why_unreadable(base: Path, error: Exception) -> str:
    reason = " ".join(str(error).split())[:300]
    return f"{base} cannot be read as an SDXL model ({reason}). Take an SDXL file from models/checkpoints."
