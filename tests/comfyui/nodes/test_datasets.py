"""Make Parts, Load Dataset, Creature Dataset and Dataset Prompts, and names that lead elsewhere."""

import random

import pytest
import torch
from PIL import Image

from tests.comfyui.nodes.graphs import node, render_graph, training_graph

PARTS = {"smallest": 0.015, "largest": 0.3, "most": 8, "drop_largest": False, "drop_border": False}
HOSTILE = ["..", ".", "", "  ", "../escaped", "a/../../escaped", "..\\escaped", "C:escaped", "/escaped"]
ODD = ["a\0b", "n" * 400, "con", "\u00e4\U0001f409 name", "name.", ".hidden", "co:lon", "line\nline"]


def drawn(*colours):
    """A picture `[1, 100, 100, 3]` of squares in a row on white, and their masks `[N, 100, 100]`."""
    picture, masks = torch.ones(1, 100, 100, 3), torch.zeros(len(colours), 100, 100)
    for number, colour in enumerate(colours):
        place = slice(30, 60), slice(5 + 30 * number, 30 + 30 * number)
        picture[0][place], masks[number][place] = torch.tensor(colour), 1.0
    return picture, masks


RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


@pytest.fixture
def make_parts(inside):
    """Runs Make Parts as ComfyUI does, with everything in lists; returns dataset, sheet and report."""
    def run(name, images, masks=None, **changes):
        rules = {key: [value] for key, value in (PARTS | changes).items()}
        with torch.inference_mode():
            return inside.nodes("datasets").MakeParts.execute(images, [name], masks=masks, **rules).args

    return run


@pytest.fixture
def load_dataset(inside):
    return inside.nodes("datasets").LoadDataset


def sizes_of(dataset):
    return sorted(len(concept.parts) for concept in dataset.concepts)


def test_a_list_of_pictures_with_masks_becomes_targets_and_parts(make_parts):
    (first, its_masks), (second, one_mask) = drawn(RED, BLUE), drawn(BLUE)
    dataset, sheet, report = make_parts("listed", [first, second], [its_masks, one_mask])
    assert sizes_of(dataset) == [1, 2] and sheet.shape[0] == 1
    assert "2 concepts" in report and "parts: 3" in report
    colours = {Image.open(part).getpixel((5, 5)) for concept in dataset.concepts for part in concept.parts}
    assert colours == {(255, 0, 0), (0, 0, 255)}


def test_a_batch_takes_one_mask_for_each_picture(make_parts):
    (first, masks), (second, other) = drawn(RED, BLUE), drawn(BLUE)
    dataset, _, _ = make_parts("batched", [torch.cat([first, second])], [torch.cat([masks[1:], other])])
    assert sizes_of(dataset) == [1, 1]


def test_without_masks_the_parts_are_found_by_color(make_parts):
    dataset, _, report = make_parts("coloured", [drawn(RED, BLUE)[0], torch.rand(1, 60, 60, 3)])
    assert sizes_of(dataset) == [2]
    assert "left out: 1, without masks and not on plain ground" in report


def test_the_same_picture_again_replaces_itself_and_others_are_added(make_parts):
    picture, masks = drawn(RED, BLUE)
    make_parts("added", [picture], [masks])
    dataset, _, _ = make_parts("added", [picture, drawn(BLUE)[0]], [masks[:1], drawn(BLUE)[1]])
    assert sizes_of(dataset) == [1, 1]


def test_no_mask_of_a_picture_leaves_it_out(make_parts):
    """As SAM3 Detect answers where it finds nothing."""
    picture, masks = drawn(RED)
    _, _, report = make_parts("missed", [picture, drawn(BLUE)[0]], [masks, torch.zeros(0, 100, 100)])
    assert "1 concepts" in report and "left out: 1, without a part that covers 0.015 to 0.3" in report


def test_masks_that_do_not_pair_are_refused_with_both_numbers(make_parts):
    picture, masks = drawn(RED, BLUE)
    two = torch.cat([picture, picture])
    for images, given, words in (
        ([picture, picture], [masks], "each of 2 pictures, got 1"),
        ([picture], [masks, masks], "each of 1 pictures, got 2"),
        ([two], [torch.cat([masks, masks])], "a batch of 2, got 4"),
        ([picture], [masks[:, :50]], "size 100x100, got 100x50"),
    ):
        with pytest.raises(ValueError, match=words):
            make_parts("unpaired", images, given)


def test_pictures_without_parts_are_one_error(make_parts, inside):
    plain, noise = torch.full((2, 50, 50, 3), 0.5), torch.rand(1, 60, 60, 3)
    with pytest.raises(ValueError, match="at least one of 3 pictures, got none .*left out: 2.*; left out: 1"):
        make_parts("partless", [plain, noise])
    assert not (inside.base / "output" / "ip_prior_datasets" / "partless").exists()


