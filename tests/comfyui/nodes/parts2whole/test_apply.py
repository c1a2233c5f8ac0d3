"""Apply Parts2Whole: who reads what, when, at which strength; memory, compiling, LoRA, ControlNet, others."""
from __future__ import annotations

import gc
import importlib
import weakref

import pytest
import torch

from tests.comfyui.nodes.parts2whole.shared import encoded_case, nodes, prompts
from tests.parts2whole.cases import assert_close, golden_case


@pytest.fixture(scope="module")
def case(golden):
    return golden_case(golden, "two")


@pytest.fixture(scope="module")
def references(inside, case, parts):
    return encoded_case(inside, case, parts)


@pytest.fixture(scope="module")
def pose(inside, parts):
    image = torch.rand(1, 64, 96, 3, generator=torch.Generator().manual_seed(3))
    return nodes(inside, "types").Pose(image, 1.0, parts.pose_guider)


@pytest.fixture(scope="module")
def noise():
    return torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def draw(sampler, case, noise):
    """Two steps with guidance."""
    def run(model, images=1, cfg=3.5, steps=(981, 481), positive=None, negative=None, given=noise):
        both = prompts(case)
        return sampler.denoised(
            model, positive or both[0], negative or both[1], given[:images],
            sampler.sigmas(model, list(steps)), cfg,
        )

    return run


def set_of(references, pick):
    """References with these sets of tokens: `pick` makes them of each tensor `[1, ...]`."""
    tokens = {block: type(each)(*(None if part is None else pick(part) for part in each))
              for block, each in references.tokens.items()}
    return type(references)(tokens, pick(references.images), references.label, references.wiring)


def test_references_pose_and_image_tokens_all_matter(applied, model, references, pose, draw):
    whole = draw(applied(references, pose))
    for other in (applied(references), applied(references, pose, weight=0.0), model,
                  applied(set_of(references, lambda part: part * 0.5), pose)):
        assert (draw(other) - whole).norm() > 0.05 * whole.norm()


def test_every_image_of_a_batch_is_as_if_alone(applied, references, pose, draw, noise):
    model = applied(references, pose)
    together = draw(model, 2)
    for image in range(2):
        alone = draw(model, given=noise[image:image + 1])
        assert_close(together[image:image + 1], alone)


def test_images_with_references_and_poses_of_their_own(inside, applied, references, pose, draw, noise):
    sets = set_of(references, lambda part: torch.cat([part, part.flip(1)]))
    poses = nodes(inside, "types").Pose(torch.cat([pose.image, 1 - pose.image]), 1.0, pose.guider)
    together = draw(applied(sets, poses), 2)
    for image in range(2):
        own = set_of(sets, lambda part, image=image: part[image:image + 1])
        single = nodes(inside, "types").Pose(poses.image[image:image + 1], 1.0, pose.guider)
        alone = draw(applied(own, single), given=noise[image:image + 1])
        assert_close(together[image:image + 1], alone)
    with pytest.raises(ValueError, match="multiple of 2 images"):
        draw(applied(sets), 1)


def test_guidance_1_computes_one_half(applied, references, draw):
    model, rows = applied(references), []
    hook = model.model.diffusion_model.out[0].register_forward_hook(
        lambda module, inputs, out: rows.append(len(out)))
    draw(model, 2, cfg=1.0)
    draw(model, 2, cfg=2.0)
    hook.remove()
    assert rows == [2, 2, 4, 4]


def test_references_act_between_start_and_end(applied, references, pose, draw):
    early = applied(references, pose, end=0.3)
    torch.testing.assert_close(draw(early, steps=[981]), draw(applied(references, pose), steps=[981]))
    late = applied(references, pose, start=0.3)
    without = applied(set_of(references, lambda part: part), pose, weight=0.0)
    for each in without.model_options["transformer_options"]["patches_replace"]["attn1"].values():
        assert type(each).__name__ == "ReferenceAttention"
    silent = type(references)({}, references.images * 0, references.label, references.wiring)
    torch.testing.assert_close(draw(late, steps=[981]), draw(applied(silent, pose), steps=[981]))
    assert (draw(late, steps=[481]) - draw(applied(silent, pose), steps=[481])).norm() > 0.1


