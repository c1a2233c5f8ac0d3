"""Reference pictures, and what the model reads of them."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import comfy.model_management
import torch
from comfy.latent_formats import LatentFormat
from comfy_api.latest import io, ui
from torch import Tensor, nn

from ...pit.files.published import file_kind
from ...pit.images import clip_pixel_values, on_white, to_pil
from ...pit.messages import ShortError, quoted
from ...pit.parts2whole.parts import (
    AS_PUBLISHED,
    AS_TRAINED,
    FITS,
    LABELS,
    LETTERBOX,
    STRETCH,
    WIRINGS,
    Placed,
    Wiring,
    check_references,
    placed,
    wiring,
)
from ...pit.parts2whole.published import NAME
from ...pit.parts2whole.references import LATENT_PIXEL, ReferenceTokens, reading, seen_mask
from ..bridge.feedback import progress_bar
from .types import (
    CATEGORY,
    EncodedReferences,
    ManagedParts2Whole,
    Parts2WholeType,
    ReferencePictures,
    ReferencesType,
    ReferenceType,
    vae_of,
)

AS_WIRED = "as wired"  # how pictures are fitted: as in training, or as published
WORDS = 77
# What a UNet of this kind takes for each latent pixel, as ComfyUI reckons, and the features that are kept.
VALUES_PER_PIXEL = 14_000
# Bounds the memory of an encoding, however many references there are, and lets Cancel in between.
PICTURES_AT_ONCE = 8


def sets_of(references: Sequence[ReferencePictures]) -> int:
    """How many pictures have references of their own. Raises ValueError if references differ in that."""
    counts = {len(each.image) for each in references} - {1}
    if len(counts) > 1:
        raise ValueError(
            f"Encode References expected every reference to have one picture, or all as many, got "
            f"{', '.join(str(len(each.image)) for each in references)}. Take the same number of each batch."
        )
    return counts.pop() if counts else 1


def all_placed(references: Sequence[ReferencePictures], size: tuple[int, int], fit: str) -> Placed:
    """References in the size of the picture, those of one picture after those of the other."""
    sets = [placed([each.of(number) for each in references], *size, fit)
            for number in range(sets_of(references))]
    return Placed(*(torch.cat(each) for each in zip(*sets, strict=True)))


def embedded_words(
    clip, words: Sequence[str], width: int, node: str = "Encode References", cut: bool = False
) -> Tensor:
    """Texts as the UNets read them, `[n, 77, D]`.

    Args:
        cut: take the beginning of a text that is too long.
    Raises:
        ValueError: the CLIP is of another kind, or a text is too long.
    """
    found = []
    for text in words:
        # Parentheses are words here, not weights, which a label has not.
        embedded = clip.encode_from_tokens(clip.tokenize(text, disable_weights=True))
        if embedded.shape[-1] != width:
            raise ValueError(
                f"{node} expected the CLIP of Stable Diffusion 1.5, of width {width}, got one of "
                f"width {embedded.shape[-1]}. Load the text encoder that `python -m pit download {NAME}` "
                "fetches, with the type stable_diffusion."
            )
        embedded = embedded[:, :WORDS] if cut else embedded
        if embedded.shape[1] != WORDS:
            raise ShortError(
                f"{node} expected a label of at most {WORDS - 2} tokens, got {quoted(text)}, "
                "which is longer. Write less."
            )
        found.append(embedded.float())
    return torch.cat(found)


def image_tokens(clip_vision, references: Sequence[ReferencePictures], width: int) -> Tensor:
    """An image token of each picture, without its mask, of one picture after those of the other `[S, R, D]`.

    Raises:
        ValueError: the encoder is of another kind.
    """
    sets = sets_of(references)
    pictures = [on_white(to_pil(each.of(number).image)[0]) for number in range(sets) for each in references]
    if clip_vision.model_type != "clip_vision_model":
        raise ValueError(
            f"Encode References expected a clip_vision_model as its CLIP_VISION, got a "
            f"{clip_vision.model_type}. {file_kind('parts2whole_image_encoder').where_to_get}"
        )
    comfy.model_management.load_models_gpu([clip_vision.patcher])
    found = []
    # The network is ComfyUI's, but its `encode_image` is not used: its preprocessing differs from Pillow's.
    for chunk in clip_pixel_values(pictures, clip_vision.image_size).split(PICTURES_AT_ONCE):
        comfy.model_management.throw_exception_if_processing_interrupted()
        seen = clip_vision.model(pixel_values=chunk.to(clip_vision.load_device))[2]
        found.append(seen.to(comfy.model_management.intermediate_device(), torch.float32))
    tokens = torch.cat(found).unflatten(0, (sets, -1))
    if tokens.shape[-1] != width:
        raise ValueError(
            f"Encode References expected an image encoder that projects to width {width}, got "
            f"{tokens.shape[-1]}. {file_kind('parts2whole_image_encoder').where_to_get}"
        )
    return checked("CLIP vision model", tokens)


def picture_latents(vae, pictures: Tensor, latents: LatentFormat) -> Tensor:
    """Latents of pictures `[N, 3, H, W]`, scaled for the UNets. Raises ValueError for another VAE."""
    check_vae("Encode References", vae, latents)
    return checked("VAE", latents.process_in(vae.encode(pictures.movedim(1, -1)).float()))


def check_vae(node: str, vae, latents: LatentFormat) -> None:
    """Raise ValueError for a VAE of other latents."""
    channels, pixel = latents.latent_channels, latents.spacial_downscale_ratio
    if vae.latent_channels != channels or vae.spacial_compression_encode() != pixel:
        raise ValueError(
            f"{node} expected {vae_of(latents)}, with {channels} latent channels, got one with "
            f"{vae.latent_channels}. For the published model, load sd-vae-ft-mse."
        )


def checked(what: str, values: Tensor) -> Tensor:
    """The values. Raises FloatingPointError unless they are finite."""
    if not values.isfinite().all():
        raise FloatingPointError(
            f"Encode References expected finite values from the {what}, got NaN or infinity: its file is "
            "damaged, or it runs in a type that is too narrow. Download it again, or run it in float32."
        )
    return values


@contextmanager
def watched(unet: nn.Module, done: Callable[[], None]) -> Iterator[int]:
    """Calls `done` after each block of a UNet, so that Cancel works within a pass; the number of blocks."""
    blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    hooks = [block.register_forward_hook(lambda *_: done()) for block in blocks]
    try:
        yield len(blocks)
    finally:
        for hook in hooks:
            hook.remove()


def write(
    parts: ManagedParts2Whole, latents: Tensor, labels: Tensor, masks: Tensor, wired: Wiring,
    strengths: Sequence[float], pictures: int = 1,
) -> dict[str, ReferenceTokens]:
    """What each block reads of references, those of one picture after those of the other.

    The reference UNet is only in memory for this one pass.

    Args:
        latents: `[N, C, h, w]`; labels: `[N, 77, D]`; masks: in the size of the pictures `[N, 1, H, W]`.
        pictures: how many have references of their own.
    """
    from ...pit.parts2whole.unets import write_references

    patcher = parts.reference_unet
    unet, bar = patcher.model.network, progress_bar()
    needed = latents[:, 0].numel() * VALUES_PER_PIXEL * unet.dtype.itemsize
    comfy.model_management.load_models_gpu([patcher], memory_required=needed)
    device, dtype = patcher.load_device, unet.dtype
    steps = iter(range(1, 1 << 30))
    rounds = len(latents) if wired.rounded else 1
    try:
        with watched(unet, lambda: bar(next(steps), total)) as blocks:
            total = blocks * rounds
            written = write_references(
                unet, latents.to(device, dtype), labels.to(device, dtype), wired.masks_of(masks).to(device),
                wired.rounded,
            )
    finally:
        comfy.model_management.unload_model_and_clones(patcher)
    here = comfy.model_management.intermediate_device()
    read = reading(written, strengths, pictures)
    return {block: moved(block, each, here) for block, each in read.items()}


def moved(block: str, read: ReferenceTokens, device: torch.device) -> ReferenceTokens:
    """What a block reads, on this device."""
    tokens, bias = read
    return ReferenceTokens(
        checked(f"reference UNet in {block}", tokens).to(device), None if bias is None else bias.to(device)
    )


def shown(masks: Tensor) -> Tensor:
    """Masks `[N, 1, H, W]` as pictures `[N, H, W, 3]`."""
    return masks.movedim(1, -1).expand(-1, -1, -1, 3).cpu()


class ReferencePart(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_ReferencePart",
            display_name="Reference Part",
            category=CATEGORY,
            description="One part of the whole: pictures of it, what it is, and where in them it is.",
            search_aliases=[
                "parts2whole", "reference image", "appearance", "face", "clothes", "outfit", "hair",
                "shoes", "try on", "person",
            ],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="A picture that shows the part; transparency is white, and masks it. A batch has "
                            "a picture for each picture of the latent batch.",
                ),
                io.Combo.Input(
                    "label", options=list(LABELS), default=LABELS[0],
                    tooltip="What the part is. These are the labels that the published model has learned.",
                ),
                io.String.Input(
                    "words", default="", optional=True,
                    tooltip="What the part is in other words, which replace the label.",
                ),
                io.Mask.Input(
                    "mask", optional=True,
                    tooltip="White on the part, of the size of the picture; Clothes Parser makes such masks. "
                            "Without one, all of the picture is read.",
                ),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=10.0, step=0.05, optional=True,
                    tooltip="How often the part counts: at 2 as if it were given twice, at 0 as if it were "
                            "not there.",
                ),
            ],
            outputs=[ReferenceType.Output(display_name="reference", tooltip="For Encode References.")],
        )

    @classmethod
    def execute(
        cls, image: Tensor, label: str, words: str = "", mask: Tensor | None = None, strength: float = 1.0,
    ) -> io.NodeOutput:
        # Masks come as [H, W], [B, H, W] or [B, 1, H, W], depending on the node that made them.
        masks = None if mask is None else mask.reshape(-1, *mask.shape[-2:])
        if masks is not None and len(masks) not in (1, len(image)):
            raise ValueError(
                f"Reference Part expected one mask, or one for each of {len(image)} pictures, got "
                f"{len(masks)}. Connect as many masks as pictures."
            )
        reference = ReferencePictures(image, words.strip() or label, masks, strength)
        for number in range(len(image)):
            one = reference.of(number)
            check_references([one])
            # Looked at now, so that this node is marked, and not the one that encodes it.
            placed([one], image.shape[2] // LATENT_PIXEL * LATENT_PIXEL or LATENT_PIXEL,
                   image.shape[1] // LATENT_PIXEL * LATENT_PIXEL or LATENT_PIXEL)
        return io.NodeOutput(reference)


class EncodeReferences(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        reference = ReferenceType.Input("reference", tooltip="A part, from Reference Part.")
        return io.Schema(
            node_id="PiT_EncodeReferences",
            display_name="Encode References",
            category=CATEGORY,
            description=(
                "Reads all references once, at the size of the picture to make; shows every mask as the "
                "network sees it."
            ),
            search_aliases=[
                "parts2whole", "reference unet", "appearance encoder", "person", "character", "outfit",
            ],
            # Its masks are kept like those of an output node, but the node only runs if another needs it.
            has_intermediate_output=True,
            inputs=[
                Parts2WholeType.Input("parts2whole", tooltip="From Load Parts2Whole."),
                io.Clip.Input("clip", tooltip="The text encoder of Stable Diffusion 1.5, for the labels."),
                io.Vae.Input("vae", tooltip="The VAE of Stable Diffusion 1.5; sd-vae-ft-mse as published."),
                io.ClipVision.Input(
                    "clip_vision", tooltip="The image encoder CLIP ViT-L/14 with its projection.",
                ),
                io.Latent.Input(
                    "latent", tooltip="The latents to sample, for their size: references are read at that "
                                      "of the picture.",
                ),
                io.Autogrow.Input(
                    "references",
                    template=io.Autogrow.TemplatePrefix(reference, prefix="reference", min=1, max=100),
                    tooltip="The parts, each with a label of its own. Another input appears for each that "
                            "is connected.",
                ),
                io.Combo.Input(
                    "wiring", options=list(WIRINGS), default=AS_TRAINED,
                    tooltip=f"{AS_TRAINED}: every part has its own label and mask, and the prompt counts. "
                            f"{AS_PUBLISHED}: with the mistakes of the published pipeline, whose first label "
                            "replaces all others and the prompt, and which ignores the masks.",
                ),
                io.Combo.Input(
                    "fit", options=[AS_WIRED, *FITS], default=AS_WIRED, optional=True, advanced=True,
                    tooltip="For pictures of another aspect: letterbox on white that is masked out, as wired "
                            f"{AS_TRAINED}; crop to the middle; or stretch, as wired {AS_PUBLISHED}.",
                ),
            ],
            outputs=[
                ReferencesType.Output(display_name="references", tooltip="For Apply Parts2Whole."),
                io.Image.Output(display_name="pictures", tooltip="The references as they were read."),
                io.Mask.Output(
                    display_name="masks", tooltip="What of them is read, as the network sees it.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, parts2whole: ManagedParts2Whole, clip, vae, clip_vision, latent: dict[str, Tensor],
        references: Mapping[str, ReferencePictures], wiring: str, fit: str = AS_WIRED,
    ) -> io.NodeOutput:
        encoded, seen = encode_references(
            parts2whole, clip, vae, clip_vision, parts2whole.picture_size(latent), list(references.values()),
            wiring, fit,
        )
        masks = seen_mask(encoded.wiring.masks_of(seen.masks), parts2whole.guider.latent_pixel)
        return io.NodeOutput(
            encoded, seen.pictures.movedim(1, -1), masks[:, 0], ui=ui.PreviewImage(shown(masks), cls=cls)
        )


def encode_references(
    parts: ManagedParts2Whole, clip, vae, clip_vision, size: tuple[int, int],
    references: Sequence[ReferencePictures], wired: str = AS_TRAINED, fit: str = AS_WIRED,
) -> tuple[EncodedReferences, Placed]:
    """References for pictures of this width and height, and the pictures and masks that were encoded.

    Raises:
        ValueError: references or models do not fit.
        FloatingPointError: a model gives values that are not finite.
    """
    chosen = wiring(wired)
    # Labels that appear twice are found before anything is computed.
    check_references([each.of(0) for each in references])
    if fit == AS_WIRED:
        fit = LETTERBOX if chosen.own_labels else STRETCH
    seen = all_placed(references, size, fit)
    labels = embedded_words(clip, [each.label for each in references], parts.word_dim)
    images = image_tokens(clip_vision, references, parts.image_attention.token_dim)
    chosen.tokens(labels[:1], images[:1])  # what cannot be read is found now, and not by the sampler
    told, sets = chosen.texts(labels, labels)[0], len(images)
    latents = picture_latents(vae, seen.pictures, parts.latents)
    tokens = write(
        parts, latents, told.repeat(sets, 1, 1), seen.masks, chosen,
        [each.strength for each in references], sets,
    )
    return EncodedReferences(tokens, images, labels[:1], chosen), seen
