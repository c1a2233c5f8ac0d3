"""Whatever comes in: one clear error, the server alive, and the next graph fine."""

import itertools
import pickle
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.comfyui.nodes.graphs import encode_graph, node, render_graph, sample_graph
from tests.comfyui.nodes.published import INNER_DIMS, prior_state, write_ip_adapter, write_prior

fresh_seed = itertools.count(1000)


@pytest.fixture
def complaint(lab):
    """Runs a graph that must fail; returns its one error, after a good graph has run."""
    def run(graph, status="error"):
        result = lab.queue(graph)
        assert result.status == status, result.error
        assert len(re.findall(r"node \w+ \(", result.error)) == 1, result.error
        after = lab.queue(sample_graph(sample__seed=next(fresh_seed)))
        assert after.status == "success", after.error
        return result.error

    return run


@pytest.fixture
def models(lab):
    return lab.base / "models"


def says(message, *words):
    missing = [word for word in words if word not in message]
    assert not missing, f"{missing} missing in: {message}"


def test_no_parts(complaint):
    graph = encode_graph()
    del graph["parts"]["inputs"]["parts.part0"]
    says(complaint(graph, "refused"), "Required input is missing", "part0")


def test_an_empty_batch_of_parts(complaint):
    says(complaint(encode_graph(picture__count=0)), "PiT_EncodeParts", "got shape [0, 40, 30, 3]")


def test_a_picture_with_five_channels(complaint):
    says(complaint(encode_graph(picture__channels=5)), "PiT_EncodeParts", "1, 3 or 4", "[2, 40, 30, 5]")


def test_five_reference_images(complaint):
    five = node("Tiny_Image", count=5, height=8, width=8, channels=3)
    says(complaint(encode_graph(five=five, parts__reference_images=["five", 0])), "one to four", "got 5")


