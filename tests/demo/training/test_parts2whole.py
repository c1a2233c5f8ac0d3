"""The training of the creatures' Parts2Whole, in a few steps: what it learns from, moves and writes."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from pit.demo.drawing.creature import PARTS, sample_creature
from pit.demo.drawing.draw import draw_label_map, draw_masks, label_picture
from pit.demo.models import weights
from pit.demo.models.instruct import base_weights
from pit.demo.models.whole import (
    UP,
    WHOLE,
    changes_of,
    load_whole,
    load_words,
    new_whole,
    unet_config,
    whole_of,
)
from pit.demo.training import parts2whole as training
from pit.demo.training import parts2whole_examples as examples_of
from pit.demo.training import stage
from pit.demo.training.encoded import in_files
from pit.demo.training.stage import Run
from pit.demo.wholes import EVERYTHING
from pit.files.weights import WeightFileError, read_state, write_state
from pit.parts2whole.attention import attend_with_references, keys_and_values
from pit.parts2whole.references import Written, token_mask
from pit.parts2whole.training.step import WholeModel
from pit.parts2whole.unets import empty_reference_unet, write_references

SEED, MOST_BYTES = 3, 12_000_000
REFERENCES, TARGETS = 24, 10


class Stopped(Exception):
    """Stands for a run that is cut off."""


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(training, "STAGE", replace(training.STAGE, steps=3, batch=2, warmup=1))
    for name, value in (
        ("REFERENCES", REFERENCES), ("TARGETS", TARGETS), ("SLOTS", 5), ("TAUGHT", 2),
    ):
        monkeypatch.setattr(training, name, value)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    run = run_in(tmp_path_factory.mktemp("examples"))
    return examples_of.draw_examples(run, REFERENCES, TARGETS, load_words())


def run_in(folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    return Run(folder, torch.device("cpu"), torch.float32, SEED, **changes)


def test_pictures_are_encoded_once_and_the_rest_after_an_interruption(tmp_path, monkeypatch):
    monkeypatch.setattr("pit.demo.training.encoded.CHUNK", 4)
    calls = []

    def make(rows):
        calls.append(rows)
        if len(calls) == 2:
            raise Stopped
        return {"numbers": torch.tensor(rows)}

    with pytest.raises(Stopped):
        in_files(run_in(tmp_path), "some", 6, make)
    found = in_files(run_in(tmp_path), "some", 6, make)
    assert calls == [range(4), range(4, 6), range(4, 6)] and found["numbers"].tolist() == [*range(6)]


def test_examples_are_latents_masks_embeddings_and_label_maps(examples):
    references, targets = examples.references, examples.targets
    assert references.latents.shape == (REFERENCES, 12, 16, 16) and references.latents.dtype is torch.float16
    assert references.embeddings.shape == (REFERENCES, 256)
    assert references.masks.shape == (REFERENCES, 2, len(PARTS), 16, 16)
    assert targets.latents.shape == (TARGETS, 12, 16, 16) and targets.maps.shape == (TARGETS, 256, 256)
    found = draw_label_map(targets.wholes[4].figure, 256)
    assert torch.equal(targets.maps[4], torch.from_numpy(found))
    expected = torch.from_numpy(np.array(label_picture(found))).movedim(-1, 0) / 255
    torch.testing.assert_close(examples_of.pose_pictures(targets.maps[4:5])[0], expected)
    texts = examples.texts
    assert texts.of(["", EVERYTHING, examples.captions[0]]).shape == (3, 77, 96)


def test_the_error_counts_more_where_given_parts_are(examples):
    part = next(iter(examples.targets.wholes[0].sources))
    parts = [training.Part(1, 0, part, 0)]
    found = training.given_weights(examples, training.Rows([2, 0], ["", ""], parts, [[], []], [True, True]))
    shown = examples.targets.places[0, PARTS.index(part)].float()
    assert (found[0] == 1).all() and torch.equal(found[1], 1 + training.GIVEN_WEIGHT * shown)
    everything = examples.targets.shows(0, [EVERYTHING])
    assert everything.sum() >= shown.sum() > 0 and set(everything.unique().tolist()) == {0, 1}


@pytest.mark.parametrize("tokens", [256, 64, 16])
def test_small_masks_are_seen_as_those_of_whole_pictures(tokens):
    creature = sample_creature(random.Random(5), 0.0)
    found = draw_label_map(creature, 256)
    exact, wide = torch.from_numpy(examples_of.latent_masks(found)).float()
    # Rounded, since the label of a pixel is that of most of it.
    drawn = torch.from_numpy(draw_masks(creature, PARTS, 256) > 0.5).float()
    for both in zip(exact, drawn, strict=True):
        ours, theirs = (token_mask(mask[None, None], tokens) for mask in both)
        assert (ours != theirs).float().mean() < 0.05
    assert (wide >= exact).all() and wide.sum() > exact.sum()


def test_pictures_read_their_own_references_as_if_they_were_alone():
    torch.manual_seed(0)
    width, rows, owners = 8, 3, torch.tensor([2, 0, -1, 2, 0])
    mask = (torch.rand(len(owners), 16) > 0.6).float()
    features = torch.randn(len(owners), 16, width) * mask[..., None]
    read = training.gathered(Written(features, mask), owners, rows)
    assert read.tokens.shape == (rows, training.MOST_TOKENS[16] + 2, width)
    q, k, v = (torch.randn(rows, 5, width) for _ in "qkv")
    projections = torch.nn.Linear(width, width, bias=False), torch.nn.Linear(width, width, bias=False)
    together = attend_with_references(q, k, v, 2, keys_and_values(read, *projections), [True] * rows)
    for row in range(rows):
        own = features[owners == row].reshape(1, -1, width)
        alone = keys_and_values(read._replace(tokens=own, bias=None), *projections)
        each = (part[row:row + 1] for part in (q, k, v))
        expected = attend_with_references(*each, 2, alone, [True])
        torch.testing.assert_close(together[row:row + 1], expected, atol=2e-3, rtol=1e-3)


def test_negative_prompts_read_nothing_and_what_only_references_tell_is_always_read(examples, monkeypatch):
    monkeypatch.setattr(training, "SLOTS", 99)
    drawn = [training.draw_rows(examples, random.Random(number)) for number in range(300)]
    seen = {name: 0 for name in ("negative", "unposed", "no tokens", "no references")}
    for rows in drawn:
        for row, target in enumerate(rows.targets):
            parts = [part for part in rows.parts if part.row == row]
            whole = examples.targets.wholes[target]
            seen["unposed"] += not rows.posed[row]
            if rows.captions[row] == "":
                seen["negative"] += 1
                assert not parts and not rows.seen[row] and not whole.reshaped
                continue
            assert rows.captions[row] == examples.captions[target]
            assert set(whole.reshaped) <= {part.label for part in parts}
            seen["no tokens"] += not rows.seen[row]
            seen["no references"] += not parts
            for part in parts:
                assert part.label == EVERYTHING or whole.sources[part.label] == part.number
    assert all(20 < count < 120 for count in seen.values()), seen


def test_the_reference_unet_begins_as_the_base_and_learns_only_changes_of_it(examples):
    model = WholeModel(new_whole(SEED))
    predictor = training.Predictor(model, examples, Run(None, torch.device("cpu"), torch.float32, SEED))
    parts = [training.Part(0, 0, EVERYTHING, examples_of.EXACT)]
    written = predictor.write(parts)
    base, state = empty_reference_unet(unet_config()), base_weights()
    base.load_state_dict({key: state[key] for key in base.state_dict()}, assign=True)
    references = examples.references
    expected = write_references(
        base, references.latents[:1].float(), examples.texts.of([EVERYTHING]),
        references.mask(0, EVERYTHING, examples_of.EXACT)[None],
    )
    for block, each in expected.items():
        assert len(written[block].features) == training.SLOTS
        torch.testing.assert_close(written[block].features[:1], each.features, atol=1e-3, rtol=1e-3)
    noisy = torch.randn(2, 12, 16, 16)
    rows = replace(training.draw_rows(examples, random.Random(1)), parts=parts)
    found = predictor.predict(rows, noisy, torch.tensor([10, 900]))
    assert found.shape == noisy.shape and found.isfinite().all()
    found.square().mean().backward()
    taught = [name for name, value in model.reference_unet.named_parameters() if value.grad is not None]
    assert taught and all(".parametrizations." in name for name in taught)


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path, examples, monkeypatch):
    whole = training.train_whole(run_in(tmp_path / "a"), examples).state_dict()
    monkeypatch.setattr(stage, "SAVE_SECONDS", -1)
    draw, steps = training.draw_rows, []

    def stop(*arguments):
        steps.append(1)
        if len(steps) == 3:
            raise Stopped
        return draw(*arguments)

    monkeypatch.setattr(training, "draw_rows", stop)
    with pytest.raises(Stopped):
        training.train_whole(run_in(tmp_path / "b"), examples)
    resumed = training.train_whole(run_in(tmp_path / "b"), examples).state_dict()
    assert len(steps) == 4
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_the_stage_moves_all_that_is_not_the_bases_own_and_writes_a_small_file(tmp_path, monkeypatch):
    training.train_parts2whole(run_in(tmp_path / "run"), tmp_path / "weights")
    path = tmp_path / "weights" / WHOLE
    state, metadata = read_state(path)
    base = base_weights()
    assert metadata["version"] == weights.VERSION and len(metadata["base"]) == 64
    assert path.stat().st_size <= MOST_BYTES
    own = [key for key in state if key.startswith("unet.") and key.endswith("attn1.to_k.weight")]
    assert own and not any(torch.equal(state[key].float(), base[key.removeprefix("unet.")]) for key in own)
    assert not any(key.startswith("unet.conv_out") for key in state)
    changes = [key for key in state if key.startswith("reference_unet.") and key.endswith(UP)]
    assert len(changes) > 50 and any(state[key].any() for key in changes)
    (tmp_path / "weights" / weights.SD15).symlink_to(weights.FOLDER / weights.SD15)
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "weights")
    loaded = load_whole()
    assert loaded.pose_guider.latent_pixel == 16 and loaded.decoupled.token_dim == 256
    key = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k.weight"
    assert torch.equal(loaded.unet.state_dict()[key], state[f"unet.{key}"].float())
    assert not torch.equal(loaded.reference_unet.state_dict()[key], base[key])


def test_the_file_of_another_base_is_refused(tmp_path, monkeypatch):
    write_state(tmp_path / WHOLE, {"unet.a": torch.zeros(1)}, {"version": weights.VERSION, "base": "other"})
    (tmp_path / weights.SD15).symlink_to(weights.FOLDER / weights.SD15)
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    with pytest.raises(WeightFileError, match="Expected creature_parts2whole.safetensors to be made from"):
        load_whole()


def test_changes_of_low_rank_come_back_as_they_were():
    parts = new_whole(SEED)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in parts.reference_unet.named_parameters():
            if name.endswith(UP):
                parameter.normal_(0, 0.05)
    again = whole_of(base_weights(), changes_of(parts))
    latents, words, written = torch.randn(1, 12, 16, 16), torch.randn(1, 77, 96), ({}, {})
    with torch.no_grad():
        for unet, found in zip((parts.reference_unet, again.reference_unet), written, strict=True):
            unet(latents, 0, words, cross_attention_kwargs={"written": found})
    assert all(torch.allclose(written[0][block], written[1][block], atol=1e-5) for block in written[0])
