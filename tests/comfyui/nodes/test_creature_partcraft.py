"""The creatures' PartCraft in ComfyUI: what loaders offer, and what the nodes make of it."""
from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.demo.untrained_parts import CLUSTERS, DINO, NAME, WORDS, write_untrained

pytest.importorskip("diffusers", reason="the creature models are trained with diffusers")
MIXTURE = {"body": "tide", "horns": "ember", "tail": "moss"}


def nodes(inside, name):
    return inside.pack(f"nodes.partcraft.{name}")


@pytest.fixture(scope="module", autouse=True)
def untrained(inside, tmp_path_factory):
    """The pack with models of random weights in place of the shipped ones."""
    folder = write_untrained(tmp_path_factory.mktemp("parts") / "weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inside.pack("pit.demo.models.weights"), "FOLDER", folder)
        for module, file in (("dino", DINO), ("clusters", CLUSTERS), ("loading", WORDS)):
            patch.setitem(nodes(inside, module).FILES.shipped, NAME, folder / file)
        yield folder


@pytest.fixture(scope="module")
def loaded(inside, creature_sd15):
    """MODEL and CLIP with part words, DINOv2, PIT_PART_CLUSTERS, and the words themselves."""
    with torch.inference_mode():
        words = nodes(inside, "loading").LoadPartCraft.execute(NAME).args[0]
        model, clip = nodes(inside, "apply").ApplyPartCraft.execute(*creature_sd15[:2], words, 1.0).args
        return SimpleNamespace(
            model=model, clip=clip, words=words, dino=nodes(inside, "dino").LoadDino.execute(NAME).args[0],
            clusters=nodes(inside, "clusters").LoadClusters.execute(NAME).args[0],
        )


def test_the_lists_offer_them_with_the_names_of_species(inside):
    loading = nodes(inside, "loading")
    assert NAME in loading.word_files() and dict(loading.vocabularies())[NAME].names()[1:4] == [
        "body", "eyes", "mouth",
    ]
    text = "a photo of a"
    for part, species in MIXTURE.items():
        chosen = {"file": NAME, "part": part, "whose": species, "mixed_with": "nothing"}
        text = loading.PartWord.execute(chosen, 1.0, text).args[0]
    assert text == "a photo of a <body:tide> <horns:ember> <tail:moss>"


def test_comfyui_reads_the_words_as_the_measures_do(inside, untrained, loaded):
    import nodes as comfyui

    models = inside.pack("pit.demo.models.part_words")
    artist, known = models.PartArtist(loaded.words), loaded.words.vocabulary
    prompt = [known.word(part, species) for part, species in MIXTURE.items()]
    with torch.inference_mode():
        context = comfyui.CLIPTextEncode().encode(loaded.clip, " ".join(map(known.text, prompt)))[0][0][0]
    torch.testing.assert_close(context, artist.read([prompt]), atol=2e-3, rtol=2e-3)


def test_comfyui_sees_creatures_as_the_measures_do(inside, untrained, loaded):
    pack = inside.pack("pit.demo.part_places")
    creatures = inside.pack("pit.demo.measure.parts_found").free_creatures(0, 2)
    pictures = pack.draw_collection(creatures).pictures
    seen = nodes(inside, "dino").middle_features(loaded.dino, pictures)
    theirs = pack.features_of(inside.pack("pit.demo.models.part_words").load_creature_dino(), pictures)
    assert seen.shape == theirs.shape == (2, 128, 16, 16)
    torch.testing.assert_close(seen.float().cpu(), theirs, atol=2e-2, rtol=2e-2)


def test_parts_are_labeled_with_the_shipped_clusters(inside, loaded):
    creatures = inside.pack("pit.demo.measure.parts_found").free_creatures(1, 1)
    drawn = inside.pack("pit.demo.part_places").draw_collection(creatures)
    picture = inside.pack("pit.images").to_tensor(drawn.pictures)
    with torch.inference_mode():
        masks = nodes(inside, "label").LabelParts.execute(loaded.dino, loaded.clusters, picture, "").args[0]
    assert masks.shape[0] == len(loaded.clusters.coarse) and masks.sum(0).max() <= 1.01


def test_species_become_folders_in_input(inside):
    import folder_paths

    species = inside.pack("nodes.creatures.species").CreatureSpecies
    with torch.inference_mode():
        folder, images = species.execute(1, 0, "some_species").args
    assert folder == "some_species" and images.shape == (8, 256, 256, 3)
    folders = [each for each in Path(folder_paths.get_input_directory(), folder).iterdir() if each.is_dir()]
    assert len(folders) == 8
    with pytest.raises(ValueError, match="leads to another folder"):
        species.execute(1, 0, "../elsewhere")
