"""Part words against the published token mapper, and in CLIP's text encoders."""

import pytest
import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from pit.partcraft.mapper import TokenMapper, for_encoders, placed, places, pooled_places, words_in
from tests.golden import assert_equal

CASES = "text/(.+)/mapper_out"


def mapper_of(golden, name: str) -> TokenMapper:
    state = {key: value.float() for key, value in golden.below("partcraft_tiny_state", f"{name}.").items()}
    facts, (_, dim) = golden.facts("partcraft_tiny_config"), state["embedding.weight"].shape
    depth = sum(key.endswith("bias") for key in state)
    mapper = TokenMapper(facts["num_parts"], facts["num_k_per_part"], dim, depth)
    mapper.load_state_dict(state)
    return mapper


def depths(golden) -> list[str]:
    return [f"mapper_l{depth}" for depth in golden.facts("partcraft_tiny_config")["projection_nlayers"]]


def text_encoder(golden, number: int) -> CLIPTextModel:
    """One of the two text encoders, whose table has rows for the tokens of part words."""
    facts, dims = golden.facts("partcraft_tiny_config"), golden.facts("partcraft_tiny_config")["dims"]
    prefix = "text_encoder." if number == 1 else "text_encoder_2."
    state = {key: value.float() for key, value in golden.below("partcraft_tiny_state", prefix).items()}
    table = state["text_model.embeddings.token_embedding.weight"]
    config = CLIPTextConfig(
        vocab_size=len(table), hidden_size=dims[number - 1], projection_dim=facts["text"]["projection_dim2"],
        intermediate_size=len(state["text_model.encoder.layers.0.mlp.fc1.bias"]),
        num_hidden_layers=facts["text"]["layers"], num_attention_heads=facts["text"]["heads"],
        hidden_act=facts["text"][f"act{number}"], bos_token_id=facts["bos"], eos_token_id=facts["eos"],
    )
    encoder = (CLIPTextModel if number == 1 else CLIPTextModelWithProjection)(config)
    # transformers 5 has CLIPTextModel without a text_model inside it.
    own = encoder.state_dict()
    encoder.load_state_dict({
        key: value for name, value in state.items()
        for key in (name, name.removeprefix("text_model.")) if key in own
    })
    return encoder.eval()


@torch.no_grad()
def encoded(
    encoder: CLIPTextModel, ids: Tensor, words: Tensor | None, word_ids: list[int]
) -> dict[str, Tensor]:
    """All that is read off an encoder of a text with part words."""
    if words is None:
        words = torch.zeros(len(ids), 0, encoder.config.hidden_size)
    inputs = placed(encoder.get_input_embeddings()(ids), ids, words, word_ids)
    with words_in(encoder, ids, words, word_ids):
        output = encoder(ids, output_hidden_states=True)
    last = output.last_hidden_state
    position = next(value for name, value in encoder.named_parameters() if "position_embedding" in name)
    return {
        "injected": inputs + position, "last": last, "before_last": output.hidden_states[-2],
        "pooled": last[range(len(ids)), pooled_places(ids)],
    }


@torch.no_grad()
def test_words_are_the_published_ones(golden):
    for name in depths(golden):
        mapper, io = mapper_of(golden, name), golden.below("partcraft_tiny_io", f"{name}/")
        assert_equal(mapper(io["codes_full"]), io["out_full"])
        assert_equal(mapper.vectors(io["codes_index"], io["index"]), io["out_index"])
        assert_equal(mapper.vectors(io["codes_index"], io["index"][None]), io["out_index"])
        assert_equal(mapper.table(), io["all_embeddings"])
        raw = mapper.embedding.weight.reshape(mapper.num_parts, -1, mapper.dim)
        assert_equal(raw, io["all_no_projection_no_pe"])


@pytest.mark.golden_keys("partcraft_tiny_io", CASES)
def test_a_prompt_is_encoded_as_published(golden, key):
    case, facts = key.split("/")[1], golden.facts("partcraft_tiny_config")
    io = golden.below("partcraft_tiny_io", f"text/{case}/")
    ids, word_ids = io["ids1"].long(), [facts["placeholder_ids"][part] for part in io["parts"].tolist()]
    words = mapper_of(golden, depths(golden)[0]).vectors(io["codes"], io["parts"])
    assert_equal(words.detach(), io["mapper_out"])
    found = encoded(text_encoder(golden, 1), ids, words, word_ids)
    for name, theirs in {"injected": "injected", "last": "sd15_last_hidden", "pooled": "sd15_pooled"}.items():
        assert_equal(found[name], io[theirs])
    assert pooled_places(ids).tolist() == [facts["prompt_cases_ids"][case]["pooled_position"]]


@pytest.mark.golden_keys("partcraft_tiny_io", "text/(?!train).+/sdxl_embeds")
def test_a_prompt_for_sdxl_is_encoded_as_published(golden, key):
    facts = golden.facts("partcraft_tiny_config")
    io = golden.below("partcraft_tiny_io", key.removesuffix("sdxl_embeds"))
    words, word_ids = (None, None), []
    if "codes" in io:
        both = mapper_of(golden, "mapper_xl").vectors(io["codes"], io["parts"]).detach()
        assert_equal(both, io["mapper_xl_out"])
        words = for_encoders(both, facts["dims"])
        word_ids = [facts["placeholder_ids"][part] for part in io["parts"].tolist()]
    one = encoded(text_encoder(golden, 1), io["ids1"].long(), words[0], word_ids)
    second = text_encoder(golden, 2)
    two = encoded(second, io["ids2"].long(), words[1], word_ids)
    assert_equal(torch.cat([one["before_last"], two["before_last"]], dim=-1), io["sdxl_embeds"])
    assert_equal(two["pooled"] @ second.text_projection.weight.detach().T, io["sdxl_pooled"])