def test_a_range_that_lets_nothing_through_is_refused(make_parts):
    with pytest.raises(ValueError, match="smallest 0.5, largest 0.3"):
        make_parts("nothing", [drawn(RED)[0]], smallest=0.5)


def test_load_dataset_reads_what_make_parts_wrote_and_folders_of_input(make_parts, load_dataset, inside):
    picture, masks = drawn(RED, BLUE)
    made, _, _ = make_parts("reread", [picture], [masks])
    assert load_dataset.execute("output/reread").args[0].concepts == made.concepts
    place = inside.base / "input" / "a published: one. " / "set_1"
    place.mkdir(parents=True)
    for name in ("a_b.jpg", "a_b_0.jpg"):
        Image.new("RGB", (9, 9)).save(place / name)
    assert load_dataset.validate_inputs("input/a published: one. ") is True
    dataset, _, report = load_dataset.execute("input/a published: one. ").args
    assert sizes_of(dataset) == [1] and "as published" in report


def test_load_dataset_notices_new_pictures(make_parts, load_dataset):
    picture, masks = drawn(RED, BLUE)
    make_parts("noticed", [picture], [masks])
    before = load_dataset.fingerprint_inputs("output/noticed")
    assert load_dataset.fingerprint_inputs("output/noticed") == before
    make_parts("noticed", [drawn(BLUE)[0]], [drawn(BLUE)[1]])
    assert load_dataset.fingerprint_inputs("output/noticed") != before


def test_prompts_and_seeds_are_as_many_as_asked_for(inside):
    prompts, seeds = inside.nodes("datasets").DatasetPrompts.execute("products", 5, 3).args
    assert len(set(prompts)) == len(set(seeds)) == 5
    more, _ = inside.nodes("datasets").DatasetPrompts.execute("products", 7, 3).args
    assert more[:5] == prompts and max(seeds) < 2**64


# In a running server --------------------------------------------------------------------------------------


def files(lab):
    """All that lies in ComfyUI's base directory and beside it, but what the nodes and ComfyUI may write."""
    own = ("output/ip_prior_datasets", "output/ip_prior_tokens", "models/ip_prior", "temp", "user")
    allowed = tuple(f"{lab.base.name}/{folder}" for folder in own)
    (lab.base / "output").mkdir(exist_ok=True)  # the first picture makes it
    paths = {path.relative_to(lab.base.parent).as_posix() for path in lab.base.parent.rglob("*")}
    return {path for path in paths if not path.startswith(allowed)}


def graphs_with(name):
    """One graph for each node that writes into a folder of this name."""
    yield "PiT_MakeParts", {
        "picture": node("Tiny_Image", count=1, height=40, width=30, channels=3),
        "parts": node("PiT_MakeParts", images=["picture", 0], masks=["picture", 1], name=name, **PARTS),
    }
    yield "PiT_CreatureDataset", {
        "dataset": node("PiT_CreatureDataset", count=1, coherence=0.3, seed=0, name=name)}
    encode = training_graph(tokens__name=name, dataset__name="named")
    yield "PiT_EncodeDataset", {key: encode[key] for key in ("models", "dataset", "tokens")}
    yield "PiT_TrainPrior", training_graph(
        train__name=name, train__steps=1, tokens__name="named", dataset__name="named")


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_lead_elsewhere_are_refused(lab, name):
    before = files(lab)
    for kind, graph in graphs_with(name):
        result = lab.queue(graph)
        assert result.status == "error" and kind in result.error, (kind, result.error)
        assert "Expected a plain name" in result.error
    assert files(lab) == before


@pytest.mark.parametrize("name", ODD)
def test_odd_names_stay_in_their_folder(lab, name):
    before = files(lab)
    for kind, graph in list(graphs_with(name))[1:]:  # the picture of the first has no parts
        result = lab.queue(graph)
        assert result.status == "success", (kind, result.error)
    assert files(lab) == before


@pytest.mark.parametrize(
    "choice", ["input/..", "output/../..", "output/", "/etc", "input", "input/a\0b", "no folder in input"]
)
def test_load_dataset_takes_only_what_it_offers(lab, choice):
    graph = {"dataset": node("PiT_LoadDataset", folder=choice)}
    result = lab.queue(graph)
    assert result.status == "refused" and "Load Dataset expected a folder" in result.error, result.error


def test_a_long_list_of_folders_does_not_make_a_long_error(inside, monkeypatch):
    datasets = inside.nodes("datasets")
    folders = {f"input/{'x' * 20}{number}": None for number in range(300)}
    monkeypatch.setattr(datasets, "dataset_folders", lambda: folders)
    with pytest.raises(FileNotFoundError, match="xx7 and 292 more") as error:
        datasets.chosen_folder("input/absent")
    assert len(str(error.value)) < 1000


def test_after_all_that_a_graph_renders(lab):
    result = lab.queue(render_graph(sample__seed=random.randrange(2**32)))
    assert result.status == "success", result.error