@pytest.mark.parametrize("height, width", [(1, 1), (1, 900), (900, 1), (3000, 2)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_odd_parts_are_no_error(lab, height, width, channels):
    graph = encode_graph(picture=node("Tiny_Image", count=1, height=height, width=width, channels=channels))
    result = lab.queue(graph)
    assert result.status == "success", result.error


def cut_graph(mask_size, output, count=1):
    return {
        "picture": node("Tiny_Image", count=1, height=40, width=30, channels=3),
        "mask": node("Tiny_Image", count=count, height=mask_size[0], width=mask_size[1], channels=3),
        "cut": node("PiT_CutOutPart", image=["picture", 0], mask=["mask", output]),
        "loaded": node("Tiny_Loaded", after=["cut", 0]),
    }


def test_a_mask_of_another_size(complaint):
    says(complaint(cut_graph((64, 64), 1)), "PiT_CutOutPart", "30x40", "64x64")


def test_an_empty_mask(complaint):
    says(complaint(cut_graph((40, 30), 2)), "PiT_CutOutPart", "empty")


def test_several_masks(complaint):
    says(complaint(cut_graph((40, 30), 1, count=3)), "one picture and one mask", "1 pictures and 3 masks")


def test_an_image_encoder_of_another_width(complaint):
    message = complaint(encode_graph(tiny__vision_width=128))
    says(message, "tiny.safetensors", "width 64", "width 128", "clip-vit-h")


def test_tokens_for_a_prior_of_another_width(complaint, models):
    write_prior(models / "ip_prior" / "narrow.ckpt", token_dim=48)
    says(
        complaint(sample_graph(prior__file="narrow.ckpt")),
        "narrow.ckpt", "width 48", "Encode IP+ Parts with tiny.safetensors", "width 96",
    )


def test_tokens_for_an_adapter_of_another_width(complaint, models):
    write_ip_adapter(models / "ipadapter" / "narrow.safetensors", token_dim=48)
    other = node("PiT_LoadIPAdapter", file="narrow.safetensors")
    says(
        complaint(render_graph(other=other, apply__ip_adapter=["other", 0])),
        "narrow.safetensors", "width 48", "IP-Prior Sample with characters/prior.ckpt", "width 96",
    )


def test_an_adapter_that_makes_another_number_of_tokens(complaint, models):
    path = write_ip_adapter(models / "ipadapter" / "fewer.safetensors")
    state = load_file(path)
    state["image_proj.latents"] = state["image_proj.latents"][:, :8].contiguous()
    save_file(state, path)
    other = node("PiT_LoadIPAdapter", file="fewer.safetensors")
    says(
        complaint(render_graph(other=other, apply__ip_adapter=["other", 0])),
        "fewer.safetensors", "makes 16 tokens", "makes 8",
    )


def test_an_adapter_for_another_model(complaint, models):
    write_ip_adapter(models / "ipadapter" / "shorter.safetensors", inner_dims=INNER_DIMS[:-1])
    other = node("PiT_LoadIPAdapter", file="shorter.safetensors")
    says(
        complaint(render_graph(other=other, apply__ip_adapter=["other", 0])),
        "shorter.safetensors", "16 cross-attention layers", "got one with 17", "[64, 128]",
    )


def test_steps_zero(complaint):
    says(complaint(sample_graph(sample__steps=0), "refused"), "Value 0 smaller than min of 1", "steps")


def test_a_guidance_that_is_no_number(complaint):
    says(complaint(sample_graph(sample__guidance=float("nan"))), "finite number for guidance_scale")


def test_start_of_another_number(complaint):
    encode = node("PiT_EncodeImage", clip_vision=["tiny", 3], ip_adapter=["adapter", 0], image=["picture", 0])
    says(complaint(sample_graph(start=encode, sample__start=["start", 0])), "3 concepts", "got 2 sets")


def test_a_latent_batch_that_does_not_match(complaint):
    says(complaint(render_graph(latent__batch_size=4)), "multiple of 3 images", "got 4 images", "batch_size")


def test_a_file_that_is_not_there(complaint):
    says(
        complaint(sample_graph(prior__file="plush/prior.ckpt"), "refused"),
        "'plush/prior.ckpt'", "models/ip_prior", "characters/prior.ckpt", "python -m pit download",
    )


class Payload:
    """Pickled code: it would write a file while it is loaded."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return open, (str(self.canary), "w")


def lora():
    return {"unet.down_blocks.1.attentions.0.to_q.lora.down.weight": torch.zeros(4, 8)}


def stable_diffusion():
    return {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4, 4, 3, 3)}


def not_finite():
    state = prior_state()
    state["layers.1.attention.wq.weight"][3, 4] = float("nan")
    return state


@pytest.mark.parametrize("state, words", [
    (lora, ["a LoRA"]), (stable_diffusion, ["a diffusion model"]), (not_finite, ["layers.1.attention.wq"]),
])
def test_a_file_that_is_no_prior(complaint, models, state, words):
    name = f"{state.__name__}.safetensors"
    save_file(state(), models / "ip_prior" / name)
    says(complaint(sample_graph(prior__file=name)), "PiT_LoadIPPrior", name, *words)


def test_a_prior_that_is_an_ip_adapter_and_the_other_way_round(complaint, models):
    write_ip_adapter(models / "ip_prior" / "swapped.safetensors")
    says(complaint(sample_graph(prior__file="swapped.safetensors")), "swapped.safetensors", "IP-Adapter")
    save_file(prior_state(), models / "ipadapter" / "swapped.safetensors")
    says(complaint(encode_graph(adapter__file="swapped.safetensors")), "swapped.safetensors", "IP-Prior")


def test_a_truncated_file(complaint, models):
    whole = write_prior(models / "ip_prior" / "whole" / "prior.ckpt").read_bytes()
    (models / "ip_prior" / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    says(complaint(sample_graph(prior__file="cut.ckpt")), "PiT_LoadIPPrior", "cut.ckpt")


def test_a_pickle_with_code_in_it(complaint, models, tmp_path):
    canary = tmp_path / "canary"
    torch.save({"x_embedder.weight": Payload(canary)}, models / "ip_prior" / "hostile.ckpt")
    (models / "ip_prior" / "bare.ckpt").write_bytes(pickle.dumps(Payload(canary)))
    for name in ("hostile.ckpt", "bare.ckpt"):
        says(complaint(sample_graph(prior__file=name)), "PiT_LoadIPPrior", name)
    assert not canary.exists()


def test_a_number_of_heads_that_does_not_fit(complaint):
    says(complaint(sample_graph(prior__num_heads=5)), "PiT_LoadIPPrior", "64", "5")
