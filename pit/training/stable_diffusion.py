"""The user's own SDXL or SD 1.5 as the base of a training: a file as ComfyUI has it, or a diffusers folder.

diffusers reads both. The small files that describe them are in `sdxl/` and `sd15/`, so that nothing is
fetched and nothing is stored twice. The merges of CLIP's byte-pair encoding among them are OpenAI's (MIT
license).
"""
from __future__ import annotations

import hashlib
from pathlib import Path

from diffusers import DDPMScheduler
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from ..files.weights import WeightFileError, read_keys
from ..files.whole import sha256_of

CONFIGS, CONFIGS_SD15 = (Path(__file__).with_name(name) for name in ("sdxl", "sd15"))
LENGTH = 77  # tokens that CLIP reads, start and end included
START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
# What CLIP takes for one word before it splits it up (github.com/openai/CLIP, simple_tokenizer.py).
WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
# OpenCLIP pads with zeros, and the token number 0 is "!".
PADS = {"tokenizer": END, "tokenizer_2": "!"}


def clip_tokenizer(pad: str) -> PreTrainedTokenizerFast:
    """CLIP's tokenizer; the two text encoders of SDXL differ only in what they pad with."""
    lines = (CONFIGS / "clip_merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split()) for line in lines]
    # The order is CLIP's and numbers the tokens: bytes inside a word, bytes that end one, the merges in the
    # order in which they were learned, and the two special tokens, 49,408 in all.
    letters = byte_letters()
    words = [*letters, *(letter + WORD_END for letter in letters), *map("".join, merges), START, END]
    numbers = {word: number for number, word in enumerate(words)}
    # transformers' own CLIP class takes a vocabulary only since version 5; before, it wants files.
    tokenizer = Tokenizer(BPE(numbers, merges, unk_token=END, end_of_word_suffix=WORD_END))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    tokenizer.post_processor = processors.RobertaProcessing(
        (END, numbers[END]), (START, numbers[START]), trim_offsets=False, add_prefix_space=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=START, eos_token=END, unk_token=END, pad_token=pad,
        model_max_length=LENGTH,
    )


def byte_letters() -> list[str]:
    """A printable letter for each of the 256 bytes, in the order of CLIP's vocabulary."""
    # Byte-pair encoding works on letters and must not meet spaces or control characters: printable bytes are
    # their own letters, all others get one from number 256 on.
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) for byte in shown] + [chr(256 + number) for number in range(len(hidden))]


def check_base(base: Path, what: str = "SDXL") -> None:
    """Raise WeightFileError for what certainly is not a base, such as an SDXL, that can be read here."""
    if base.is_dir():
        if not (base / "unet" / "config.json").is_file():
            raise WeightFileError(
                f"{base}: expected a diffusers folder of an {what}, got one without unet/config.json. Name "
                "the folder that holds model_index.json."
            )
    elif not base.is_file():
        raise WeightFileError(
            f"{base}: expected an {what} file, got no such file. Name one from models/checkpoints."
        )
    elif base.suffix != ".safetensors":
        raise WeightFileError(
            f"{base}: expected a .safetensors file, got {base.suffix!r}. Convert it first, with "
            "`python -m pit convert`."
        )


def stamp_of(base: Path) -> str:
    """What tells one version of a base model from another: a checksum over all its weights."""
    files = [base] if base.is_file() else sorted(base.rglob("*.safetensors")) + sorted(base.rglob("*.bin"))
    return hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()


def marked_schedule(base: Path, schedule: DDPMScheduler) -> DDPMScheduler:
    """The noise schedule of a single file, by the marks that it carries and that ComfyUI goes by, too.

    Args:
        schedule: what holds for a file without marks.

    Raises:
        WeightFileError: the file is missing or damaged.
    """
    keys = read_keys(base)
    if "v_pred" not in keys:
        return schedule
    return DDPMScheduler.from_config(
        schedule.config, prediction_type="v_prediction", rescale_betas_zero_snr="ztsnr" in keys
    )


def why_unreadable(base: Path, error: Exception, what: str = "SDXL") -> str:
    """The message for a base that diffusers failed to read."""
    # Shortened, because a message about missing keys can list thousands of them.
    reason = " ".join(str(error).split())[:300]
    return (
        f"{base}: expected an {what} model, got one that diffusers cannot read ({reason}). Take an {what} "
        "file from models/checkpoints."
    )