def test_a_batch_of_training_is_encoded_as_published(golden):
    facts, io = golden.facts("partcraft_tiny_config"), golden.below("partcraft_tiny_io", "text/train/")
    words = mapper_of(golden, depths(golden)[0])(io["codes"])
    found = encoded(text_encoder(golden, 1), io["ids1"].long(), words, facts["placeholder_ids"])
    assert_equal(found["injected"], io["injected"])
    assert_equal(found["last"], io["last_hidden"])


@torch.no_grad()
def test_an_encoder_needs_no_rows_for_part_words(golden):
    """Those of the published encoder are random, and always overwritten."""
    facts, io = golden.facts("partcraft_tiny_config"), golden.below("partcraft_tiny_io", "text/train/")
    encoder, ids = text_encoder(golden, 1), io["ids1"].long()
    table = encoder.get_input_embeddings()
    table.weight = torch.nn.Parameter(table.weight[:facts["vocab"]])
    table.num_embeddings = facts["vocab"]
    words = mapper_of(golden, depths(golden)[0])(io["codes"])
    with words_in(encoder, ids, words, facts["placeholder_ids"]):
        assert_equal(encoder(ids).last_hidden_state, io["last_hidden"])
    plain = torch.randint(0, facts["vocab"], ids.shape)
    before = encoder(plain).last_hidden_state
    with words_in(encoder, plain, words, facts["placeholder_ids"]):
        assert torch.equal(encoder(plain).last_hidden_state, before)


def test_a_prompt_without_part_words_is_encoded_as_ever(golden):
    io, facts = golden.below("partcraft_tiny_io", "text/none/"), golden.facts("partcraft_tiny_config")
    found = encoded(text_encoder(golden, 1), io["ids1"].long(), None, [])
    assert_equal(found["last"], io["sd15_last_hidden"])
    assert pooled_places(io["ids1"]).tolist() == [facts["prompt_cases_ids"]["none"]["eos_position"]]


@pytest.mark.parametrize("depth", [0, 1, 2, 5])
def test_any_number_of_projections(depth):
    mapper = TokenMapper(3, 4, 6, depth)
    assert [key for key in mapper.state_dict() if "weight" in key][1:] == [
        f"projection.{2 * number}.weight" for number in range(depth)
    ]
    codes, parts = torch.tensor([[0, 4]]), torch.tensor([[2, 0]])
    expected = mapper.embedding.weight[[10, 4]] + mapper.pe[[2, 0]]
    for number in range(depth):
        layer = mapper.projection[2 * number]
        expected = expected.relu() if number else expected
        expected = expected @ layer.weight.T + layer.bias
    assert_equal(mapper.vectors(codes, parts)[0].detach(), expected.detach())


@pytest.mark.parametrize("codes, parts, message", [
    ([[0, 5]], [[0, 0]], "each code to be a number from 0 to 4, got 0 to 5"),
    ([[-1]], [[0]], "each code to be a number from 0 to 4, got -1 to -1"),
    ([[0]], [[3]], "each part to be a number from 0 to 2, got 3 to 3"),
    ([[0]], [-1], "each part to be a number from 0 to 2"),
])
def test_words_that_do_not_exist_are_refused(codes, parts, message):
    # The row of one part's code beyond the last is the next part's first: it would be another word.
    with pytest.raises(ValueError, match=message):
        TokenMapper(3, 4, 6).vectors(torch.tensor(codes), torch.tensor(parts))


@pytest.mark.parametrize("ids, words, expected", [
    ([1, 50, 2, 51], [50, 51], [1, 3]), ([1, 51, 2, 50], [50, 51], [3, 1]),
    ([50, 50, 50], [50, 50], [0, 1]), ([50, 1], [50, 50], [0, 0]), ([50, 50, 1], [50, 50, 50], [0, 1, None]),
    ([1, 2], [50], [None]), ([50], [], []),
])
def test_the_places_of_words(ids, words, expected):
    assert places(ids, words) == expected


def test_gradients_reach_the_words_and_not_the_tokens_that_they_replace():
    embeddings, words = torch.randn(1, 3, 2, requires_grad=True), torch.randn(1, 1, 2, requires_grad=True)
    placed(embeddings, torch.tensor([[7, 9, 7]]), words, [9]).sum().backward()
    assert words.grad.tolist() == [[[1, 1]]] and embeddings.grad.tolist() == [[[1, 1], [0, 0], [1, 1]]]


@pytest.mark.parametrize("width, widths, messages", [
    (768, (768, 1280), ["2048 numbers wide, for SDXL", "768, which are for SD 1.5"]),
    (2048, (768,), ["768 numbers wide, for SD 1.5", "2048, which are for SDXL"]),
    (1024, (96,), ["for a base whose words have 96 numbers", "1024, which are for SD 2"]),
])
def test_words_for_another_base_are_refused(width, widths, messages):
    with pytest.raises(ValueError) as caught:
        for_encoders(torch.zeros(1, 2, width), widths)
    assert all(message in str(caught.value) for message in messages)
