"""`python -m pit download-insertion-bias`: the one tensor by which the published UNet differs from add-base.

A safetensors file begins with a list of where in it each tensor is, so that a hub can be asked for these
bytes alone.
"""
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..files.weights import LONGEST_SAFETENSORS_HEADER, WeightFileError
from ..files.whole import replacing
from ..messages import quoted
from ..object_insertion.files import BIAS, read_bias
from ..object_insertion.published import BIAS_TARGET, REPO, UNET_PATH
from .download import DownloadError, Hub, quiet_hub

LARGEST = 100_000  # bytes; the published one has 1280


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--models", type=Path, required=True, metavar="DIR", help="a ComfyUI's models folder")
    parser.add_argument("--endpoint", metavar="URL", help="a mirror of the hub; your login is not sent to it")


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code; every failure is one sentence on stderr."""
    try:
        with quiet_hub():
            target = download_bias(args.models, Hub(args.endpoint))
    except (DownloadError, WeightFileError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: cannot use {error.filename or args.models} ({error.strerror}).", file=sys.stderr)
        return 1
    print(f"written: {target}")
    return 0


def download_bias(models: Path, hub: Hub) -> Path:
    """Fetch the published bias into ComfyUI's models folder, and return its place there.

    Raises:
        DownloadError: there is no such folder, something is in the place of the bias, or it did not arrive.
        WeightFileError: what arrived is no bias.
        OSError: it could not be written.
    """
    target = models / BIAS_TARGET
    if not models.is_dir():
        raise DownloadError(
            f"Expected the models folder of a ComfyUI for --models, got {models}, which is not a folder."
        )
    if target.exists():
        raise DownloadError(f"{target} is there already; move it away to fetch it again.")
    content = fetched_tensor(hub, hub.list_repo(REPO).sha)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target, len(content)) as unfinished:
        unfinished.write_bytes(content)
        # Before it gets its name: no hash is known of a part of a file.
        read_bias(unfinished)
    return target


def fetched_tensor(hub: Hub, commit: str) -> bytes:
    """The bias as a safetensors file of its own. Raises DownloadError."""
    length = int.from_bytes(hub.read_part(REPO, UNET_PATH, commit, 0, 8), "little")
    if not 0 < length <= LONGEST_SAFETENSORS_HEADER:
        raise DownloadError(f"Expected a safetensors file as {UNET_PATH} of {REPO}, got something else.")
    text = hub.read_part(REPO, UNET_PATH, commit, 8, 8 + length)
    try:
        entry = json.loads(text)[BIAS]
        first, last = (int(offset) for offset in entry["data_offsets"])
        if not 0 <= first < last <= first + LARGEST:
            raise ValueError(f"it lies from byte {first} to {last}")
        facts = {"dtype": entry["dtype"], "shape": entry["shape"], "data_offsets": [0, last - first]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DownloadError(
            f"Expected a list of tensors with {BIAS} in {UNET_PATH} of {REPO}, got something else "
            f"({quoted(error)})."
        ) from error
    head = json.dumps({BIAS: facts}).encode()
    start = 8 + length
    return len(head).to_bytes(8, "little") + head + hub.read_part(
        REPO, UNET_PATH, commit, start + first, start + last
    )