def test_an_empty_interval_is_refused(applied, references):
    with pytest.raises(ValueError, match="start to be less than end, got 0.5 and 0.5"):
        applied(references, start=0.5, end=0.5)


def test_strengths_and_any_number_of_references(inside, applied, case, parts, draw):
    def drawn(**changes):
        return draw(applied(encoded_case(inside, case, parts, **changes)))

    whole = drawn()
    assert (drawn(strengths=[1.0, 0.3]) - whole).norm() > 1e-2
    references = encoded_case(inside, case, parts)
    many = set_of(references, lambda part: part.repeat(1, 4, *[1] * (part.ndim - 2)))
    assert many.images.shape[1] > 6
    assert (draw(applied(many)) - whole).norm() > 1e-2


def test_keys_and_values_are_made_once_and_do_not_outlive_the_sampling(
    inside, applied, references, pose, draw, monkeypatch
):
    reading, made = nodes(inside, "reading"), []

    def counted(*arguments):
        kept = projected(*arguments)
        made.append(weakref.ref(kept.keys))
        return kept

    projected = reading.keys_and_values
    monkeypatch.setattr(reading, "keys_and_values", counted)
    model = applied(references, pose)
    draw(model)
    assert len(made) == len(references.tokens)
    gc.collect()
    assert not any(each() is not None for each in made)
    draw(model)
    assert len(made) == 2 * len(references.tokens)


def test_the_reference_unet_is_only_in_memory_to_write(inside, case, parts):
    management, during = inside.comfy("model_management"), []
    unet = parts.reference_unet.model.network
    hook = unet.conv_in.register_forward_hook(
        lambda *_: during.append(any(each.model is parts.reference_unet
                                     for each in management.current_loaded_models)))
    encoded_case(inside, case, parts)
    hook.remove()
    assert during == [True]
    assert not any(each.model is parts.reference_unet for each in management.current_loaded_models)


def test_the_small_networks_are_loaded_with_the_model(applied, parts, references, pose):
    assert set(applied(references, pose).model_patches_models()) == {parts.decoupled, parts.pose_guider}


def test_the_model_compiles_into_one_graph_that_follows_the_rows(applied, references, pose, draw):
    """As ComfyUI's own node does it, which ignores all changes of the options."""
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    def without_options(guards):
        return ["transformer_options" not in guard.name for guard in guards]

    first = applied(references, pose, end=0.3)
    second = applied(set_of(references, lambda part: part[:, :2]), pose)
    # The first of these steps is within its interval, the second is not.
    runs = [(first, {}), (second, {"steps": [481]})]
    expected = [draw(model, **settings) for model, settings in runs]
    torch._dynamo.reset()
    unet = first.model.diffusion_model
    unet.forward = torch.compile(
        unet.forward, backend=backend, fullgraph=True, options={"guard_filter_fn": without_options})
    try:
        found = [draw(model, **settings) for model, settings in runs]
    finally:
        del unet.forward
        torch._dynamo.reset()
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs)
    assert len(graphs) == 3


def test_comfyui_s_own_compiling_gives_the_same(applied, references, pose, draw):
    model = applied(references, pose)
    expected = draw(model)
    compiled = model.clone()
    helpers = importlib.import_module("comfy_api.torch_helpers")
    torch._dynamo.reset()
    helpers.set_torch_compile_wrapper(compiled, backend="eager", fullgraph=True)
    assert_close(draw(compiled), expected)


def test_a_lora_on_the_model_changes_what_references_come_to(applied, model, references, pose, draw):
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_v.weight"
    changed = model.clone()
    weight = model.model.diffusion_model.input_blocks[1][1].transformer_blocks[0].attn1.to_v.weight
    changed.add_patches({key: ("diff", (torch.ones_like(weight),))}, 0.3)
    whole = draw(applied(references, pose))
    assert (draw(applied(references, pose, base=changed)) - whole).norm() > 0.05
    torch.testing.assert_close(draw(applied(references, pose)), whole)


