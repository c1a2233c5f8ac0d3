"""Part words, encoders and models of the golden data in ComfyUI's own classes."""
from __future__ import annotations

import shutil
from pathlib import Path

import torch

CONFIG, IO = "partcraft_tiny_config", "partcraft_tiny_io"
PREFIXES = {"clip_l": "text_encoder.", "clip_g": "text_encoder_2."}
BOS, EOS, TABLE = 49406, 49407, 49408  # of CLIP


def nodes(inside, name: str):
    return inside.pack(f"nodes.partcraft.{name}")


def engine(inside, name: str):
    return inside.pack(f"pit.partcraft.{name}")


def folder_of(inside, name: str = "part_words") -> Path:
    folder = inside.base / "models" / name
    folder.mkdir(parents=True, exist_ok=True)
    inside.pack("nodes.bridge.folders").folder_paths.filename_list_cache.clear()
    return folder


def published_words(inside, golden) -> str:
    """The golden words with their LoRA, as published, in ComfyUI's folder; the name that loaders show."""
    folder = folder_of(inside) / "published"
    folder.mkdir(exist_ok=True)
    for name in ("pytorch_model.bin", "pytorch_model_1.bin"):
        shutil.copy(golden.path(f"partcraft_tiny_{name}"), folder / name)
    return "published/pytorch_model_1.bin"


def words_of(inside, golden, name: str):
    """The golden words `mapper_l1`, or `mapper_xl` for SDXL, with numbers for names and without a LoRA."""
    state = {key: value.float() for key, value in golden.below("partcraft_tiny_state", f"{name}.").items()}
    facts, (_, dim) = golden.facts(CONFIG), state["embedding.weight"].shape
    sizes = facts["num_parts"], facts["num_k_per_part"]
    mapper = engine(inside, "mapper").TokenMapper(*sizes, dim, sum(key.endswith("bias") for key in state))
    mapper.load_state_dict(state)
    vocabulary = engine(inside, "prompt").numbered(*sizes)
    return engine(inside, "files").PartWords(mapper, vocabulary, {}, name)


def comfy_clip(inside, golden, base: str):
    """ComfyUI's CLIP of SD15 or SDXL with the golden text encoders."""
    facts = golden.facts(CONFIG)
    hidden = [
        len(golden.below("partcraft_tiny_state", prefix)["text_model.encoder.layers.0.mlp.fc1.bias"])
        for prefix in PREFIXES.values()
    ]
    sizes = {
        f"clip_{name}_model_config": {
            "hidden_size": width, "intermediate_size": hidden[number - 1],
            "num_hidden_layers": facts["text"]["layers"], "num_attention_heads": facts["text"]["heads"],
            "hidden_act": facts["text"][f"act{number}"],
        }
        for number, (name, width) in enumerate(zip("lg", facts["dims"], strict=True), 1)
    }
    kind = getattr(inside.comfy("supported_models"), base)({})
    clip = inside.comfy("sd").CLIP(
        kind.clip_target({}), parameters=0, model_options=sizes | {"dtype": torch.float32})
    for name, prefix in PREFIXES.items():
        if hasattr(clip.cond_stage_model, name):
            fill(getattr(clip.cond_stage_model, name).transformer, golden, prefix)
    return clip


def fill(encoder, golden, prefix: str) -> None:
    facts = golden.facts(CONFIG)
    state = {key: value.float() for key, value in golden.below("partcraft_tiny_state", prefix).items()}
    key = "text_model.embeddings.token_embedding.weight"
    table = torch.zeros(TABLE, state[key].shape[1])
    table[:facts["bos"]] = state[key][:facts["bos"]]
    table[BOS], table[EOS] = state[key][facts["bos"]], state[key][facts["eos"]]
    state[key] = table
    if "text_projection.weight" in state:
        # ComfyUI has a square one, as the published encoder has.
        outputs, inputs = state["text_projection.weight"].shape
        encoder.text_projection = torch.nn.Linear(inputs, outputs, bias=False)
    own = encoder.state_dict()
    assert {*state} <= {*own}
    encoder.load_state_dict({**own, **state} | (
        {} if "text_projection.weight" in state else {"text_projection.weight": torch.eye(table.shape[1])}))


def golden_unet(inside, golden):
    """A patcher of the golden UNet in ComfyUI."""
    config = golden.facts(CONFIG)["unet"]
    widths = config["block_out_channels"]

    class Kind(inside.comfy("supported_models").SD15):
        unet_extra_config = {"num_heads": config["attention_head_dim"], "num_head_channels": -1}

    blocks = config["layers_per_block"]
    depths = [int("CrossAttn" in kind) for kind in config["down_block_types"]]
    model = inside.tiny.tiny_instruct(
        kind=Kind, in_channels=config["in_channels"], num_res_blocks=[blocks] * len(widths),
        transformer_depth=[depth for depth in depths for _ in range(blocks)],
        transformer_depth_output=[depth for depth in depths for _ in range(blocks + 1)],
        model_channels=widths[0], channel_mult=[width // widths[0] for width in widths],
        context_dim=config["cross_attention_dim"],
    )
    state = golden.below("partcraft_tiny_state_unet", "unet.")
    layout = inside.pack("pit.object_insertion.unet_layout").in_comfyui_layout
    model.model.diffusion_model.load_state_dict(layout({key: each.float() for key, each in state.items()}))
    return model
