"""Load and Apply PartCraft: the published LoRA acts in ComfyUI's UNet, and what does not fit is refused."""
from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from tests.comfyui.nodes.partcraft.shared import IO, engine, folder_of, nodes, published_words, words_of
from tests.golden import assert_equal, relative_error
from tests.partcraft.test_files import random_words

# With its LoRA the tiny UNet multiplies what is rounded, see golden/README.md; a single module of the LoRA
# left out moves its output by 0.2 at least.
ROUNDED = 2e-3


def predict(inside, model, io):
    inside.comfy("model_management").load_models_gpu([model])
    with torch.inference_mode():
        return model.model.diffusion_model(
            io["sample"], io["timesteps"].float(), context=io["encoder"],
            transformer_options=model.model_options["transformer_options"])


def test_the_published_lora_acts_as_published(inside, golden, model, applied, clip, words):
    io = golden.below(IO, "unet/")
    assert_equal(predict(inside, model, io), io["out_no_lora"])
    assert relative_error(predict(inside, applied[0], io), io["out"]) < ROUNDED
    off = nodes(inside, "apply").ApplyPartCraft.execute(model, clip, words, 0.0).args[0]
    assert_equal(predict(inside, off, io), io["out_no_lora"])
    assert_equal(predict(inside, model, io), io["out_no_lora"])


def test_the_nodes_say_what_they_have_loaded(inside, bundled, model, clip, words):
    name = published_words(inside, bundled)
    text = nodes(inside, "loading").LoadPartCraft.execute(name).ui.as_dict()["text"][0]
    assert "128 modules" in text and "part0 (7)" in text and "words of 32 numbers" in text
    text = nodes(inside, "apply").ApplyPartCraft.execute(model, clip, words, 1.0).ui.as_dict()["text"][0]
    assert "128 of 128 modules matched" in text


def test_words_without_a_lora_are_applied_with_a_note(inside, bundled, model, clip):
    alone = words_of(inside, bundled, "mapper_l1")
    output = nodes(inside, "apply").ApplyPartCraft.execute(model, clip, alone, 1.0)
    assert "mapper_l1 has no LoRA" in output.ui.as_dict()["text"][0]
    assert torch.is_tensor(output.args[1].tokenize("<part1:2>")["l"][0][1][0])


def test_words_of_another_base_are_refused(inside, bundled, model, clip):
    words = words_of(inside, bundled, "mapper_xl")
    with pytest.raises(ValueError, match="that reads texts 72 numbers wide, .* got one that reads 32"):
        nodes(inside, "apply").ApplyPartCraft.execute(model, clip, words, 1.0)
    wide = replace(words, mapper=engine(inside, "mapper").TokenMapper(2, 3, 768, 0))
    with pytest.raises(ValueError, match="768 numbers wide, as SD 1.5 does.* Load the base"):
        nodes(inside, "apply").check_model(model, wide)


def test_a_lora_of_another_model_is_refused(inside, bundled, model, clip):
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_{}.weight"
    lora = {key.format("down"): torch.ones(4, 48), key.format("up"): torch.ones(48, 4)}
    words = replace(words_of(inside, bundled, "mapper_l1"), lora=lora)
    with pytest.raises(ValueError, match="Expected a LoRA for this model"):
        nodes(inside, "apply").ApplyPartCraft.execute(model, clip, words, 1.0)
    words = replace(words, lora={name.replace("blocks_0_", "blocks_9_"): each for name, each in lora.items()})
    with pytest.raises(ValueError, match="expected a model for the LoRA in mapper_l1, got one with other"):
        nodes(inside, "apply").ApplyPartCraft.execute(model, clip, words, 1.0)


def test_a_lora_alone_is_refused_with_the_file_to_load(inside, bundled):
    name = published_words(inside, bundled).replace("model_1", "model")
    with pytest.raises(ValueError, match="got a LoRA alone.*pytorch_model_1.bin"):
        nodes(inside, "loading").LoadPartCraft.execute(name)
    offered = nodes(inside, "loading").word_files()
    assert "published/pytorch_model_1.bin" in offered and name not in offered


def test_the_names_of_words_can_be_chosen(inside):
    loading = nodes(inside, "loading")
    save_file(random_words(parts=8, codes=256, dim=4), folder_of(inside) / "eight.safetensors")
    save_file(random_words(parts=8, codes=256, dim=4), folder_of(inside) / "cub_again.safetensors")

    def parts(file, names):
        return loading.LoadPartCraft.execute(file, names).args[0].vocabulary.names()

    assert parts("eight.safetensors", loading.AS_FILE)[:2] == ["part0", "part1"]
    assert parts("eight.safetensors", loading.BIRDS) == ["body", "tail", "head", "wing", "leg", "background"]
    assert parts("eight.safetensors", loading.DOGS)[0] == "eye"
    assert parts("cub_again.safetensors", loading.AS_FILE)[2] == "head"
    assert parts("cub_again.safetensors", loading.NUMBERS)[2] == "part2"


