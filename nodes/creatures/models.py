"""The creature domain: miniature models as native ComfyUI objects, and parts to try them with."""
from __future__ import annotations

from dataclasses import replace

import comfy.clip_vision
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.supported_models
import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ...pit.demo.drawing.creature import PARTS, SPECIES, creature_from_seed, with_parts
from ...pit.demo.drawing.draw import draw_creature, draw_label_map, draw_masks, label_picture
from ...pit.demo.drawing.edits import EDITS, both_classes
from ...pit.demo.drawing.pose import FRONT, VIEWS, Pose
from ...pit.demo.measure.trials import PART_PICTURE_SIZE, Trial, whole_view
from ...pit.demo.models.preview import TokenPreview
from ...pit.demo.models.sizes import (
    AUTOENCODER_CHANNELS,
    ENCODER_SIZE,
    PICTURE_SIZE,
    TEXT_G,
    TEXT_L,
    TIME_ID_DIM,
    TIME_IDS,
    UNET_CHANNELS,
    UNET_DEPTHS,
    UNET_HEAD_DIM,
    VISION,
)
from ...pit.demo.models.vision import CreatureVision
from ...pit.demo.models.weights import (
    IP_ADAPTER,
    IP_PRIOR,
    PREVIEW,
    RENDERER,
    read_weights,
    weight_file,
    with_prefix,
)
from ...pit.demo.models.weights import VISION as VISION_FILE
from ...pit.images import to_tensor
from ..bridge.feedback import progress_bar
from ..bridge.memory import managed
from ..bridge.sockets import IPAdapterType
from ..piece_it_together.loading import load_ip_adapter, load_prior
from ..piece_it_together.types import CATEGORY, PriorType
from .size import tell_other_sizes

CreatureType = io.Custom("PIT_CREATURE")
"""Carries a `pit.demo.measure.trials.Trial`: a creature, and which of its parts are given."""

MIXED = "mixed"
CHOSEN_FIRST = ("horns", "wings", "tail")


class MiniatureSDXL(comfy.supported_models.SDXL):
    """SDXL's structure at the creature models' widths."""

    native_size = PICTURE_SIZE
    # ComfyUI recognizes models by fixed widths, so no checkpoint of this size would be detected as SDXL. The
    # class is used directly and stays out of ComfyUI's list: the detection of other files does not change.
    unet_config = {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": UNET_CHANNELS[0],
        "channel_mult": [width // UNET_CHANNELS[0] for width in UNET_CHANNELS],
        "num_res_blocks": [1, 1, 1],
        "use_spatial_transformer": True,
        "use_linear_in_transformer": True,
        "transformer_depth": list(UNET_DEPTHS),
        "transformer_depth_middle": UNET_DEPTHS[-1],
        "transformer_depth_output": [depth for depth in UNET_DEPTHS for _ in range(2)],
        "context_dim": TEXT_L["hidden_size"] + TEXT_G["hidden_size"],
        "num_classes": "sequential",
        "adm_in_channels": TEXT_G["hidden_size"] + TIME_IDS * TIME_ID_DIM,
        "use_temporal_attention": False,
        "use_temporal_resblock": False,
        "legacy": False,
    }
    unet_extra_config = {"num_heads": -1, "num_head_channels": UNET_HEAD_DIM}


class CreatureClipVision(comfy.clip_vision.ClipVisionModel):
    """ComfyUI's CLIP_VISION with the miniature's convolutional trunk in place of a vision transformer."""

    def __init__(self) -> None:
        # The superclass builds a vision transformer, which is replaced below: so the smallest one there is,
        # of one layer and one patch. Only type, width and picture size of this configuration are read later.
        super().__init__({
            "model_type": "clip_vision_model", "image_size": ENCODER_SIZE, "patch_size": ENCODER_SIZE,
            "num_channels": 3, "hidden_size": VISION["channels"][-1], "hidden_act": "gelu",
            "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 1,
        })
        offload = self.patcher.offload_device
        self.model = CreatureVision(comfy.ops.manual_cast, dtype=self.dtype, device=offload).eval()
        # The superclass's patcher holds the model that is no longer there.
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            self.model, load_device=self.load_device, offload_device=offload
        )


