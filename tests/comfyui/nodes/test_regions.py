"""Apply IP+ Tokens where another pack changes the rows of the cross-attention: prompts for regions."""

import pytest
import torch

from tests.comfyui.nodes.sampling import assert_same, interleaved, whole


class Regions:
    """Another pack's prompts for regions: a row for each region of a positive prompt, added up afterwards."""

    def __init__(self, texts: list, interleave: bool = False):
        self.texts = texts
        self.repeat = interleaved if interleave else whole
        self.interleave = interleave

    def before(self, n, context, value, options):
        branches, count = options["cond_or_uncond"], len(self.texts)
        self.images = len(n) // len(branches)
        queries, texts = [], []
        chunks = n.chunk(len(branches)), context.chunk(len(branches))
        for branch, rows, text in zip(branches, *chunks, strict=True):
            queries.append(rows if branch else self.repeat(rows, count))
            regions = [each.expand(self.images, -1, -1) for each in self.texts]
            regions = torch.stack(regions, dim=1 if self.interleave else 0).flatten(0, 1)
            texts.append(text if branch else regions.to(text))
        texts = torch.cat(texts)
        return torch.cat(queries), texts, texts

    def after(self, out, options):
        done, at = [], 0
        for branch in options["cond_or_uncond"]:
            rows = out[at:at + self.images * (1 if branch else len(self.texts))]
            at += len(rows)
            shape = (self.images, -1) if self.interleave else (-1, self.images)
            done.append(rows if branch else rows.unflatten(0, shape).mean(1 if self.interleave else 0))
        return torch.cat(done)

    def on(self, model):
        clone = model.clone()
        clone.set_model_attn2_patch(self.before)
        clone.set_model_attn2_output_patch(self.after)
        return clone


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("concepts", [1, 2])
@pytest.mark.parametrize("interleave", [False, True])
@pytest.mark.parametrize("ours_first", [False, True])
def test_regions_with_the_same_prompt_are_as_no_regions(
    inside, draw, cfg, tiny_model, tiny_adapter, patched, prompts, count, concepts, interleave, ours_first
):
    regions = Regions([prompts[0][0][0]] * count, interleave)
    if ours_first:
        both = regions.on(patched(concepts))
    else:
        both = inside.apply(regions.on(tiny_model), tiny_adapter, inside.tokens(concepts))
    assert_same(draw(cfg(both), images=concepts), draw(cfg(patched(concepts)), images=concepts))


def test_rows_that_look_alike_are_told_apart(draw, cfg, patched, prompts):
    """The same latent for two concepts, and one pooled text for both prompts: equal until the first text."""
    text, extras = prompts[1][0]
    negative = [[text, extras | {"pooled_output": prompts[0][0][1]["pooled_output"]}]]
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(4)).repeat(2, 1, 1, 1)
    regions = Regions([prompts[0][0][0]] * 3).on(patched(2))
    expected = draw(cfg(patched(2), negative=negative), noise=noise)
    assert_same(draw(cfg(regions, negative=negative), noise=noise), expected)
    assert (expected[0] - expected[1]).abs().max() > 1


def test_rows_that_nothing_tells_apart_are_refused(draw, cfg, patched):
    model = patched(1)
    model.set_model_attn2_patch(lambda n, context, value, options: (
        torch.cat([n, n]) + 1.5, torch.cat([context, context]), torch.cat([value, value])))
    with pytest.raises(ValueError, match="expected queries for the 2 rows of the batch, got 4"):
        draw(cfg(model))


def turned_and_scaled(n, context, value, options):
    """Another pack's rows the other way round, and besides a little larger."""
    return n.flip(0) * 1.0001, context.flip(0), value.flip(0)


def turned_back(out, options):
    return out.flip(0)


def test_rows_are_followed_where_their_values_change_as_well(draw, cfg, patched):
    model = patched(2)
    turned = model.clone()
    turned.set_model_attn2_patch(turned_and_scaled)
    turned.set_model_attn2_output_patch(turned_back)
    assert_same(draw(cfg(turned), images=2), draw(cfg(model), images=2), 1e-2)


def test_rows_that_are_mixed_are_refused(draw, cfg, patched):
    model = patched(2)
    model.set_model_attn2_patch(lambda n, context, value, options: (n + n.flip(0), context, value))
    with pytest.raises(ValueError, match="nothing that tells which is which"):
        draw(cfg(model), images=2)
