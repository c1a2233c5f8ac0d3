"""The decoder of Kandinsky 2.2 drawn by ComfyUI's own sampler and decoder, against diffusers' pipeline."""

from __future__ import annotations

import sys
import weakref
from dataclasses import replace

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.schedulers import scheduling_ddpm
from safetensors.torch import load_file, save_file

from pit.pops.embeddings import Embedding
from pit.pops.kandinsky import GUIDANCE, guided_prediction, load_movq, load_unet
from tests.comfyui.nodes.graphs import node
from tests.golden import assert_equal, relative_error
from tests.pops.test_kandinsky import CONFIG, IO, write_part

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folder(golden, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kandinsky")
    for part in ("unet", "movq"):
        write_part(golden, folder, part)
    return folder


@pytest.fixture(scope="module")
def kandinsky(inside):
    return inside.pack("nodes.pops.kandinsky")


@pytest.fixture(scope="module")
def model(kandinsky, folder):
    return kandinsky.load_decoder(folder / "unet" / WEIGHTS)


@pytest.fixture(scope="module")
def vae(kandinsky, folder):
    return kandinsky.load_autoencoder(folder)


@pytest.fixture(scope="module")
def prompts(inside):
    return inside.pack("nodes.pops.decoding").KandinskyConditioning


@pytest.fixture(scope="module")
def published(golden) -> dict[str, torch.Tensor]:
    return golden.tensors(IO)


@pytest.fixture(scope="module")
def embedding(published) -> Embedding:
    return Embedding(published["image_embeds"], published["negative_image_embeds"], source="a test")


def several(count: int, embedding: Embedding) -> Embedding:
    noise = torch.randn(count, embedding.width, generator=torch.Generator().manual_seed(3))
    return replace(embedding, values=noise)


class Noises:
    """Puts given noise where ComfyUI draws its own, and keeps the latents before each step."""

    def __init__(self, inside, monkeypatch):
        self.inside, self.patch, self.seen = inside, monkeypatch, []

    def give(self, first: torch.Tensor, steps) -> None:
        noises = iter(steps)
        self.patch.setattr(self.inside.comfy("sample"), "prepare_noise", lambda *_: first.clone())
        self.patch.setattr(
            self.inside.comfy("k_diffusion.sampling"), "default_noise_sampler",
            lambda x, seed=None: lambda sigma, following: next(noises),
        )

    def watch(self, model) -> None:
        """Keep what the UNet sees as its first row."""
        def seen(x: torch.Tensor, *given, **named) -> torch.Tensor:
            self.seen.append(x[:1])
            return forward(x, *given, **named)

        forward = model.model.diffusion_model.forward
        self.patch.setattr(model.model.diffusion_model, "forward", seen)


@pytest.fixture
def noises(inside, monkeypatch) -> Noises:
    return Noises(inside, monkeypatch)


def k_sampler(name: str = "KSampler"):
    return getattr(sys.modules["nodes"], name)()


def empty(*shape: int) -> dict[str, torch.Tensor]:
    return {"samples": torch.zeros(shape)}


@torch.inference_mode()
def draw(model, positive, negative, latent, steps: int = 2, cfg: float = GUIDANCE, seed: int = 0):
    """What the stock KSampler makes."""
    return k_sampler().sample(
        model, seed, steps, cfg, "ddpm", "ddim_uniform", positive, negative, latent)[0]["samples"]


@torch.inference_mode()
def test_the_stock_sampler_and_decoder_draw_the_published_picture(
    golden, model, vae, prompts, embedding, published, noises
):
    steps, shape = len(published["timesteps"]), published["init_latents"].shape
    noises.give(published["init_latents"], published["step_noise"])
    noises.watch(model)
    positive, negative = prompts.execute(embedding).args
    # ddim_uniform has one step more than were asked for where 1000 is no multiple of them: the highest.
    found = k_sampler("KSamplerAdvanced").sample(
        model, "enable", 0, steps, golden.facts(CONFIG)["guidance_scale"], "ddpm", "ddim_uniform",
        positive, negative, empty(*shape), int(1000 % steps > 0), 10000, "disable",
    )[0]["samples"]
    assert len(noises.seen) == steps
    for seen, expected in zip(noises.seen, [published["init_latents"], *published["latents"]], strict=False):
        assert_equal(seen, expected)
    assert_equal(found, published["latents"][-1])
    picture = sys.modules["nodes"].VAEDecode().decode(vae, {"samples": found})[0]
    # The decoder with random weights magnifies the last digits of the latents two hundred times.
    assert relative_error(picture, published["image"]) < 1e-3


@torch.inference_mode()
def test_the_stock_decoder_decodes_what_the_published_one_does(vae, published):
    found = sys.modules["nodes"].VAEDecode().decode(vae, {"samples": published["movq.z"]})[0]
    expected = (published["movq.decoded_noquant"] / 2 + 0.5).clamp(0, 1).movedim(1, -1)
    assert_equal(found, expected)


@torch.inference_mode()
def test_a_picture_becomes_the_latents_of_the_published_encoder(vae, folder):
    picture = torch.rand(2, 64, 128, 3, generator=torch.Generator().manual_seed(1))
    found = sys.modules["nodes"].VAEEncode().encode(vae, picture)[0]["samples"]
    assert_equal(found, load_movq(folder).encode(picture.movedim(-1, 1) * 2 - 1).latents)


@torch.inference_mode()
@pytest.mark.parametrize("cfg", [GUIDANCE, 1.0])
def test_a_batch_is_drawn_as_by_the_published_scheduler(
    golden, folder, model, prompts, embedding, noises, monkeypatch, cfg
):
    """Five steps, which ddim_uniform places as published, of two embeddings."""
    both, unet = several(2, embedding), load_unet(folder)
    first, *steps = torch.randn(6, 2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    noises.give(first, steps)
    found = draw(model, *prompts.execute(both).args, empty(2, 4, 8, 8), 5, cfg)
    scheduler, drawn = DDPMScheduler(**golden.facts(CONFIG)["scheduler"]), iter(steps)
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: next(drawn))
    scheduler.set_timesteps(5)
    latents = first
    for t in scheduler.timesteps:
        noise = guided_prediction(unet, latents, t, both.values, both.negative, cfg)
        latents = scheduler.step(noise, t, latents).prev_sample
    assert_equal(found, latents)


def test_each_image_follows_its_own_embedding(model, prompts, embedding):
    both = several(2, embedding)
    together = draw(model, *prompts.execute(both).args, empty(4, 4, 8, 8))
    swapped = replace(both, values=both.values.flip(0))
    other = draw(model, *prompts.execute(swapped).args, empty(4, 4, 8, 8))
    assert all((together[image] - other[image]).abs().max() > 1e-3 for image in range(4))
    one = replace(both, values=both.values[:1])
    alone = draw(model, *prompts.execute(one).args, empty(4, 4, 8, 8))
    assert_equal(alone[::2], together[::2])
    assert (alone[1::2] - together[1::2]).abs().max() > 1e-3


def test_another_negative_is_led_away_from(model, prompts, embedding):
    plain, other = prompts.execute(embedding).args, prompts.execute(embedding, several(1, embedding)).args
    assert torch.equal(plain[1][0][0][:, 0], embedding.negative)
    found = [draw(model, *each, empty(1, 4, 8, 8)) for each in (plain, other)]
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_a_picture_may_be_the_start(model, vae, prompts, embedding):
    latent = {"samples": vae.encode(torch.rand(1, 64, 64, 3))}
    positive, negative = prompts.execute(embedding).args
    with torch.inference_mode():
        found = k_sampler().sample(
            model, 0, 4, 4.0, "ddpm", "ddim_uniform", positive, negative, latent, 0.5)[0]["samples"]
    assert found.isfinite().all() and not torch.equal(found, latent["samples"])


def test_comfyui_loads_the_networks_and_can_keep_each_layer_offloaded(inside, model, vae, prompts, embedding):
    draw(model, *prompts.execute(embedding).args, empty(1, 4, 8, 8))
    vae.decode(torch.zeros(1, 4, 8, 8))
    loaded = [each.model.model for each in inside.comfy("model_management").current_loaded_models]
    for network in (model.model, vae.first_stage_model):
        assert any(each is network for each in loaded)
        owners = [layer for layer in network.modules() if list(layer.parameters(recurse=False))]
        assert owners and all(layer.comfy_cast_weights for layer in owners)


def test_layers_that_stay_offloaded_compute_the_same(kandinsky, folder, model, published):
    part = kandinsky.load_decoder(folder / "unet" / WEIGHTS, disable_dynamic=True)
    part.load(torch.device("cpu"), lowvram_model_memory=1)
    assert part.model.model_lowvram
    given = published["unet.x"], published["unet.t"]
    with torch.inference_mode():
        found, expected = (
            each.model.diffusion_model(*given, image_embeds=published["unet.image_embeds"])
            for each in (part, model)
        )
    assert torch.equal(found, expected)
    assert_equal(found, published["unet.out"][:, :found.shape[1]])


def test_nothing_keeps_the_decoder_when_its_users_are_gone(inside, kandinsky, folder, prompts, embedding):
    management = inside.comfy("model_management")
    decoder, vae = kandinsky.load_decoder(folder / "unet" / WEIGHTS), kandinsky.load_autoencoder(folder)
    vae.decode(draw(decoder, *prompts.execute(embedding).args, empty(1, 4, 8, 8), 1))
    networks = [weakref.ref(decoder.model.diffusion_model), weakref.ref(vae.first_stage_model)]
    del decoder, vae
    management.unload_all_models()
    management.cleanup_models_gc()
    assert [network() for network in networks] == [None, None]


def test_weights_of_half_the_size_are_cast_where_they_are_used(
    inside, kandinsky, folder, model, prompts, embedding, monkeypatch
):
    management = inside.comfy("model_management")
    monkeypatch.setattr(management, "unet_dtype", lambda **_: torch.bfloat16)
    monkeypatch.setattr(management, "unet_manual_cast", lambda *_: torch.float32)
    half = kandinsky.load_decoder(folder / "unet" / WEIGHTS)
    assert {each.dtype for each in half.model.diffusion_model.parameters()} == {torch.bfloat16}
    given = (*prompts.execute(embedding).args, empty(1, 4, 8, 8))
    assert 0 < relative_error(draw(half, *given), draw(model, *given)) < 0.05


def test_a_copy_has_weights_of_its_own(model, vae):
    for patcher in (model, vae.patcher):
        load, given = patcher.cached_patcher_init
        copy = load(*given, disable_dynamic=True)
        ours, theirs = (dict(each.model.named_parameters()) for each in (patcher, copy))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) and ours[key] is not theirs[key] for key in ours)


