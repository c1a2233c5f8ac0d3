"""The benchmark of the true sizes at tiny ones: what its probes record, and what it compares that with."""

import json

import pytest
import torch
from safetensors.torch import save_file

from dev import ROOT
from tests.comfyui.nodes.inside import load_package
from tests.comfyui.nodes.published import write_ip_adapter, write_prior
from tests.comfyui.nodes.test_layer_map import diffusers_twin
from tests.comfyui.nodes.test_single_file import unet_state, write_configs

BENCHMARK = ROOT / "benchmarks" / "full_size"
SAMPLING = {"seed": 3, "steps": 4, "cfg": 5.0}
PRIOR = {"seed": 2, "steps": 5, "guidance": 2.0}
HEADS, RANK = 4, 4
CLOSE = 1e-5


@pytest.fixture(scope="module")
def references():
    pytest.importorskip("diffusers")
    from benchmarks.full_size import references

    return references


@pytest.fixture(scope="module")
def probe(inside):
    """`probe(kind, value, folder, name)`: the value behind the node."""
    node = load_package("full_size_probes", BENCHMARK / "probes").Probe
    return lambda kind, value, folder, name: node.execute(value, kind, str(folder), name).args[0]


@pytest.fixture(scope="module")
def vision(inside, tmp_path_factory):
    """A tiny CLIP in ComfyUI, and the folder that transformers reads it from."""
    encoder, folder = inside.tiny.tiny_clip_vision(), tmp_path_factory.mktemp("image_encoder")
    # ComfyUI keeps it in half precision.
    state = {key: value.float().contiguous() for key, value in encoder.get_sd().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(inside.tiny.CLIP_VISION))
    return encoder, folder


def encoded(inside, probe, vision, adapter, folder):
    """Encode IP+ Image and Encode IP+ Parts behind the probes."""
    encoder = probe("vision", vision[0], folder, "vision")
    adapter = probe("adapter", adapter, folder, "adapter")
    picture = torch.rand(1, 40, 30, 3, generator=torch.Generator().manual_seed(1))
    nodes = inside.nodes("parts")
    parts = nodes.EncodeParts.execute(
        encoder, adapter, {"part0": picture}, "centred", 0, 0.0, reference_slot=True, min_slots=3
    ).args[0]
    return adapter, probe("values", parts, folder, "parts")


def write_lora(path, inside):
    """A LoRA as diffusers saves it, on all projections of all attentions."""
    from benchmarks.full_size.files import lora_state

    names = inside.comfy("utils").unet_to_diffusers(inside.tiny.UNET)
    shapes, weights = {}, unet_state(inside.tiny.tiny_sdxl())
    for key, name in names.items():
        if ".to_" in key and key.endswith("weight"):
            (out, width), module = weights[f"model.diffusion_model.{name}"].shape, key.removesuffix(".weight")
            shapes[f"unet.{module}.lora.down.weight"] = (RANK, width)
            shapes[f"unet.{module}.lora.up.weight"] = (out, RANK)
    state = lora_state(shapes, seed=9)
    save_file(state, path)
    return path


@pytest.fixture(scope="module")
def renderer(inside, references, tmp_path_factory):
    """The tiny SDXL by diffusers, out of a single file, with the tiny adapter."""
    diffusers, folder = pytest.importorskip("diffusers"), tmp_path_factory.mktemp("renderer")
    model = inside.tiny.tiny_sdxl()
    save_file(
        {key: value.contiguous() for key, value in unet_state(model).items()}, folder / "sdxl.safetensors"
    )
    twin = diffusers_twin(diffusers, inside, model.model.diffusion_model)
    configs = write_configs(folder / "configs", twin)
    adapter = write_ip_adapter(folder / "adapter.safetensors")
    return references.Renderer(folder / "sdxl.safetensors", adapter, configs)


def rendered(inside, probe, model, folder):
    """What KSampler does, behind the probes."""
    model = probe("unet", model, folder, "unet")
    positive, negative = inside.tiny.conditioning(2), inside.tiny.conditioning(3)
    sample, latent = inside.comfy("sample"), torch.zeros(1, 4, 16, 16)
    with torch.inference_mode():
        noise = sample.prepare_noise(latent, SAMPLING["seed"])
        samples = sample.sample(
            model, noise, SAMPLING["steps"], SAMPLING["cfg"], "euler", "normal", positive, negative, latent
        )
    probe("values", {"samples": samples}, folder, "latents")


