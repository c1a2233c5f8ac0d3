"""From image embeddings to pictures, by the decoder of Kandinsky 2.2 and ComfyUI's own sampler."""
from __future__ import annotations

from pathlib import Path

from comfy_api.latest import io
from torch import Tensor

from ...pit.packages import check_packages
from ...pit.pops.embeddings import Embedding, check_decodable, check_same_encoder, common_count
from ..bridge.folders import ModelFiles, file_stamp
from ..bridge.sockets import EmbeddingType
from .kandinsky import SOURCE, load_autoencoder, load_decoder
from .types import CATEGORY

FILES = ModelFiles("kandinsky_decoder")
# Saved graphs hold this option by name.
BESIDE = "beside the decoder"
AUTOENCODER_FOLDER = "movq"
NODE = "Kandinsky Conditioning"


def is_autoencoder(name: str) -> bool:
    """Whether a file lies in the folder that the published autoencoder lies in."""
    return AUTOENCODER_FOLDER in name.replace("\\", "/").split("/")[:-1]


def decoders_first() -> list[str]:
    """The files that are offered, with those that are known for autoencoders behind all others."""
    # A new node stands on the first entry, and of the published folders `movq` comes before `unet`.
    return sorted(FILES.options(), key=is_autoencoder)


def autoencoder_path(file: str, movq: str) -> Path:
    """Where the autoencoder is: a file, or the folder around that of the decoder."""
    return FILES.path(file).parent.parent if movq == BESIDE else FILES.path(movq)


def conditioning(rows: Tensor, embedding: Embedding) -> list:
    """ComfyUI's CONDITIONING of embeddings `[B, E]`, which says where they come from."""
    return [[rows[:, None], {SOURCE: embedding.source}]]


class LoadKandinskyDecoder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_LoadKandinskyDecoder",
            display_name="Load Kandinsky Decoder",
            category=CATEGORY,
            description="Loads the decoder of Kandinsky 2.2, with which KSampler draws image embeddings.",
            search_aliases=["kandinsky", "unclip decoder", "movq", "decode embedding"],
            inputs=[
                io.Combo.Input(
                    "file", options=decoders_first(),
                    tooltip="The UNet from models/kandinsky_decoder: unet/diffusion_pytorch_model.",
                ),
                io.Combo.Input(
                    "movq", options=[BESIDE, *FILES.listed()], default=BESIDE, advanced=True,
                    tooltip="The autoencoder: the one in the folder movq beside that of the UNet, or a file "
                            "from models/kandinsky_decoder.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="For KSampler: ddpm and ddim_uniform, 50 steps, cfg 4 as published."),
                io.Vae.Output(tooltip="For VAE Decode, and for VAE Encode to start from a picture."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str | None, movq: str | None) -> bool | str:
        missing_movq = None if movq == BESIDE else FILES.why_missing(movq)
        return FILES.why_missing(file) or missing_movq or True

    @classmethod
    def fingerprint_inputs(cls, file: str | None, movq: str | None) -> object:
        if file is None or movq is None:
            return None  # what comes over a link is not known yet
        around = autoencoder_path(file, movq)
        found = sorted((around / AUTOENCODER_FOLDER).glob("*")) if around.is_dir() else [around]
        # The sizes come from a config.json, so a change of one loads the decoder again.
        paths = [FILES.path(file), *found]
        return [(str(each), file_stamp(each), file_stamp(each.with_name("config.json"))) for each in paths]

    @classmethod
    def execute(cls, file: str, movq: str) -> io.NodeOutput:
        check_packages("Load Kandinsky Decoder", ["diffusers"])
        return io.NodeOutput(
            load_decoder(FILES.path(file)), load_autoencoder(autoencoder_path(file, movq))
        )


class KandinskyConditioning(io.ComfyNode):
    takes = {"embedding": Embedding, "negative": Embedding}

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_KandinskyConditioning",
            display_name=NODE,
            category=CATEGORY,
            description="Makes the prompts of Kandinsky's decoder out of image embeddings, for KSampler.",
            search_aliases=["embedding to conditioning", "kandinsky prompt", "unclip conditioning"],
            inputs=[
                EmbeddingType.Input("embedding", tooltip="One embedding for all images, or one for each."),
                EmbeddingType.Input(
                    "negative", optional=True,
                    tooltip="What guidance leads away from; unconnected, the embedding of no picture at all, "
                            "as published.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The prompt, for KSampler."),
                io.Conditioning.Output(display_name="negative", tooltip="The negative prompt, for KSampler."),
            ],
        )

    @classmethod
    def execute(cls, embedding: Embedding, negative: Embedding | None = None) -> io.NodeOutput:
        check_decodable(embedding, NODE)
        if negative is None:
            if embedding.negative is None:
                raise ValueError(
                    f"{NODE} expected a negative, since the embedding from {embedding.source} does not know "
                    "the one of its encoder, got none. Connect Encode Image Embedding of a plain gray "
                    "picture to negative."
                )
            away = embedding.negative.float()
        else:
            check_decodable(negative, NODE)
            check_same_encoder(embedding, negative)
            common_count([len(embedding.values), len(negative.values)])
            away = negative.values.float()
        return io.NodeOutput(
            conditioning(embedding.values.float(), embedding), conditioning(away, negative or embedding)
        )