def test_a_cancel_ends_the_drawing(model, prompts, embedding, cancel_at, inside):
    seen = cancel_at(1)
    with pytest.raises(inside.comfy("model_management").InterruptProcessingException):
        draw(model, *prompts.execute(embedding).args, empty(1, 4, 8, 8), 20)
    assert len(seen) == 1


def test_an_empty_latent_has_the_published_size(inside, model, embedding):
    found = inside.nodes("latent").EmptyLatent.execute(model, several(3, embedding), 2, 100).args[0]
    assert found["samples"].shape == (6, 4, 64, 64)


def test_what_the_decoder_cannot_draw_is_refused(inside, model, prompts, embedding):
    positive, negative = prompts.execute(embedding).args
    width, words = embedding.width, [[torch.zeros(1, 77, embedding.width), {}]]
    narrow = Embedding(torch.zeros(1, 9), torch.zeros(1, 9), source="a narrow test")
    longer = [[torch.cat([positive[0][0]] * 2, 1), positive[0][1]]]
    two = prompts.execute(several(2, embedding)).args
    for given, shape, message in (
        ((words, negative), (1, 4, 8, 8), "expected an image embedding as its prompt, got a conditioning"),
        ((positive, words), (1, 4, 8, 8), "expected an image embedding as its prompt"),
        (prompts.execute(narrow).args, (1, 4, 8, 8), f"of width {width}, got .* narrow test of width 9"),
        ((longer, negative), (1, 4, 8, 8), "one embedding for each picture, got 2"),
        (two, (3, 4, 8, 8), "a multiple of 2 images in the latent batch for 2 concepts, got 3"),
        (two, (1, 4, 8, 8), "a multiple of 2 images in the latent batch for 2 concepts, got 1"),
        ((positive, negative), (1, 4, 7, 8), r"multiples of \d+ pixels, got 64 x 56"),
    ):
        with pytest.raises(inside.pack("nodes.bridge.errors").InputProblem, match=message):
            draw(model, *given, empty(*shape))


