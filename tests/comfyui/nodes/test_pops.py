"""The nodes of pOps with tiny operators in the real ComfyUI: same numbers as the engine, and bad input."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from pit.images import to_pil
from pit.pops.embeddings import picture_condition, pixel_values, word_condition
from pit.pops.sample import operator_noise, sample_operator
from tests.comfyui.nodes.graphs import node
from tests.comfyui.nodes.pops import WIDTH, Pops
from tests.golden import assert_equal
from tests.pops.tiny import write_base, write_operator

STEPS = 3
QUICK = (7, 1, STEPS, 0.0)  # seed, count, steps, guidance as published


@pytest.fixture(scope="module")
def pops(inside, tmp_path_factory) -> Pops:
    return Pops(inside, tmp_path_factory.mktemp("pops"))


def sampled(operator, condition, guidance: float, mask=None, seed: int = 7) -> torch.Tensor:
    noise, step_noise = operator_noise(seed, len(condition), WIDTH, STEPS)
    return sample_operator(
        operator, condition, noise=noise, step_noise=step_noise, steps=STEPS, guidance_scale=guidance,
        mask=mask,
    )


def test_a_picture_is_encoded_as_the_engine_asks(pops):
    pictures = torch.rand(18, 40, 30, 3, generator=torch.Generator().manual_seed(5))
    for fit in ("squashed", "cropped", "letterboxed"):
        found, size = pops.embedding(18, fit=fit), pops.vision.image_size
        with torch.inference_mode():
            pixels = pixel_values(to_pil(pictures), fit, size)
            expected = pops.vision.model(pixel_values=pixels)[2]
            zeros = pops.vision.model(pixel_values=torch.zeros_like(pixels[:1]))[2]
        assert_equal(found.values, expected)
        assert_equal(found.negative, zeros)
        assert found.space == "raw" and found.notes["fit"] == fit and found.width == WIDTH
        assert found.encoder == "CLIP with layers of width 64"


@pytest.mark.parametrize("mode, guidance", [("texture", 8.0), ("union", 8.0), ("scene", 1.0)])
def test_combine_gives_what_the_engine_does_with_the_published_guidance(pops, mode, guidance):
    first, second, module = pops.embedding(seed=1), pops.embedding(seed=2), pops.module()
    found = pops.run("Combine", pops.operator(mode), *QUICK, 1.0, 1.0, first, second)
    slots = [module.normalized(each.values) for each in (first, second)]
    assert_equal(found.values, sampled(module, picture_condition(slots), guidance))
    assert torch.equal(found.negative, first.negative) and found.encoder == first.encoder
    assert found.notes["kind"] == mode and found.notes["guidance"] == f"{guidance:g}"


def test_combine_leaves_out_what_is_not_connected_and_weighs_what_is(pops):
    first, module, operator = pops.embedding(), pops.module(), pops.operator("scene")
    slot = module.normalized(first.values)
    alone = pops.run("Combine", operator, *QUICK, 1.0, 1.0, first)
    assert_equal(alone.values, sampled(module, picture_condition([slot, None]), 1.0))
    behind = pops.run("Combine", operator, *QUICK, 1.0, 0.5, None, first)
    assert_equal(behind.values, sampled(module, picture_condition([None, slot], [1.0, 0.5]), 1.0))
    nothing = pops.run("Combine", operator, *QUICK, 1.0, 0.0, first, first)
    assert_equal(nothing.values, alone.values)


def test_a_batch_gives_what_each_seed_and_pair_gives_alone(pops):
    first, second, operator = pops.embedding(2, 1), pops.embedding(1, 2), pops.operator("texture")
    together = pops.run("Combine", operator, 7, 3, STEPS, 4.0, 1.0, 1.0, first, second)
    assert together.values.shape == (6, WIDTH)
    for row in range(6):
        one = replace(first, values=first.values[row // 3:row // 3 + 1])
        alone = pops.run("Combine", operator, 7 + row, 1, STEPS, 4.0, 1.0, 1.0, one, second)
        assert_equal(alone.values[0], together.values[row])


def test_a_batch_too_large_for_memory_is_split(pops, monkeypatch):
    first, operator, calls = pops.embedding(), pops.operator("scene"), []
    whole = pops.run("Combine", operator, 7, 4, STEPS, 0.0, 1.0, 1.0, first)
    module = pops.nodes("operators")
    sample = module.sample_operator

    def short_of_memory(model, condition, **settings):
        calls.append(len(condition))
        if len(condition) > 2:
            raise torch.OutOfMemoryError("no more")
        return sample(model, condition, **settings)

    monkeypatch.setattr(module, "sample_operator", short_of_memory)
    assert_equal(pops.run("Combine", operator, 7, 4, STEPS, 0.0, 1.0, 1.0, first).values, whole.values)
    assert calls == [4, 2, 2]


def test_many_results_are_computed_in_parts_that_fit(pops, monkeypatch):
    first, operator, calls = pops.embedding(), pops.operator("scene"), []
    whole = pops.run("Combine", operator, 7, 5, STEPS, 0.0, 1.0, 1.0, first)
    module = pops.nodes("operators")
    sample = module.sample_operator
    monkeypatch.setattr(module, "MOST_BYTES", 2 * module.working_memory(operator, 2, STEPS) + 1)

    def counted(model, condition, **settings):
        calls.append(len(condition))
        return sample(model, condition, **settings)

    monkeypatch.setattr(module, "sample_operator", counted)
    assert_equal(pops.run("Combine", operator, 7, 5, STEPS, 0.0, 1.0, 1.0, first).values, whole.values)
    assert calls == [2, 2, 1]


@torch.inference_mode()
def test_words_are_read_as_by_the_published_text_encoder(pops):
    clip, published = pops.clip()
    lines = ["shiny", "made of old (gold:1.4)"]
    states = pops.nodes("words").word_states(clip, lines, WIDTH)
    for line, state in zip(lines, states, strict=True):
        ids = [token for token, _ in clip.tokenize(line, disable_weights=True)["g"][0]]
        length = ids.index(49407) + 1
        expected = published(input_ids=torch.tensor([ids])).last_hidden_state[0, :length]
        assert_equal(state, expected)
    assert [len(state) for state in states][0] == 3
    # The CLIP is left as it was: SDXL reads the layer before the last one.
    assert clip.cond_stage_model.clip_g.layer == "hidden"


def test_instruct_gives_what_the_engine_does_a_row_for_each_line(pops):
    picture, module, (clip, _) = pops.embedding(), pops.module(), pops.clip()
    found = pops.run(
        "Instruct", pops.operator("instruct"), picture, clip, "shiny\n\n very old and dusty \n", *QUICK, 1.0)
    with torch.inference_mode():
        states = pops.nodes("words").word_states(clip, ["shiny", "very old and dusty"], WIDTH)
    condition, mask = word_condition(module.normalized(picture.values), states)
    assert_equal(found.values, sampled(module, condition, 1.0, mask))
    assert found.notes["words"] == "shiny, very old and dusty"


def test_compose_takes_the_parts_in_their_order(pops):
    parts, module, operator = pops.embedding(3, 1), pops.module(), pops.operator("clothes")
    found = pops.run("Compose", operator, {"part0": parts, "part1": pops.embedding(1, 9)}, *QUICK)
    rows = torch.cat([parts.values, pops.embedding(1, 9).values])
    condition = picture_condition(list(module.normalized(rows).split(1)))
    assert_equal(found.values, sampled(module, condition, 1.0))


def test_operators_chain(pops):
    """What one makes, another reads: nothing is normalized twice, and the origin is kept."""
    picture, operator, module = pops.embedding(), pops.operator("scene"), pops.module()
    once = pops.run("Combine", operator, *QUICK, 1.0, 1.0, picture)
    twice = pops.run("Combine", operator, *QUICK, 1.0, 1.0, once, picture)
    slots = [module.normalized(each.values) for each in (once, picture)]
    assert_equal(twice.values, sampled(module, picture_condition(slots), 1.0))
    inside = replace(once, values=module.normalized(once.values), space="normalized")
    assert_equal(pops.run("Combine", operator, *QUICK, 1.0, 1.0, inside, picture).values, twice.values)


def test_a_cancel_ends_it_within_a_step(pops, cancel_at, inside):
    picture, operator = pops.embedding(), pops.operator("scene")
    seen = cancel_at(1)
    with pytest.raises(inside.comfy("model_management").InterruptProcessingException):
        pops.run("Combine", operator, 7, 1, 50, 0.0, 1.0, 1.0, picture)
    assert len(seen) == 1


def test_an_operator_is_loaded_by_comfyui_with_exact_statistics(pops, inside, monkeypatch):
    monkeypatch.setattr(pops.nodes("loading"), "prior_dtype", lambda width: torch.bfloat16)
    operator, picture = pops.operator("scene"), pops.embedding()
    kinds = {key: value.dtype for key, value in operator.patcher.model.state_dict().items()}
    assert kinds.pop("clip_mean") == kinds.pop("clip_std") == torch.float32
    assert set(kinds.values()) == {torch.bfloat16}
    assert torch.equal(operator.patcher.model.clip_std, pops.module().clip_std)
    found = pops.run("Combine", operator, *QUICK, 1.0, 1.0, picture)
    loaded = [model.model.model for model in inside.comfy("model_management").current_loaded_models]
    assert any(each is operator.patcher.model for each in loaded)
    module = pops.module()
    expected = sampled(module, picture_condition([module.normalized(picture.values), None]), 1.0)
    assert torch.nn.functional.cosine_similarity(found.values, expected).item() > 0.99


def test_an_embedding_is_kept(pops, inside):
    nodes, picture = pops.nodes("embeddings"), pops.embedding(2)
    nodes.SaveEmbedding.execute(picture, "two")
    inside.pack("nodes.bridge.folders").folder_paths.filename_list_cache.clear()
    again = nodes.LoadEmbedding.execute("two.safetensors", "raw").args[0]
    assert torch.equal(again.values, picture.values) and torch.equal(again.negative, picture.negative)
    assert again.encoder == picture.encoder and again.notes == picture.notes


@pytest.mark.parametrize("name, mode, takes", [
    ("Combine", "instruct", "an operator that takes two pictures, got instruct/.*Use pOps Instruct with it"),
    ("Combine", "clothes", "an operator that takes two pictures, got clothes/.*Use pOps Compose with it"),
    ("Instruct", "texture", "an operator that takes words, got texture/.* for texture. Use pOps Combine"),
    ("Compose", "union", "an operator that takes several parts, got union/.*Use pOps Combine with it"),
])
def test_an_operator_of_another_kind_is_refused(pops, name, mode, takes):
    picture = pops.embedding()
    inputs = {
        "Combine": (*QUICK, 1.0, 1.0, picture), "Instruct": (picture, None, "shiny", *QUICK, 1.0),
        "Compose": ({"part0": picture}, *QUICK),
    }
    with pytest.raises(ValueError, match=f"pOps {name} expected {takes}"):
        pops.run(name, pops.operator(mode), *inputs[name])


def test_embeddings_that_do_not_fit_are_refused(pops, inside):
    picture, operator = pops.embedding(), pops.operator("scene")
    other = pops.embedding(vision=inside.tiny.tiny_clip_vision(seed=4))
    with pytest.raises(ValueError, match="Expected embeddings of one image encoder"):
        pops.run("Combine", operator, *QUICK, 1.0, 1.0, picture, other)
    with pytest.raises(ValueError, match="other/learned_prior.pth expected .* of width 24, got .* width 32"):
        pops.run("Combine", replace(pops.operator("scene", width=24), name="other/learned_prior.pth"),
                 *QUICK, 1.0, 1.0, picture)
    broken = replace(picture, values=torch.full_like(picture.values, float("nan")))
    with pytest.raises(ValueError, match="expected finite numbers, got NaN"):
        pops.run("Combine", operator, *QUICK, 1.0, 1.0, broken)
    with pytest.raises(ValueError, match="expected an embedding in first or second, got none"):
        pops.run("Combine", operator, *QUICK, 1.0, 1.0)
    with pytest.raises(ValueError, match="as many embeddings in each input, or one, got 2 and 3"):
        pops.run("Combine", operator, *QUICK, 1.0, 1.0, pops.embedding(2), pops.embedding(3))


def test_thirteen_parts_are_refused(pops):
    with pytest.raises(ValueError, match="pOps Compose expected at most 12 parts, got 13"):
        pops.run("Compose", pops.operator("clothes"), {"part0": pops.embedding(13)}, *QUICK)


@pytest.mark.parametrize("words", ["", "  \n \t\n"])
def test_an_empty_word_is_refused(pops, words):
    with pytest.raises(ValueError, match="expected at least one word, got none"):
        pops.run("Instruct", pops.operator("instruct"), pops.embedding(), None, words, *QUICK, 1.0)


def test_words_that_cannot_be_read_are_refused(pops, inside):
    picture, operator, (clip, _) = pops.embedding(), pops.operator("instruct"), pops.clip()
    with pytest.raises(ValueError, match="a line of at most 75 tokens, got 'word word"):
        pops.run("Instruct", operator, picture, clip, "word " * 76, *QUICK, 1.0)
    with pytest.raises(ValueError, match="text encoder of width 32, as the operator has it, got width 64"):
        pops.run("Instruct", operator, picture, pops.clip(64)[0], "shiny", *QUICK, 1.0)

    class OtherCLIP:
        cond_stage_model = torch.nn.Linear(1, 1)

    with pytest.raises(ValueError, match="CLIP with the text encoder ViT-bigG, .* got one without"):
        pops.run("Instruct", operator, picture, OtherCLIP(), "shiny", *QUICK, 1.0)


def test_an_encoder_that_is_no_clip_is_refused(pops):
    class Dino:
        model_type, image_size = "dinov2", 28

    with pytest.raises(ValueError, match=r"got a dinov2\. .*clip-vision-bigg"):
        pops.embedding(vision=Dino())


def test_a_damaged_encoder_is_refused(pops, inside):
    vision = inside.tiny.tiny_clip_vision(seed=6)
    vision.model.visual_projection.weight.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="Expected finite embeddings"):
        pops.embedding(vision=vision)


def test_an_operator_whose_name_tells_nothing_needs_a_kind(pops, tmp_path):
    path = write_operator(tmp_path / "learned_prior.pth", width=WIDTH)
    load = pops.nodes("loading").load_operator
    with pytest.raises(ValueError, match="learned_prior.pth to tell by its name .*Choose it in kind"):
        load(path, "learned_prior.pth", pops.base)
    assert load(path, "learned_prior.pth", pops.base, "union").mode_name == "union"


# In a server, as a graph asks for them.


@pytest.fixture(scope="module")
def models(comfyui):
    folder = comfyui.base / "models"
    write_operator(folder / "pops/scene/learned_prior.pth", width=WIDTH)
    write_operator(folder / "pops/plain/learned_prior.pth", width=WIDTH)
    write_base(folder / "kandinsky_prior/tiny", width=WIDTH)
    return folder


def scene_graph(**changes) -> dict:
    """Two pictures, one in the scene of the other, kept as a file."""
    base = "tiny/prior/diffusion_pytorch_model.safetensors"
    graph = {
        "tiny": node("Tiny_Models", vision_width=64),
        "picture": node("Tiny_Image", count=2, height=40, width=30, channels=4),
        "operator": node(
            "PiT_LoadOperator", file="scene/learned_prior.pth", base=base, kind="as its name says",
            num_heads=0,
        ),
        "embedding": node(
            "PiT_EncodeEmbedding", clip_vision=["tiny", 3], image=["picture", 0], fit="squashed"),
        "combine": node(
            "PiT_Combine", operator=["operator", 0], first=["embedding", 0], seed=0, count=1, steps=3,
            guidance=0.0, first_strength=1.0, second_strength=1.0,
        ),
        "save": node("PiT_SaveEmbedding", embedding=["combine", 0], name="in_a_scene"),
    }
    for name, value in changes.items():
        key, _, field = name.partition("__")
        graph[key]["inputs"][field] = value
    return graph


def test_a_graph_combines_keeps_and_loads(lab, models):
    result = lab.queue(scene_graph())
    assert result.status == "success", result.error
    assert len(result.outputs["embedding"]["images"]) == 2
    assert result.outputs["save"]["text"] == ["written: in_a_scene.safetensors, 2 embeddings"]
    graph = {
        "load": node("PiT_LoadEmbedding", file="in_a_scene.safetensors", bare_tensors="raw"),
        "save": node("PiT_SaveEmbedding", embedding=["load", 0], name="again"),
    }
    result = lab.queue(graph)
    assert result.status == "success", result.error
    told = result.outputs["load"]["text"][0]
    for fact in ("embeddings: 2", "width: 32", "space: raw", "kind: scene", "operator: scene/learned"):
        assert fact in told, fact


@pytest.mark.parametrize("changes, message", [
    ({"operator__base": "none"}, "expected the statistics clip_mean and clip_std"),
    ({"operator__file": "plain/learned_prior.pth"}, "to tell by its name what it is for"),
    ({"operator__kind": "instruct"}, "pOps Combine expected an operator that takes two pictures"),
    ({"tiny__vision_width": 128, "embedding__fit": "stretched"}, "Value not in list"),
])
def test_bad_input_is_a_clear_error_and_the_server_lives(lab, models, changes, message):
    result = lab.queue(scene_graph(**changes))
    assert result.status != "success" and message in str(result.error), result.error
    assert lab.queue(scene_graph()).status == "success"


def test_a_missing_file_says_where_to_get_it(lab, models):
    for change, name in (("operator__file", "pops-texturing"), ("operator__base", "kandinsky-prior")):
        result = lab.queue(scene_graph(**{change: "nothing.pth"}))
        assert result.status != "success"
        assert f"python -m pit download {name}" in str(result.error)


class KandinskyPriorPipelineOutput:
    """Under the name of diffusers' class."""

    def __init__(self) -> None:
        self.image_embeds = self.negative_image_embeds = torch.zeros(1, WIDTH)


def test_a_pickle_of_the_published_result_says_what_to_do(lab, models):
    folder = models / "image_embeddings"
    folder.mkdir(exist_ok=True)
    torch.save(KandinskyPriorPipelineOutput(), folder / "a_img_emb.pth")
    save_file({"image_embeds": torch.full((1, WIDTH), float("nan"))}, folder / "nan.safetensors")
    for name, message in (("a_img_emb.pth", "Encode Image Embedding"), ("nan.safetensors", "finite numbers")):
        graph = {
            "load": node("PiT_LoadEmbedding", file=name, bare_tensors="raw"),
            "save": node("PiT_SaveEmbedding", embedding=["load", 0], name="never"),
        }
        result = lab.queue(graph)
        assert result.status != "success" and message in str(result.error)
    assert not (folder / "never.safetensors").exists()