def test_the_lists_hold_classes_and_numbers_and_stay_short(inside):
    loading, prompt = nodes(inside, "loading"), engine(inside, "prompt")
    birds = dict(loading.vocabularies())[loading.BIRDS]
    whose = loading.choices(birds)[1].options
    assert whose[16] == "cardinal" and whose[200:203] == ["1", "2", "3"] and whose[-1] == "256"
    many = prompt.Vocabulary((prompt.Part("part0", 90_000, named=False),))
    assert len(loading.choices(many)[1].options) == loading.MOST_LISTED


def test_a_link_that_leads_nowhere_hides_no_node(inside):
    folder = folder_of(inside)
    (folder / "gone.safetensors").symlink_to(folder / "nowhere.safetensors")
    folder_of(inside)
    assert "gone.safetensors" not in dict(nodes(inside, "loading").vocabularies())
    assert nodes(inside, "loading").PartWord.define_schema().node_id == "PiT_PartWords"
    (folder / "gone.safetensors").unlink()


def test_names_of_other_words_are_refused(inside):
    loading = nodes(inside, "loading")
    save_file(random_words(), folder_of(inside) / "three.safetensors")
    with pytest.raises(ValueError, match="names of 3 parts with at most 4 codes"):
        loading.LoadPartCraft.execute("three.safetensors", loading.BIRDS)


def test_a_missing_file_is_told_with_the_way_to_get_it(inside):
    message = nodes(inside, "loading").LoadPartCraft.validate_inputs("nowhere.bin")
    assert message.startswith("Load PartCraft expected a file from models/part_words")
    assert "python -m pit download partcraft-cub" in message


def test_words_are_loaded_again_when_their_lora_changes(inside, bundled):
    load, name = nodes(inside, "loading").LoadPartCraft, published_words(inside, bundled)
    before = load.fingerprint_inputs(name)
    assert before == load.fingerprint_inputs(name)
    (folder_of(inside) / "published" / "pytorch_model.bin").touch()
    assert load.fingerprint_inputs(name) != before


def test_part_words_writes_a_word_behind_a_text(inside):
    loading = nodes(inside, "loading")

    def written(part, whose, mixed="nothing", weight=1.0, text="a photo of a", file=loading.BIRDS):
        chosen = {"file": file, "part": part, "whose": whose, "mixed_with": mixed}
        return loading.PartWord.execute(chosen, weight, text).args

    assert written("head", "cardinal") == ("a photo of a <head:cardinal>", "<head:cardinal>")
    assert written("wing", "cardinal", "blue jay", 1.2)[1] == "(<wing:cardinal|blue jay>:1.2)"
    assert written("background", "256")[1] == "<background:256>"
    assert written("ear", "pug", text="", file=loading.DOGS) == ("<ear:pug>", "<ear:pug>")
    assert written("part3", "17", file=loading.NUMBERS)[1] == "<part3:17>"
    with pytest.raises(ValueError, match="a code of the part background, got 'cardinal'"):
        written("background", "cardinal")
    with pytest.raises(ValueError, match="got one that is not there. Choose .*birds"):
        written("head", "cardinal", file="gone.safetensors")


def test_part_words_offers_the_names_in_files_and_survives_damaged_ones(inside):
    loading, prompt = nodes(inside, "loading"), engine(inside, "prompt")
    (folder_of(inside) / "damaged.safetensors").write_bytes(b"no weights")
    known = prompt.Vocabulary((prompt.Part("horn", 2),), ("moss (old)", "ember"))
    mapper = engine(inside, "mapper").TokenMapper(1, 2, 4, 0)
    words = engine(inside, "files").PartWords(mapper, known, {}, "horns")
    engine(inside, "files").save_part_words(folder_of(inside) / "horns.safetensors", words)
    offered = dict(loading.vocabularies())
    assert offered["horns.safetensors"] == known and "damaged.safetensors" not in offered
    part, whose, mixed = loading.choices(known)
    assert part.options == ["horn"] and whose.options == ["moss (old)", "ember"]
    assert mixed.options == ["nothing", "moss (old)", "ember"]
    chosen = {"file": "horns.safetensors", "part": "horn", "whose": "moss (old)", "mixed_with": "nothing"}
    assert loading.PartWord.execute(chosen, 1.0, "").args[1] == r"<horn:moss \(old\)>"
    (folder_of(inside) / "damaged.safetensors").unlink()