def test_a_controlnet_is_refused(inside, model, embedding):
    unet = model.model.diffusion_model
    with pytest.raises(inside.pack("nodes.bridge.errors").InputProblem, match="expected no ControlNet"):
        unet(torch.zeros(1, 4, 8, 8), torch.zeros(1), control={}, image_embeds=embedding.values)


def test_embeddings_that_do_not_fit_are_refused(prompts, embedding):
    other = replace(embedding, negative=-embedding.negative, source="another encoder")
    for given, message in (
        ((replace(embedding, space="normalized"),), "expected a raw embedding, got a normalized one from a"),
        ((embedding, replace(embedding, space="normalized")), "expected a raw embedding, got a normalized"),
        ((replace(embedding, values=embedding.values / 0),), "expected finite numbers, got NaN or infinite"),
        ((replace(embedding, negative=embedding.negative * torch.nan),), "expected finite numbers, got NaN"),
        ((embedding, replace(embedding, values=embedding.values / 0)), "expected finite numbers, got NaN"),
        ((embedding, other), "Expected embeddings of one image encoder, got .*another encoder"),
        ((replace(embedding, negative=None),), "expected a negative, .* got none. Connect Encode Image"),
        ((several(2, embedding), several(3, embedding)), "as many embeddings in each input, or one, got 2"),
    ):
        with pytest.raises(ValueError, match=message):
            prompts.execute(*given)


