"""Image embeddings from pictures, and as files."""
from __future__ import annotations

import comfy.model_management
import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ...pit.files.published import file_kind
from ...pit.images import CLIP_MEAN, CLIP_STD, to_pil
from ...pit.pops.embedding_files import read_embedding, save_embedding
from ...pit.pops.embeddings import FITS, LAYERS, NORMALIZED, RAW, SQUASHED, Embedding, pixel_values
from ..bridge.feedback import as_lines, progress_bar, told
from ..bridge.folders import ModelFiles
from ..bridge.keeping import kept
from ..bridge.loaders import FileNode
from ..bridge.sockets import EmbeddingType
from .types import CATEGORY

FILES = ModelFiles("image_embedding")
PICTURES_AT_ONCE = 16  # bounds the memory of an encoding, and lets Cancel in between


def check_encoder(node: str, clip_vision) -> None:
    """Raise ValueError for an image encoder without CLIP's projection."""
    if clip_vision.model_type != "clip_vision_model":
        raise ValueError(
            f"{node} expected a clip_vision_model as its CLIP_VISION, got a {clip_vision.model_type}. "
            f"{file_kind('clip_vision_bigg').where_to_get}"
        )


def encoded(clip_vision, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Raw embeddings `[B, E]` of pixel values and that of zeros `[1, E]`, on the intermediate device.

    Raises:
        ValueError: the encoder has no projection, as CLIP has it.
        FloatingPointError: the embeddings are not finite.
    """
    check_encoder("Encode Image Embedding", clip_vision)
    comfy.model_management.load_models_gpu([clip_vision.patcher])
    # Zero after normalization is the mean color: what the published code puts in place of no picture.
    pixels, found, done = torch.cat([pixels, torch.zeros_like(pixels[:1])]), [], progress_bar()
    # The network is ComfyUI's, but its `encode_image` is not used: its preprocessing differs from Pillow's.
    for chunk in pixels.split(PICTURES_AT_ONCE):
        seen = clip_vision.model(pixel_values=chunk.to(clip_vision.load_device))[2]
        found += seen.to(comfy.model_management.intermediate_device(), torch.float32)
        done(len(found), len(pixels))
    values = torch.stack(found)
    if not values.isfinite().all():
        raise FloatingPointError(
            "Expected finite embeddings from the CLIP vision model, got NaN or infinite values: its file is "
            "damaged. Download it again."
        )
    return values[:-1], values[-1:]


def shown(pixels: Tensor) -> Tensor:
    """Pixel values as pictures `[B, H, W, 3]`: what the encoder sees."""
    return (pixels.movedim(1, -1) * torch.tensor(CLIP_STD) + torch.tensor(CLIP_MEAN)).clamp(0, 1)


class EncodeEmbedding(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_EncodeEmbedding",
            display_name="Encode Image Embedding",
            category=CATEGORY,
            description="Encodes pictures as image embeddings for pOps; shows exactly what the encoder sees.",
            search_aliases=["pops encode", "image embeds", "clip vision encode"],
            # Its pictures are kept like those of an output node, but the node only runs if another needs it.
            has_intermediate_output=True,
            inputs=[
                io.ClipVision.Input(
                    "clip_vision", tooltip="The encoder that the operator was trained with: ViT-bigG.",
                ),
                io.Image.Input("image", tooltip="Each picture gives one embedding; transparency is white."),
                io.Combo.Input(
                    "fit", options=list(FITS), default=SQUASHED,
                    tooltip="How a picture becomes a square: squashed as published, cropped to its center, "
                            "or whole on white (letterboxed).",
                ),
            ],
            outputs=[
                EmbeddingType.Output(
                    display_name="embedding", tooltip="One embedding for each picture, for the pOps nodes.",
                ),
            ],
        )

    @classmethod
    def execute(cls, clip_vision, image: Tensor, fit: str) -> io.NodeOutput:
        pixels = pixel_values(to_pil(image), fit, clip_vision.image_size)
        values, negative = encoded(clip_vision, pixels)
        layers = clip_vision.config["hidden_size"]
        encoder = f"CLIP {LAYERS[layers]}" if layers in LAYERS else f"CLIP with layers of width {layers}"
        embedding = Embedding(
            values, negative, encoder, source="Encode Image Embedding",
            notes={"encoder": encoder, "fit": fit},
        )
        return io.NodeOutput(embedding, ui=ui.PreviewImage(shown(pixels), cls=cls))


class SaveEmbedding(io.ComfyNode):
    takes = {"embedding": Embedding}

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_SaveEmbedding",
            display_name="Save Embedding",
            category=CATEGORY,
            description="Saves image embeddings and how they were made, for Load Embedding in any graph.",
            search_aliases=["save embeds", "save image embedding"],
            is_output_node=True,
            inputs=[
                EmbeddingType.Input("embedding", tooltip="What to save; a batch goes into one file."),
                io.String.Input(
                    "name", default="my_embedding",
                    tooltip="The file is models/image_embeddings/NAME.safetensors; one of that name is "
                            "overwritten.",
                ),
            ],
            outputs=[],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, embedding: Embedding, name: str) -> io.NodeOutput:
        what = f"{len(embedding.values)} embeddings"
        return kept(cls, FILES, name, lambda path: save_embedding(path, embedding), what)


class LoadEmbedding(FileNode):
    files = FILES

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_LoadEmbedding",
            display_name="Load Embedding",
            category=CATEGORY,
            description="Loads saved image embeddings and shows how they were made.",
            search_aliases=["load embeds", "load image embedding"],
            inputs=[
                io.Combo.Input(
                    "file", options=FILES.options(),
                    tooltip="The file from models/image_embeddings: a saved one, or bare tensors [B, E].",
                ),
                io.Combo.Input(
                    "bare_tensors", options=[RAW, NORMALIZED], default=RAW, advanced=True,
                    tooltip="What a file holds that does not say it: raw embeddings, as an encoder gives "
                            "them, or ones that an operator's statistics have normalized already.",
                ),
            ],
            outputs=[
                EmbeddingType.Output(
                    display_name="embedding", tooltip="The saved embeddings, for the pOps nodes.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, file: str, bare_tensors: str) -> io.NodeOutput:
        embedding = read_embedding(FILES.path(file), file, bare_tensors)
        facts = {
            "embeddings": len(embedding.values), "width": embedding.width, "space": embedding.space,
            **embedding.notes,
        }
        return io.NodeOutput(embedding, ui=told(cls, as_lines(facts)))
