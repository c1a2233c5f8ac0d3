"""Concepts as files, counted with, and put together."""

import pytest
import torch

from pit.files.records import same_adapter
from tests.comfyui.nodes.graphs import node, render_graph


def finished(lab, graph):
    result = lab.queue(graph)
    assert result.status == "success", result.error
    return result


@pytest.fixture(scope="module")
def nodes(inside):
    return inside.nodes("tokens")


def loaded(inside, nodes, name):
    """What Load IP+ Tokens gives for a file that Save IP+ Tokens has written."""
    inside.pack("nodes.bridge.folders").folder_paths.filename_list_cache.clear()
    return nodes.LoadTokens.execute(f"{name}.safetensors").args[0]


def test_concepts_are_kept_and_drawn_in_another_graph(lab):
    kept = render_graph(keep=node("PiT_SaveTokens", tokens=["sample", 0], name="three"))
    text = finished(lab, kept).outputs["keep"]["text"][0]
    assert text == "written: three.safetensors, 3 concepts"
    graph = render_graph(sample=node("PiT_LoadTokens", file="three.safetensors"))
    for name in ("prior", "parts", "picture"):
        del graph[name]
    told = finished(lab, graph).outputs["sample"]["text"][0]
    for fact in ("concepts: 3", "prior: characters/prior.ckpt", "seed: 0", "adapter: tiny.safetensors"):
        assert fact in told, fact


def test_a_file_gives_the_very_tokens(inside, nodes):
    tokens = inside.tokens(2)
    nodes.SaveTokens.execute(tokens, "very")
    again = loaded(inside, nodes, "very")
    assert torch.equal(again.values, tokens.values) and torch.equal(again.uncond, tokens.uncond)


def test_another_ip_adapter_is_named_where_tokens_are_used(inside, shipped, nodes):
    pictures = torch.rand(1, 32, 32, 3)
    with torch.inference_mode():
        tokens = inside.nodes("parts").EncodeImage.execute(shipped[3], shipped[4], pictures).args[0]
    nodes.SaveTokens.execute(tokens, "creature")
    kept = loaded(inside, nodes, "creature")
    assert kept.adapter == shipped[4].stamp and torch.equal(kept.features, tokens.features)
    inside.apply(shipped[0], shipped[4], kept)
    other = inside.concepts("tokens").Tokens(
        kept.values, kept.uncond, source="a file", adapter="0123", notes={"adapter": "old"}
    )
    with pytest.raises(ValueError, match=r"made the tokens from a file, old \(0123\), got "):
        inside.apply(shipped[0], shipped[4], other)
    with pytest.raises(ValueError, match="belong to different IP-Adapters"):
        nodes.BatchConcepts.execute({"tokens0": kept, "tokens1": other})
    blend = inside.nodes("concepts").BlendConcepts
    with pytest.raises(ValueError, match="belong to different IP-Adapters"):
        blend.execute(kept, other, "0.5", "linear")


def test_tokens_are_counted_with(inside, nodes):
    a, b, c = (inside.tokens(1, seed) for seed in (1, 2, 3))
    mode = {"mode": "add a difference", "plus": b, "minus": c, "amount": 0.5}
    found = nodes.TokenArithmetic.execute(a, mode).args[0]
    torch.testing.assert_close(found.values, a.values + 0.5 * (b.values - c.values))
    assert found.notes["from 2"] == b.source
    concepts = {"tokens0": a, "tokens1": b, "tokens2": inside.tokens(2, 4)}
    several = nodes.BatchConcepts.execute(concepts).args[0]
    assert len(several.values) == 4 and torch.equal(several.values[1], b.values[0])
    mean = nodes.TokenArithmetic.execute(several, {"mode": "average", "keep_length": False}).args[0]
    torch.testing.assert_close(mean.values[0], several.values.mean(dim=0))


@pytest.mark.parametrize("name", ["../out", "", "/etc/passwd", "a/b"])
def test_a_name_that_leads_out_is_refused(inside, nodes, name):
    with pytest.raises(ValueError, match="Expected a plain name"):
        nodes.SaveTokens.execute(inside.tokens(1), name)


def test_a_file_that_is_not_there_says_where_it_was_sought(nodes):
    missing = nodes.LoadTokens.validate_inputs("absent.safetensors")
    assert "Load IP+ Tokens expected a file from " in missing and "got 'absent.safetensors'" in missing
    assert "Save IP+ Tokens writes" in missing
    assert nodes.LoadTokens.validate_inputs("creature models: ember") is True


def test_the_creatures_concepts_load(nodes, shipped):
    tokens = nodes.LoadTokens.execute("creature models: ember").args[0]
    assert same_adapter(tokens.adapter, shipped[4].stamp) and tokens.width == shipped[4].token_dim