def test_controlnet_acts_beside_it(inside, applied, references, pose, draw, case):
    class Control(inside.comfy("controlnet").ControlBase):
        def get_control(self, x, t, cond, batched_number, transformer_options):
            return {"input": [], "middle": [torch.full((len(x), 64, 1, 2), 0.5)], "output": []}

        def get_models(self):
            return []

    positive, negative = ([[text, {"control": Control()}]] for ((text, _),) in prompts(case))
    model = applied(references, pose)
    assert (draw(model, positive=positive, negative=negative) - draw(model)).norm() > 1e-3


def test_without_a_second_apply(applied, references):
    model = applied(references)
    with pytest.raises(ValueError, match="without references.*Encode all of them with one"):
        applied(references, base=model)


def test_a_taken_self_attention_is_refused_before_and_after(applied, model, references, draw):
    taken = model.clone()
    taken.set_model_attn1_replace(lambda q, k, v, options: q, "middle", 0, 0)
    with pytest.raises(ValueError, match="self-attention is free, got one with a patch.*middle"):
        applied(references, base=taken)
    later = applied(references)
    later.set_model_attn1_replace(lambda q, k, v, options: q, "middle", 0, 0)
    with pytest.raises(ValueError, match="expected its patches of the attention.*middle"):
        draw(later)


def test_guidance_by_perturbed_attention_acts_beside_it(applied, references, pose, draw):
    model = applied(references, pose)
    pag = importlib.import_module("comfy_extras.nodes_pag").PerturbedAttentionGuidance
    assert (draw(pag.execute(model, 3.0).args[0]) - draw(model)).norm() > 1e-2


def test_patches_of_cross_attention_stack(inside, applied, model, references, draw):
    """The one that was there is called, and IPAdapter_plus finds an `add`."""
    seen = []
    below = model.clone()
    attention = inside.comfy("ldm.modules.attention").attention_pytorch

    def other(q, k, v, options):
        seen.append(len(q))
        return attention(q, k, v, options["n_heads"]) + 0.5

    below.set_model_attn2_replace(other, "middle", 0, 0)
    stacked = applied(references, base=below)
    plain = applied(references)
    assert (draw(stacked) - draw(plain)).norm() > 1e-3 and seen
    above = stacked.clone()
    patch = above.model_options["transformer_options"]["patches_replace"]["attn2"]["middle", 0, 0]
    patch.add(lambda out, *rest, **settings: out * 0 + 1.0, sigma_start=1e9, sigma_end=0.0)
    assert (draw(above) - draw(stacked)).norm() > 1e-3
    torch.testing.assert_close(draw(stacked), draw(stacked.clone()))


def test_as_published_the_prompt_is_the_first_label_and_the_last_six_are_images(
    inside, applied, case, parts, draw
):
    wiring = nodes(inside, "references").wiring("as published")
    label = torch.randn(1, 77, case.text.shape[-1], generator=torch.Generator().manual_seed(4))
    references = encoded_case(inside, case, parts, wiring, label=label)
    model = applied(references)
    told = draw(model, positive=[[label, {}]])
    torch.testing.assert_close(draw(model), told)
    long = [[torch.randn(1, 154, label.shape[-1]), {}]]
    assert_close(draw(model, positive=long), told)
    images = torch.randn(1, 9, label.shape[-1], generator=torch.Generator().manual_seed(5))
    many = type(references)(references.tokens, images, label, references.wiring)
    fewer = type(references)(references.tokens, images[:, 3:], label, references.wiring)
    followed = torch.cat([label, images[:, :3]], 1)
    wide = nodes(inside, "references").wiring()
    words = type(references)(references.tokens, images[:, 3:], label, wide)
    zeros = [[torch.nn.functional.pad(prompts(case)[1][0][0], (0, 0, 0, 3)), {}]]
    expected = draw(applied(words), positive=[[followed, {}]], negative=zeros)
    assert_close(draw(applied(many)), expected)
    assert (draw(applied(fewer)) - expected).norm() > 1e-3
