"""Files of image embeddings: ours, plain dicts of the published names, and bare tensors."""
from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ..files.checked import StrPath, another_file, without_wrappers
from ..files.records import KIND, check_finite, made_by, write_made
from ..files.weights import BARE_TENSOR, WeightFileError, read_state
from ..messages import quoted, shortened
from .embeddings import NORMALIZED, RAW, Embedding

EMBEDDING = "image embedding"
VALUES, NEGATIVE = "image_embeds", "negative_image_embeds"
# What the published inference saves: an object of diffusers, for which a pickle must run code.
PUBLISHED_RESULT = "KandinskyPriorPipelineOutput"
LONGEST_ENCODER = 200


def save_embedding(path: StrPath, embedding: Embedding) -> None:
    """Write embeddings under the published names, and in the metadata their space, encoder and origin.

    Raises:
        WeightFileError: the file cannot be written.
    """
    tensors = {VALUES: embedding.values, NEGATIVE: embedding.negative}
    write_made(path, embedding, EMBEDDING, tensors, {"space": embedding.space, "encoder": embedding.encoder})


def read_embedding(path: StrPath, name: str, space: str = RAW) -> Embedding:
    """Embeddings of ours, or of others: `image_embeds` with `negative_image_embeds`, or one bare tensor.

    Args:
        name: what messages call the file.
        space: of a file that does not say it; the published code keeps raw ones, and reads bare tensors for
            instruct as normalized.
    Raises:
        WeightFileError: damaged, a pickle of more than tensors, or another kind of file.
    """
    path = Path(path)
    try:
        state, facts = read_state(path)
    except WeightFileError as error:
        if PUBLISHED_RESULT in str(error):
            raise WeightFileError(_about_published_result(path)) from error
        raise
    state = without_wrappers(state)
    if len(state) == 1 and VALUES not in state:
        state = {VALUES if _is_bare(key, value) else key: value for key, value in state.items()}
    if VALUES not in state or state.keys() - {VALUES, NEGATIVE}:
        raise another_file(path, state, "an image embedding")
    values, negative = _rows(path, VALUES, state[VALUES]), None
    if NEGATIVE in state:
        negative = _rows(path, NEGATIVE, state[NEGATIVE])[:1]
        if negative.shape[-1] != values.shape[-1]:
            raise WeightFileError(
                f"{path}: expected {NEGATIVE} as wide as {VALUES}, {values.shape[-1]}, got "
                f"{negative.shape[-1]}. Save the embedding again."
            )
    if facts.get(KIND) == EMBEDDING:
        space = facts.get("space", RAW)
    if space not in (RAW, NORMALIZED):
        raise WeightFileError(
            f"{path}: expected {RAW!r} or {NORMALIZED!r} as its space, got {quoted(space)}. Save the "
            "embedding again."
        )
    encoder = shortened(facts.get("encoder", ""), LONGEST_ENCODER)
    return Embedding(values, negative, encoder, space, **made_by(path, facts, name))


def _is_bare(key: str, value: Tensor) -> bool:
    """Whether a lone tensor may be an embedding: one that has no other name, as `torch.save` leaves it."""
    return key in (BARE_TENSOR, "embedding", "embeds") and value.ndim in (1, 2)


def _rows(path: Path, key: str, values: Tensor) -> Tensor:
    values = values[None] if values.ndim == 1 else values
    if values.ndim != 2 or 0 in values.shape:
        raise WeightFileError(
            f"{path}: expected {key} of the shape [B, E], an embedding for each picture, got "
            f"{list(values.shape)}. Choose another file."
        )
    check_finite(path, key, values)
    return values.float()


def _about_published_result(path: Path) -> str:
    return (
        f"{path}: expected tensors alone, got a {PUBLISHED_RESULT}, as the published inference saves it. It "
        "was not opened, since it can run code. Encode the picture again with Encode Image Embedding. Or, if "
        "you made the file yourself, take its tensors out in Python, where diffusers is installed: `r = "
        f"torch.load(file, weights_only=False); torch.save({{\"{VALUES}\": r.{VALUES}, \"{NEGATIVE}\": "
        f"r.{NEGATIVE}}}, \"embedding.pt\")`."
    )
