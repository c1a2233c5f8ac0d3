"""The loaders that `dev.fuzz` gives damaged files to, each with small good ones."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn

from dev import ROOT
from dev.fuzz import LONGEST_MESSAGE, Fault, Loader
from pit.concepts.token_files import read_direction, read_tokens
from pit.files.lora import by_module, read_lora
from pit.files.lora_shapes import fits, wrong_scale
from pit.files.masks import read_mask
from pit.files.pictures import PictureError, open_picture
from pit.files.weights import WeightFileError, read_state
from pit.ip_adapter.base_files import read_base_adapter
from pit.ip_adapter.files import read_ip_adapter
from pit.ip_adapter.projection import ImageProjection
from pit.ip_adapter.resampler import Resampler
from pit.object_insertion.embedding_optimizer import EmbeddingOptimizer
from pit.object_insertion.files import read_bias, read_embedding_optimizer
from pit.partcraft.cluster_files import read_part_clusters
from pit.partcraft.files import load_part_words
from pit.partcraft.mapper import TokenMapper
from pit.partcraft.prompt import numbered
from pit.parts2whole.files import SD15_BLOCKS, load_decoupled, load_pose_guider, load_reference_unet
from pit.parts2whole.pose import PoseGuider
from pit.parts2whole.unets import empty_reference_unet
from pit.piece_it_together.prior import IPPrior
from pit.piece_it_together.prior_files import read_prior
from pit.piece_it_together.training.cache import CacheError, open_cache
from pit.pops.embedding_files import read_embedding
from pit.pops.files import STATISTICS, read_operator
from pit.pops.prior import PriorTransformer
from pit.pops.training.prepare import read_box
from pit.pops.training.words import read_word_bank
from pit.training.checkpoint import newest_checkpoint
from pit.training.metrics import read_points
from pit.training.sample_cache import models_folder, read_sample
from pit.training.trainer import check_run

OLD = ROOT / "tests" / "files_of_0_5_0"
SIZES = {
    "dim": 8, "depth": 1, "dim_head": 64, "heads": 1, "num_queries": 16, "embedding_dim": 8, "output_dim": 8,
}
CFG = b"""num_attention_heads: 2
hidden_dim: 8
num_layers: 1
use_ref: true
list: [1, 2.5, {a: b}]
when: 2025-01-01
"""
SETTINGS = {"lora_adapter_metadata": '{"lora_alpha": 1}'}


def pickled(state: object, old: bool = False) -> bytes:
    content = io.BytesIO()
    torch.save(state, content, _use_new_zipfile_serialization=not old)
    return content.getvalue()


def deflated(content: bytes) -> bytes:
    """A pickle's archive, compressed."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for record in source.infolist():
                archive.writestr(record.filename, source.read(record))
    return target.getvalue()


def in_all_formats(
    name: str, state: dict[str, Tensor], nested: object, facts: dict[str, str]
) -> dict[str, bytes]:
    return {
        f"{name}.safetensors": save(state, facts), f"{name}.ckpt": pickled(nested),
        f"{name}.pt": pickled(nested, old=True), f"{name}.bin": deflated(pickled(nested)),
    }


def prior() -> dict[str, Tensor]:
    return IPPrior(8, 8, 1, 2).state_dict()


def adapter() -> dict[str, dict[str, Tensor]]:
    pairs = {f"1.to_{kind}_ip.weight": torch.ones(8, 8) for kind in "kv"}
    return {"image_proj": dict(Resampler(**SIZES).state_dict()), "ip_adapter": pairs}