# In a server, as a graph asks for them.


@pytest.fixture(scope="module")
def files(comfyui, golden):
    folder = comfyui.base / "models/kandinsky_decoder"
    for part in ("unet", "movq"):
        write_part(golden, folder / "tiny", part)
    write_part(golden, folder / "alone", "unet")
    (folder / "broken").mkdir(exist_ok=True)
    (folder / "broken/a.safetensors").write_bytes(b"nothing")
    save_file({"a": torch.zeros(1)}, folder / "broken/other.safetensors")
    embeddings = comfyui.base / "models/image_embeddings"
    embeddings.mkdir(exist_ok=True)
    io = golden.tensors(IO)
    names = ("image_embeds", "negative_image_embeds")
    save_file({name: io[name] for name in names}, embeddings / "kandinsky.safetensors")
    return folder


def drawing(**changes) -> dict:
    graph = {
        "decoder": node("PiT_LoadKandinskyDecoder", file=f"tiny/unet/{WEIGHTS}", movq="beside the decoder"),
        "embedding": node("PiT_LoadEmbedding", file="kandinsky.safetensors", bare_tensors="raw"),
        "prompts": node("PiT_KandinskyConditioning", embedding=["embedding", 0]),
        "latent": node("EmptyLatentImage", width=64, height=128, batch_size=2),
        "sampler": node(
            "KSampler", model=["decoder", 0], positive=["prompts", 0], negative=["prompts", 1],
            latent_image=["latent", 0], seed=0, steps=2, cfg=4.0, sampler_name="ddpm",
            scheduler="ddim_uniform", denoise=1.0,
        ),
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["decoder", 1]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="kandinsky"),
    }
    for name, value in changes.items():
        key, _, field = name.partition("__")
        graph[key]["inputs"][field] = value
    return graph


def test_a_graph_of_stock_nodes_draws(lab, files):
    result = lab.queue(drawing())
    assert result.status == "success", result.error
    assert len(result.outputs["save"]["images"]) == 2
    result = lab.queue(drawing(decoder__movq=f"tiny/movq/{WEIGHTS}", latent__batch_size=1))
    assert result.status == "success", result.error


def test_a_new_node_stands_on_a_decoder(lab, files):
    options = lab.object_info()["PiT_LoadKandinskyDecoder"]["input"]["required"]["file"][1]["options"]
    assert [name for name in options if "/movq/" in name] == options[-1:] == [f"tiny/movq/{WEIGHTS}"]


@pytest.mark.parametrize("changes, message", [
    ({"decoder__file": f"tiny/movq/{WEIGHTS}"}, "expected a decoder of Kandinsky 2.2"),
    ({"decoder__movq": f"tiny/unet/{WEIGHTS}"}, "expected a decoder of Kandinsky 2.2"),
    ({"decoder__file": f"alone/unet/{WEIGHTS}"}, f"got one without movq/{WEIGHTS}"),
    ({"decoder__file": "broken/a.safetensors"}, "expected a safetensors file or a PyTorch pickle"),
    ({"decoder__file": "broken/other.safetensors"}, "got a file of another kind"),
    ({"decoder__file": "nothing.safetensors"}, "python -m pit download kandinsky-decoder"),
    ({"decoder__movq": "nothing.safetensors"}, "python -m pit download kandinsky-decoder"),
    ({"latent__width": 72}, "pixels, got 72 x 128"),
])
def test_bad_input_is_a_clear_error_and_the_server_lives(lab, files, changes, message):
    result = lab.queue(drawing(**changes))
    assert result.status != "success" and message in str(result.error), result.error
    assert lab.queue(drawing()).status == "success"


def test_a_changed_autoencoder_is_read_again(lab, files):
    def executed():
        result = lab.queue(drawing())
        assert result.status == "success", result.error
        return {event["data"]["node"] for event in result.events if event["type"] == "executing"}

    executed()
    assert "decoder" not in executed()
    path = files / "tiny/movq" / WEIGHTS
    state = load_file(path)
    save_file({key: value * 0.5 for key, value in state.items()}, path)
    assert "decoder" in executed()
    save_file(state, path)
