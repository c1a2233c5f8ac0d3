"""From pictures to IP+ tokens: cutting parts out, laying them out in slots, encoding them."""
from __future__ import annotations

from comfy_api.latest import io, ui
from PIL import ImageOps
from torch import Tensor

from ...pit.concepts.tokens import Tokens
from ...pit.cutouts import cut_out_part, mask_of_part
from ...pit.images import clip_pixel_values, on_white, to_pil, to_tensor, white_image
from ...pit.piece_it_together.parts import encoder_pictures
from ...pit.piece_it_together.slots import Parts
from ..bridge.feedback import told
from ..bridge.sockets import IPAdapterType, TokensType
from .encoding import encode_pixels, made_by
from .types import CATEGORY, ManagedIPAdapter, PartsType

CLIP_VISION_TOOLTIP = "The image encoder that the IP-Adapter was made for: CLIP ViT-H."
IP_ADAPTER_TOOLTIP = "The IP-Adapter whose resampler makes the tokens."

EITHER, PART, GROUND = "automatic", "the part", "the ground"
INVERTED = (
    "The mask covers what lies around the part, as the MASK of Load Image does for a picture with a "
    "transparent background, so it was inverted. If that is wrong, set mask_covers."
)


class CutOutPart(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_CutOutPart",
            display_name="Cut Out Part",
            category=CATEGORY,
            essentials_category=CATEGORY,
            description="Puts what a mask covers on white and crops to it: the parts that IP-Priors know.",
            search_aliases=[
                "crop by mask", "cutout", "segment part", "remove background", "transparent background",
                "isolate", "white background",
            ],
            inputs=[
                io.Image.Input("image", tooltip="One picture that shows the part."),
                io.Mask.Input(
                    "mask",
                    tooltip="One mask of the same size as the picture, white on the part. The transparency "
                            "of a cut-out, as Load Image gives it, is recognized and inverted.",
                ),
                io.Combo.Input(
                    "mask_covers", options=[EITHER, PART, GROUND], default=EITHER, optional=True,
                    advanced=True,
                    tooltip="What is white in the mask: the part, or what lies around it. Automatic tells by "
                            "the alpha channel of the picture, and without one by its corners and border: a "
                            "part that reaches all four corners, such as a frame, needs a choice here.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="part", tooltip="The part on white, cropped, for Encode IP+ Parts.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, image: Tensor, mask: Tensor, mask_covers: str = EITHER) -> io.NodeOutput:
        # Masks come as [H, W], [B, H, W] or [B, 1, H, W], depending on the node that made them.
        pictures, masks = to_pil(image), to_pil(mask.reshape(-1, *mask.shape[-2:], 1))
        if len(pictures) != 1 or len(masks) != 1:
            raise ValueError(
                f"Cut Out Part expected one picture and one mask, because cut-outs differ in size; got "
                f"{len(pictures)} pictures and {len(masks)} masks. Use one node per part."
            )
        covering, inverted = masks[0].convert("L"), mask_covers == GROUND
        if mask_covers == EITHER:
            covering, inverted = mask_of_part(pictures[0], covering)
        elif inverted:
            covering = ImageOps.invert(covering)
        part = to_tensor([cut_out_part(pictures[0], covering)])
        # Nothing to tell where it was chosen.
        return io.NodeOutput(part, ui=told(cls, INVERTED) if inverted and mask_covers == EITHER else None)


class EncodeParts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        part = io.Image.Input("part", tooltip="A part on white or transparency; a batch is several parts.")
        return io.Schema(
            node_id="PiT_EncodeParts",
            display_name="Encode IP+ Parts",
            category=CATEGORY,
            essentials_category=CATEGORY,
            description="Places parts on white and encodes them; shows exactly what the encoder sees.",
            search_aliases=[
                "piece it together parts", "part images", "collage", "combine pictures", "mix parts",
                "sketch", "assemble",
            ],
            # Its pictures are kept like those of an output node, but the node only runs if another needs it.
            has_intermediate_output=True,
            inputs=[
                io.ClipVision.Input("clip_vision", tooltip=CLIP_VISION_TOOLTIP),
                IPAdapterType.Input("ip_adapter", tooltip=IP_ADAPTER_TOOLTIP),
                io.Autogrow.Input(
                    "parts", template=io.Autogrow.TemplatePrefix(part, prefix="part", min=1, max=16),
                    tooltip="The parts, in slot order.",
                ),
                io.Image.Input(
                    "reference_images", optional=True,
                    tooltip="One ready-made grid, or two to four whole objects of the wanted kind, for slot "
                            "one.",
                ),
                io.Combo.Input(
                    "placement", options=["random", "centred"], default="random",
                    tooltip="Where a part is put on its white canvas; the published priors learned random "
                            "places.",
                ),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xffffffffffffffff,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Determines the random places and the sketches.",
                ),
                io.Float.Input(
                    "sketch", default=0.0, min=0.0, max=1.0, step=0.05,
                    tooltip="Chance that a picture becomes a line sketch, of which only the shape counts.",
                ),
                io.Boolean.Input(
                    "reference_slot", default=False, advanced=True,
                    tooltip="Keep slot one for a reference even if there is none; the published characters "
                            "prior was trained with one.",
                ),
                io.Int.Input(
                    "min_slots", default=3, min=1, max=64, advanced=True,
                    tooltip="White slots are added up to this number; 3 as published.",
                ),
            ],
            outputs=[
                PartsType.Output(
                    display_name="parts", tooltip="The encoded parts, for IP-Prior Sample or Part Weight.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, clip_vision, ip_adapter: ManagedIPAdapter, parts: dict[str, Tensor], placement: str, seed: int,
        sketch: float, reference_slot: bool, min_slots: int, reference_images: Tensor | None = None,
    ) -> io.NodeOutput:
        reference = None if reference_images is None else to_pil(reference_images)
        # A prior that was trained with references takes what is in the first slot for one, so that slot must
        # stay free of parts even if there is no reference to put there.
        has_reference = reference_slot or reference is not None
        size = clip_vision.image_size
        slots = encoder_pictures(
            [picture for part in parts.values() for picture in to_pil(part)],
            reference=reference, reference_slot=has_reference, placement=placement, seed=seed,
            sketch_probability=sketch, min_slots=min_slots, size=size,
        )
        # The white picture is encoded along with the parts: its tokens stand for an empty slot.
        pixels = clip_pixel_values([*slots, white_image(size)], size)
        seen = encode_pixels(clip_vision, ip_adapter, pixels)
        made = made_by("Encode IP+ Parts", clip_vision, ip_adapter)
        made["notes"]["parts"] = str(len(slots))
        encoded = Parts(
            seen.tokens[:-1], seen.tokens[-1:], seen.uncond, reference=has_reference, **made
        )
        # White slots get exactly the tokens of the white picture: in a batch, equal pictures may come out
        # different in the last bits, and `Parts` knows empty slots by equality.
        for slot, picture in enumerate(pixels[:-1]):
            if picture.equal(pixels[-1]):
                encoded = encoded.weighed(slot, 0.0)
        return io.NodeOutput(encoded, ui=ui.PreviewImage(to_tensor(slots), cls=cls))


class EncodeImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_EncodeImage",
            display_name="Encode IP+ Image",
            category=CATEGORY,
            description="Encodes whole pictures as IP+ tokens, to vary or render them.",
            search_aliases=[
                "ipadapter encode", "image to tokens", "vary picture", "reference image", "image prompt",
            ],
            inputs=[
                io.ClipVision.Input("clip_vision", tooltip=CLIP_VISION_TOOLTIP),
                IPAdapterType.Input("ip_adapter", tooltip=IP_ADAPTER_TOOLTIP),
                io.Image.Input(
                    "image", tooltip="Each picture gives one set of tokens, from its center square.",
                ),
            ],
            outputs=[
                TokensType.Output(
                    display_name="tokens",
                    tooltip="One concept for each picture, for Apply IP+ Tokens or IP-Prior Sample.",
                ),
            ],
        )

    @classmethod
    def execute(cls, clip_vision, ip_adapter: ManagedIPAdapter, image: Tensor) -> io.NodeOutput:
        # White, and not the black that transparent pixels often hold: the ground that parts have as well.
        pictures = [on_white(picture) for picture in to_pil(image)]
        pixels = clip_pixel_values(pictures, clip_vision.image_size)
        encoded = encode_pixels(clip_vision, ip_adapter, pixels)
        made = made_by("Encode IP+ Image", clip_vision, ip_adapter)
        return io.NodeOutput(Tokens(encoded.tokens, encoded.uncond, encoded.features, **made))