def flat(nested: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{part}.{key}": value for part, state in nested.items() for key, value in state.items()}


def decoupled() -> dict[str, Tensor]:
    names = (f"{block}.transformer_blocks.0.attn2.processor" for block in SD15_BLOCKS)
    return {f"{name}.to_{kind}_dc.weight": torch.ones(2, 3) for name in names for kind in "kv"}


def reference_unet() -> dict[str, Tensor]:
    """One of two blocks with two groups of channels and two heads."""
    unet = empty_reference_unet({
        "block_out_channels": [4, 4], "layers_per_block": 1, "cross_attention_dim": 3, "norm_num_groups": 2,
        "attention_head_dim": 2, "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    })
    return {key: torch.ones(value.shape) for key, value in unet.state_dict().items()}


def lora() -> dict[str, Tensor]:
    module = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    return {f"{module}.lora_A.weight": torch.ones(2, 8), f"{module}.lora_B.weight": torch.ones(8, 2)}


def kinds_of_lora() -> dict[str, Tensor]:
    """A module of every kind, and one of an adapter."""
    square, core = torch.ones(4, 4), torch.ones(4, 4, 3, 3)
    factors = {"lora_down.weight": square, "lora_up.weight": square, "alpha": torch.tensor(2.0)}
    loha = {f"hada_w{n}_{half}": square for n in "12" for half in "ab"}
    kinds = {
        "dora": factors | {"dora_scale": torch.ones(4, 1)},
        "peft": factors | {"lora_magnitude_vector": torch.ones(4)},
        "mid": factors | {"lora_mid.weight": core},
        "wide": factors | {"reshape_weight": torch.tensor([4, 8])},
        "loha": loha, "cores": loha | {"hada_t1": core, "hada_t2": core},
        "lokr": {"lokr_w1": square, "lokr_w2_a": square, "lokr_w2_b": square, "lokr_t2": core},
        "glora": {f"{name}.weight": square for name in ("a1", "a2", "b1", "b2")},
        "oft": {"oft_blocks": torch.ones(2, 4, 4), "rescale": torch.ones(8, 1)},
        "boft": {"oft_blocks": torch.ones(2, 2, 4, 4), "alpha": torch.tensor(0.0)},
        "difference": {"diff": square, "diff_b": torch.ones(4)}, "set": {"set_weight": square},
        "norm": {"w_norm": torch.ones(4), "b_norm": torch.ones(4)}, "attn2_to_k_ip": factors,
    }
    return {
        f"lora_unet_{kind}.{part}": tensor.clone() for kind, parts in kinds.items()
        for part, tensor in parts.items()
    }


def apply_lora(path: Path) -> None:
    """Read a LoRA, and ask of each of its modules whether it fits a weight."""
    lora = read_lora(path)
    for parts in by_module(lora.unet | lora.adapter).values():
        for shape in ((4, 4), (4, 4, 3, 3), (4,)):
            fits(parts, shape)
            wrong_scale(parts, shape)


def part_words() -> dict[str, bytes]:
    state = dict(TokenMapper(2, 3, 4).state_dict())
    own = {f"mapper.{key}": value for key, value in state.items()} | lora()
    names = json.dumps(asdict(numbered(2, 3)))
    files = in_all_formats("words", state, {"module": state}, {})
    return files | {"own.safetensors": save(own, {"vocabulary": names})}


def part_clusters() -> dict[str, bytes]:
    """Ours, and objects as the published file has them."""
    def kmeans(count: int) -> nn.Module:
        module = nn.Module()
        module.register_buffer("centroids", torch.ones(4, count))
        return module

    state = {
        "foreground_background": torch.ones(4, 2), "coarse": torch.ones(4, 3), "fine": torch.ones(3, 4, 5),
    }
    published = {
        "foreground_background": kmeans(2), "coarse_kmeans": kmeans(3), "fine_kmeans": [kmeans(5)] * 3,
    }
    facts = {"foreground": "1", "background_part": "2"}
    files = in_all_formats("clusters", state, published, facts)
    return files | {"clusters.pt": pickled(state, old=True)}


def pictures() -> dict[str, bytes]:
    found = {}
    for ending, kind, mode in (("png", "PNG", "RGBA"), ("jpg", "JPEG", "RGB"), ("webp", "WEBP", "RGBA")):
        content = io.BytesIO()
        exif = b"Exif\0\0MM\0*\0\0\0\x08\0\0"
        Image.linear_gradient("L").resize((48, 32)).convert(mode).save(content, kind, exif=exif)
        found[f"picture.{ending}"] = content.getvalue()
    return found


def read_run(path: Path) -> None:
    """What a training reads of an earlier run."""
    run = next(parent for parent in path.parents if parent.name == "run")
    checkpoint, passed_over = newest_checkpoint(run / "checkpoints")
    if any(len(line) > LONGEST_MESSAGE for line in passed_over):
        raise Fault("a long reason for passing over a checkpoint")
    if checkpoint is not None:
        checkpoint.load("model")
    read_points(run)
    check_run(run, json.loads((OLD / "prior_run" / "run.json").read_text()), ())


def read_samples(path: Path) -> None:
    models_folder(path.parent.parent, {"vae": "a"})
    read_sample(path.with_name("sample.safetensors"), ["latents"])


def files_below(folder: Path, place: str) -> dict[str, bytes]:
    return {
        f"{place}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in sorted(folder.rglob("*")) if path.is_file()
    }


def pops_loaders() -> dict[str, Loader]:
    """Those of pOps, by name."""
    torch.manual_seed(0)
    state = {key: value.clone() for key, value in PriorTransformer(8, 8, 1, 2).state_dict().items()}
    bare = save({key: value for key, value in state.items() if key not in STATISTICS})
    operators = in_all_formats("operator", state, {"state_dict": state, "step": 3}, {"num_heads": "2"})
    base = adapter() | {"image_proj": ImageProjection(8, 8).state_dict()}
    embedding = {"image_embeds": torch.ones(2, 8), "negative_image_embeds": torch.ones(1, 8)}
    facts = {"piece_it_together": "image embedding", "space": "raw", "notes": '{"seed": "1"}'}

    def read_over(path: Path) -> object:
        return read_operator(path.with_name("operator.safetensors"), path.with_name("base.safetensors"))

    config = b'{"num_attention_heads": 2, "attention_head_dim": 4}'
    beside, refused = {"operator.safetensors": bare}, (WeightFileError,)
    return {
        "operator": Loader(operators, lambda path: read_operator(path, num_heads=2), refused),
        "base": Loader({"base.safetensors": save(state, {"num_heads": "2"})}, read_over, refused, {
            **beside, "config.json": config}),
        "config.json": Loader({"config.json": config}, read_over, refused, {
            **beside, "base.safetensors": save(state)}),
        "base-adapter": Loader(in_all_formats("a", flat(base), base, {}), read_base_adapter, refused),
        "embedding": Loader(
            in_all_formats("embedding", embedding, embedding, facts),
            lambda path: read_embedding(path, path.name), refused,
        ),
    }


def array(values: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, values)
    return content.getvalue()


def pops_dataset_loaders() -> dict[str, Loader]:
    """What lies beside the pictures that operators learn from."""
    square = np.arange(64, dtype=np.uint8).reshape(8, 8)
    masks = {"mask.npy": array(square), "bool.npy": array(square > 9), "half.npy": array(square / 64)}
    return {
        "masks": Loader(masks | pictures(), read_mask, (PictureError,)),
        "box.json": Loader(
            {"box.json": b'{"x1": 3, "y1": 4.5, "x2": 30, "y2": 40}'}, lambda path: read_box(path, (48, 48)),
            (PictureError,),
        ),
        "words": Loader(
            {"adjectives.txt": b"shiny\nvery old\r\nmade of gold\n"},
            lambda path: read_word_bank(path.parent), (ValueError,),
        ),
    }


def loaders() -> dict[str, Loader]:
    """All loaders, by name."""
    whole, refused = save(prior()), (WeightFileError,)
    wrapped = {"state_dict": prior(), "step": 3}
    tokens, direction = ((OLD / f"{kind}.safetensors").read_bytes() for kind in ("tokens", "direction"))
    priors = in_all_formats("prior", prior(), wrapped, {"num_heads": "2"})
    adapters = in_all_formats("adapter", flat(adapter()), adapter(), {"resampler_dim_head": "64"})
    loras = in_all_formats("lora", lora(), lora(), SETTINGS)
    loras |= in_all_formats("kinds", kinds_of_lora(), kinds_of_lora(), {})
    optimizer = EmbeddingOptimizer(8, 8).state_dict()
    optimizers = in_all_formats("optimizer", optimizer, {"state_dict": optimizer}, {"num_heads": "2"})
    biases = in_all_formats("bias", {"conv_in.bias": torch.ones(4)}, {"conv_in.bias": torch.ones(4)}, {})
    directions = {"x.safetensors": direction, "x.pt": pickled(torch.ones(16, 8))}
    guider, heads = PoseGuider(4, (2, 4)), {"config.json": b'{"attention_head_dim": 2, "norm_num_groups": 2}'}
    samples = {
        "samples/models-1/models.json": b'{"vae": "a", "clip": {"name": "b", "numbers": [1, 2]}}',
        "samples/models-1/sample.safetensors": save({"latents": torch.ones(4)}),
    }

    def named(read: Callable[[Path, str], object]) -> Callable[[Path], object]:
        return lambda path: read(path, path.name)

    def read_beside(path: Path) -> object:
        return read_prior(path.with_name("prior.safetensors"))

    return {
        "weights": Loader(adapters, read_state, refused),
        "prior": Loader(priors, lambda path: read_prior(path, 2), refused),
        "cfg.yaml": Loader({"cfg.yaml": CFG}, read_beside, refused, {"prior.safetensors": whole}),
        "adapter": Loader(adapters, read_ip_adapter, refused),
        "optimizer": Loader(optimizers, read_embedding_optimizer, refused),
        "bias": Loader(biases, read_bias, refused),
        "lora": Loader(loras, apply_lora, refused),
        "decoupled": Loader({"x.pth": save(decoupled())}, load_decoupled, refused),
        "pose_guider": Loader({"x.bin": pickled(guider.state_dict())}, load_pose_guider, refused),
        "reference_unet": Loader(
            {"x.safetensors": save(reference_unet())}, load_reference_unet, refused, heads
        ),
        "tokens": Loader({"x.safetensors": tokens}, named(read_tokens), refused),
        "direction": Loader(directions, named(read_direction), refused),
        "cache": Loader(files_below(OLD / "cache", "c"), lambda path: open_cache(path.parent), (CacheError,)),
        "run": Loader(files_below(OLD / "prior_run", "run"), read_run, (ValueError,)),
        "samples": Loader(samples, read_samples, refused),
        "pictures": Loader(pictures(), open_picture, (PictureError,)),
        "part_words": Loader(part_words(), load_part_words, refused),
        "part_clusters": Loader(part_clusters(), read_part_clusters, refused),
        **pops_loaders(),
        **pops_dataset_loaders(),
    }