def test_the_chain_up_to_a_concept_equals_the_references(inside, references, probe, vision, tmp_path):
    captures, chain = tmp_path / "captured", references.Chain("tiny", tmp_path / "captured")
    adapter_file = write_ip_adapter(tmp_path / "adapter.safetensors")
    prior_file = write_prior(tmp_path / "prior.ckpt")
    with torch.inference_mode():
        _, parts = encoded(inside, probe, vision, inside.ip_adapter(), captures)
        prior = probe("prior", inside.nodes("loading").load_prior(prior_file, "tiny"), captures, "prior")
        concept = inside.nodes("prior").SamplePrior.execute(
            prior, parts, PRIOR["seed"], 1, PRIOR["steps"], PRIOR["guidance"], "euler", 0.6
        ).args[0]
        for name in ("tokens", "as_chosen"):
            probe("values", concept, captures, name)
    with torch.no_grad():
        references.compare_features([chain], vision[1])
        references.compare_tokens([chain], adapter_file)
        references.compare_concepts(chain, prior_file, HEADS, PRIOR)
    assert chain.encoded.shape == (5, 16, 96)  # three slots, the white picture, and the gray one
    assert set(chain.errors) == {"features", "tokens", "concepts", "concepts as the node chooses"}
    assert all(0 <= each < CLOSE for each in chain.errors.values()), chain.errors
    assert (chain.tokens - chain.encoded[:1]).abs().max() > 0.1


@pytest.mark.parametrize("with_lora, same_tokens", [(False, False), (True, True)])
def test_pictures_equal_the_references(inside, references, probe, renderer, tmp_path, with_lora, same_tokens):
    model, tokens, captures = inside.tiny.tiny_sdxl(), inside.tokens(1), tmp_path / "captured"
    lora = write_lora(tmp_path / "lora.safetensors", inside) if with_lora else None
    if lora is not None:
        nodes = inside.nodes("ip_lora")
        model, report = nodes.apply_ip_lora(
            model, nodes.read_lora(lora), "tiny", 1.0, nodes.parse_block_strengths("")
        )
        assert "; not" not in report
    negative = "same tokens" if same_tokens else "grey picture"
    probe("values", tokens, captures, "tokens")
    rendered(inside, probe, inside.apply(model, inside.ip_adapter(), tokens, negative=negative), captures)

    chain = references.Chain("tiny", captures, tokens=tokens.values, uncond=tokens.uncond)
    with torch.no_grad(), renderer.lora(lora):
        renderer.compare_unet(chain, same_tokens)
        renderer.compare_latents(chain, SAMPLING)
    assert len(chain.stage("unet")) == SAMPLING["steps"]
    assert all(0 <= each < CLOSE for each in chain.errors.values()), chain.errors
    # The comparison is not blind: another strength of the LoRA, or other tokens, are far away.
    chain.tokens = chain.tokens.flip(-1)
    with torch.no_grad(), renderer.lora(None):
        renderer.compare_latents(chain, SAMPLING)
    assert chain.errors["latents"] > 1e-2


def test_tokens_of_no_encoded_picture_are_refused(inside, references, probe, vision, tmp_path):
    with torch.inference_mode():
        encoded(inside, probe, vision, inside.ip_adapter(), tmp_path)
    chain = references.Chain("tiny", tmp_path)
    chain.encoded = chain.stage("adapter")[0]["tokens"]
    with pytest.raises(ValueError, match="^Expected slots that hold tokens of the encoded pictures of tiny"):
        references.reference_of(chain.encoded[:1] + 1e-3, chain)


def test_the_layout_of_a_single_file_is_the_published_one(inside):
    """Parts by their sizes: 2.57 billion weights of the UNet, two text encoders, and the VAE."""
    shapes = load_package("full_size_probes", BENCHMARK / "probes").sdxl_shapes()
    text = "conditioner.embedders."
    counts = dict.fromkeys(("model.diffusion_model.", "first_stage_model.", f"{text}0.", f"{text}1."), 0)
    for key, shape in shapes.items():
        (prefix,) = (each for each in counts if key.startswith(each))
        counts[prefix] += torch.Size(shape).numel()
    assert list(counts.values()) == [2_567_463_684, 83_653_863, 123_060_480, 694_659_841]