def load_unet(state: dict[str, Tensor], disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The MODEL, from weights in diffusers' layout; ComfyUI may keep it from being loaded piece by piece."""
    # The steps of ComfyUI's own loader of diffusion models, without its detection by widths.
    config = MiniatureSDXL(MiniatureSDXL.unet_config)
    names = comfy.utils.unet_to_diffusers(config.unet_config)
    state = {names[key]: value for key, value in state.items()}
    device = comfy.model_management.get_torch_device()
    offload = comfy.model_management.unet_offload_device()
    dtype = comfy.model_management.unet_dtype(model_params=comfy.utils.calculate_parameters(state))
    cast = comfy.model_management.unet_manual_cast(dtype, device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, cast, device=device)
    # ComfyUI tells an SDXL that predicts velocity by the presence of this key; its value is not read.
    model = config.get_model({"v_pred": torch.tensor([])}, device=offload)
    patchers = comfy.model_patcher
    patcher = (patchers.ModelPatcher if disable_dynamic else patchers.CoreModelPatcher)(
        model, load_device=device, offload_device=offload
    )
    model.load_model_weights(state, assign=patcher.is_dynamic())
    # ComfyUI makes copies with weights of their own by this: to train a LoRA, and for a second GPU.
    patcher.cached_patcher_init = (reload_unet, ())
    tell_other_sizes(patcher)
    return patcher


def reload_unet(disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The MODEL, with new weights from its file."""
    return load_unet(with_prefix(read_weights(RENDERER), "unet."), disable_dynamic)


def load_text_encoders(state: dict[str, Tensor], disable_dynamic: bool = False) -> comfy.sd.CLIP:
    """The CLIP: two text encoders, as in SDXL."""
    # The file also holds UNet and VAE: their parameters must not count among those of the text encoders.
    state = {key: value for key, value in state.items() if key.startswith(("clip_l.", "clip_g."))}
    target = MiniatureSDXL(MiniatureSDXL.unet_config).clip_target()
    config_g = TEXT_G | {"projection_dim": TEXT_G["hidden_size"]}
    options = {"clip_l_model_config": TEXT_L, "clip_g_model_config": config_g}
    parameters = comfy.utils.calculate_parameters(state)
    clip = comfy.sd.CLIP(
        target, parameters=parameters, state_dict=state, model_options=options,
        disable_dynamic=disable_dynamic,
    )
    clip.patcher.cached_patcher_init = (reload_text_encoders, ())
    return clip


def reload_text_encoders(disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The patcher of the CLIP, with new weights from its file."""
    return load_text_encoders(read_weights(RENDERER), disable_dynamic).patcher


def load_autoencoder(state: dict[str, Tensor]) -> comfy.sd.VAE:
    """The VAE."""
    # Spelled out, because from the weights alone ComfyUI assumes an encoder of 128 channels.
    first = AUTOENCODER_CHANNELS[0]
    layout = {
        "double_z": True, "z_channels": 4, "resolution": PICTURE_SIZE, "in_channels": 3, "out_ch": 3,
        "ch": first, "ch_mult": [width // first for width in AUTOENCODER_CHANNELS], "num_res_blocks": 1,
        "attn_resolutions": [], "dropout": 0.0,
    }
    config = {"params": {"ddconfig": layout, "embed_dim": 4}}
    vae = comfy.sd.VAE(sd=state, config=config)
    vae.patcher.cached_patcher_init = (reload_autoencoder, ())
    return vae


def reload_autoencoder(disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The patcher of the VAE, with new weights from its file."""
    # ComfyUI's VAE does not let us choose its kind of patcher, and its own factory ignores this as well.
    return load_autoencoder(with_prefix(read_weights(RENDERER), "vae.")).patcher


def load_clip_vision() -> CreatureClipVision:
    """The CLIP_VISION."""
    clip_vision = CreatureClipVision()
    clip_vision.load_sd(read_weights(VISION_FILE))
    return clip_vision


def load_preview() -> comfy.model_patcher.ModelPatcher:
    """What turns tokens into small pictures while they are sampled."""
    return managed(TokenPreview, read_weights(PREVIEW))


class LoadCreatureModels(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_LoadCreatureModels",
            display_name="Load Creature Models",
            category=CATEGORY,
            essentials_category=CATEGORY,
            description=(
                "Loads the miniature models that come with the pack: the whole chain, trained on drawn "
                "creatures."
            ),
            search_aliases=["demo models", "piece it together demo"],
            inputs=[],
            outputs=[
                io.Model.Output(tooltip="The model that renders creatures, for Apply IP+ Tokens."),
                io.Clip.Output(tooltip="Its text encoder, for CLIP Text Encode."),
                io.Vae.Output(tooltip="Its VAE, for VAE Decode."),
                io.ClipVision.Output(
                    tooltip="The encoder of pictures, for Encode IP+ Parts and Encode IP+ Image.",
                ),
                IPAdapterType.Output(
                    display_name="ip_adapter",
                    tooltip="The IP-Adapter of the creatures, for all nodes that encode or apply tokens.",
                ),
                PriorType.Output(
                    display_name="prior", tooltip="The prior that completes creatures, for IP-Prior Sample.",
                ),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        state = read_weights(RENDERER)
        return io.NodeOutput(
            load_unet(with_prefix(state, "unet.")), load_text_encoders(state),
            load_autoencoder(with_prefix(state, "vae.")), load_clip_vision(),
            load_ip_adapter(weight_file(IP_ADAPTER), IP_ADAPTER),
            replace(load_prior(weight_file(IP_PRIOR), IP_PRIOR), preview=load_preview()),
        )


def pose_inputs() -> list[io.Input]:
    """How the whole creature stands. All optional, so that graphs without them go on running."""
    def scale(name: str, tooltip: str) -> io.Input:
        return io.Float.Input(
            name, default=0.0, min=-1.0, max=1.0, step=0.05, display_mode=io.NumberDisplay.slider,
            tooltip=tooltip, optional=True, advanced=True,
        )

    return [
        io.Combo.Input(
            "view", options=list(VIEWS), default=FRONT, optional=True, advanced=True,
            tooltip="From where the whole creature is seen; parts are always drawn from the front.",
        ),
        scale("raise_arms", "Arms of the whole creature: 1 = raised, -1 = hanging down."),
        scale("raise_wings", "Wings of the whole creature: 1 = raised, -1 = folded down."),
        scale("spread_legs", "Legs of the whole creature: 1 = apart, -1 = together."),
        scale("lean", "How far the whole creature leans: 1 = to the right, -1 = to the left."),
        io.Boolean.Input(
            "mirrored", default=False, optional=True, advanced=True,
            tooltip="Swap left and right of the whole creature.",
        ),
    ]


class CreatureParts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_CreatureParts",
            display_name="Creature Parts",
            category=CATEGORY,
            essentials_category=CATEGORY,
            description=(
                "Draws the chosen parts of a creature that has all of them, on white, one picture each."
            ),
            search_aliases=["demo parts", "horns", "wings", "tail", "example parts"],
            inputs=[
                io.Int.Input(
                    "seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True,
                    tooltip="Determines which creature the parts are taken from.",
                ),
                io.Combo.Input(
                    "species", options=[MIXED, *SPECIES], default=MIXED,
                    tooltip="The species of the creature; mixed chooses every part at random.",
                ),
                *(
                    io.Boolean.Input(part, default=part in CHOSEN_FIRST, tooltip=f"Draw the {part}.")
                    for part in PARTS
                ),
                *pose_inputs(),
            ],
            outputs=[
                io.Image.Output(
                    display_name="parts", tooltip="The chosen parts on white, for Encode IP+ Parts.",
                ),
                CreatureType.Output(
                    display_name="creature", tooltip="Which creature it is, for Measure Creatures.",
                ),
                io.Image.Output(display_name="whole", tooltip="A picture of the whole creature."),
                io.Image.Output(
                    display_name="label_map", tooltip="The whole creature with a color for each part.",
                ),
                io.Mask.Output(
                    display_name="masks", tooltip="A mask of each part in the picture of the whole.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, seed: int, species: str, view: str = FRONT, raise_arms: float = 0.0, raise_wings: float = 0.0,
        spread_legs: float = 0.0, lean: float = 0.0, mirrored: bool = False, **wanted: bool,
    ) -> io.NodeOutput:
        chosen = tuple(part for part in PARTS if wanted[part])
        if not chosen:
            raise ValueError(
                "Creature Parts expected at least one part to draw, got none. Switch one of these on: "
                f"{', '.join(PARTS)}."
            )
        mixed = species == MIXED
        creature = creature_from_seed(seed, 0.0 if mixed else 1.0, None if mixed else species)
        pose = Pose(raise_arms, raise_wings, spread_legs, lean, mirrored, view)
        trial = Trial(replace(with_parts(creature, chosen, seed), pose=pose), chosen)
        whole = draw_creature(trial.creature, PART_PICTURE_SIZE)
        found = label_picture(draw_label_map(trial.creature, PART_PICTURE_SIZE))
        masks = torch.from_numpy(draw_masks(trial.creature, chosen, PART_PICTURE_SIZE))
        parts = to_tensor(trial.part_pictures())
        return io.NodeOutput(parts, trial, to_tensor([whole]), to_tensor([found]), masks)


class CreatureKinds(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_CreatureKinds",
            display_name="Creature Kinds",
            category=CATEGORY,
            description="Draws creatures of two kinds that differ in one thing, to find a direction with.",
            search_aliases=["demo classes", "direction pictures"],
            inputs=[
                io.Combo.Input(
                    "difference", options=list(EDITS), default=next(iter(EDITS)),
                    tooltip="What the second kind has and the first lacks.",
                ),
                io.Int.Input("count", default=32, min=1, max=1024, tooltip="How many pictures of each kind."),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xffffffffffffffff,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Determines which creatures are drawn.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="first", tooltip="Creatures of one kind, for Find IP+ Direction.",
                ),
                io.Image.Output(
                    display_name="second", tooltip="Creatures of the other kind, for the same node.",
                ),
            ],
        )

    @classmethod
    def execute(cls, difference: str, count: int, seed: int) -> io.NodeOutput:
        done, kinds = progress_bar(), both_classes(difference, count, seed)
        pictures: tuple[list, list] = ([], [])
        for number, (kind, drawn) in enumerate(zip(kinds, pictures, strict=True)):
            for index, creature in enumerate(kind):
                drawn.append(whole_view(creature))
                done(number * count + index + 1, 2 * count)
        return io.NodeOutput(*map(to_tensor, pictures))
