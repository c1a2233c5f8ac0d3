"""Find, Label, Save, Load and Measure with a tiny DINOv2: the engine's results, and bad input."""
from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from pit.encoders.dino import dino_features, dino_pixels, load_dino
from pit.images import to_pil, to_tensor
from pit.partcraft.discovery import caption, codes_of, discover, find_parts, words_in
from pit.partcraft.scores import measure_words
from tests.comfyui.nodes.partcraft.shared import folder_of, nodes
from tests.golden import assert_equal
from tests.partcraft.test_cluster_files import published_content, random_clusters, save_published

COLORS = ((220, 40, 40), (40, 200, 60), (50, 60, 230))


def drawn(number: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """A red, green or blue ball above a bar of another color, on noise."""
    random = np.random.default_rng(number)
    noise = random.integers(200, 255, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    draw, (width, height) = ImageDraw.Draw(picture), size
    draw.ellipse((width * 0.3, height * 0.2, width * 0.7, height * 0.6), fill=COLORS[number % 3])
    draw.rectangle((width * 0.25, height * 0.6, width * 0.75, height * 0.75), fill=COLORS[(number + 1) % 3])
    return picture


def batch(count: int = 12, size: tuple[int, int] = (64, 64)) -> torch.Tensor:
    return to_tensor([drawn(number, size) for number in range(count)])


def find(inside, dino, images, parts=3, codes=2, **more):
    pictures = {"pictures": "batch", "images": images}
    return nodes(inside, "find").FindParts.execute(dino, pictures, parts, codes, 42, **more)


@pytest.fixture(scope="module")
def clusters(inside, dino):
    return find(inside, dino, batch()).args[0]


def test_comfyui_sees_what_the_engine_sees(inside, dino):
    """The grid of places is that of the file, where nothing is interpolated."""
    model = load_dino(inside.base / "models" / "clip_vision" / "tiny_dino.safetensors")
    pixels = dino_pixels([drawn(1), drawn(2)], 64, 56)
    assert_equal(nodes(inside, "dino").features_of(dino, pixels), dino_features(model, pixels))
    assert dino.image_size == 56 and dino.model_type == "dinov2"


def test_parts_are_found_as_by_the_engine(inside, dino):
    output, seen = find(inside, dino, batch()), nodes(inside, "dino").middle_features
    clusters, sheet, codes, report = output.args
    pictures = to_pil(batch())
    expected = discover(lambda chosen: seen(dino, [pictures[each] for each in chosen]), 12, 3, 2)
    assert torch.equal(clusters.fine, expected.clusters.fine)
    assert clusters.foreground == expected.clusters.foreground
    lines = codes.splitlines()
    assert len(lines) == 12 and re.fullmatch(r"0( \d:\d)+", lines[0])
    assert "12 pictures, 3 parts" in report and "Found on 12 pictures, which is few" in report
    assert sheet.ndim == 4 and len(output.ui.as_dict()["images"]) == 1


def test_no_picture_is_encoded_twice(inside, dino, monkeypatch):
    seen, module = [], nodes(inside, "dino")
    middle = module.middle_features
    monkeypatch.setattr(
        module, "middle_features", lambda vision, each: seen.append(len(each)) or middle(vision, each))
    expected = find(inside, dino, batch()).args[0]
    assert sum(seen) == 12 and max(seen) <= module.PICTURES_AT_ONCE
    monkeypatch.setattr(module, "SAMPLE", 3)  # a collection larger than what is kept
    seen.clear()
    found = find(inside, dino, batch()).args[0]
    assert sum(seen) == 12 + 9 and torch.equal(found.fine, expected.fine)


def test_the_codes_follow_the_number_of_pictures(inside, dino):
    clusters = find(inside, dino, batch(), codes=0).args[0]
    assert clusters.fine.shape[1] == 3


def test_a_folder_is_read_with_its_folders_and_damaged_files_are_named(inside, dino):
    folder = inside.base / "input" / "balls"
    (folder / "more").mkdir(parents=True)
    for number in range(12):
        place = folder / "more" if number % 2 else folder
        drawn(number, (80, 60)).save(place / f"{number}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    (folder / "notes.txt").write_text("not a picture")
    node, chosen = nodes(inside, "find").FindParts, {"pictures": "folder", "folder": "balls"}
    before = node.fingerprint_inputs(chosen)
    *_, codes, report = node.execute(dino, chosen, 3, 2, 42).args
    assert [line.split()[0] for line in codes.splitlines()][-1] == "more/11.png"
    assert len(codes.splitlines()) == 12
    assert "broken.jpg" in report and "notes.txt" in report
    assert node.fingerprint_inputs(chosen) == before
    (folder / "more" / "1.png").touch()
    assert node.fingerprint_inputs(chosen) != before
    with pytest.raises(FileNotFoundError, match="Find Parts expected a folder inside ComfyUI's input folder"):
        node.execute(dino, {"pictures": "folder", "folder": "../elsewhere"}, 3, 2, 42)


def test_pictures_of_one_color_are_left_out_and_named(inside, dino):
    plain = torch.full((1, 64, 64, 3), 0.3)
    clusters, _, codes, report = find(inside, dino, torch.cat([batch(), plain])).args
    assert "left out: 12: of one color" in report and len(codes.splitlines()) == 12
    assert torch.equal(clusters.fine, find(inside, dino, batch()).args[0].fine)


def test_three_pictures_are_enough_with_a_note(inside, dino):
    clusters, *_, report = find(inside, dino, batch(3), codes=0).args
    assert "Found on 3 pictures, which is few" in report
    assert clusters.fine.isfinite().all()


@pytest.mark.parametrize("images, codes, message", [
    (batch(3), 4, "1 to 3 codes for 3 pictures, got 3 parts and 4 codes"),
    (torch.full((4, 64, 64, 3), 0.5), 0, "pictures to compare, got 0 that can be used.*0: of one color"),
    (batch(1), 0, "pictures to compare, got 1 that"),
    (torch.full((4, 64, 64, 3), float("nan")), 0, "got NaN or infinity"),
    (torch.rand(2, 64, 1400, 3), 0, "sides of at most 20 to 1"),
])
def test_pictures_without_parts_are_refused(inside, dino, images, codes, message):
    with pytest.raises(ValueError, match=message):
        find(inside, dino, images, codes=codes)


def test_features_that_are_not_finite_are_refused(inside, dino, clusters, monkeypatch):
    module, whole = nodes(inside, "dino"), nodes(inside, "dino").features_of
    monkeypatch.setattr(module, "features_of", lambda *each: whole(*each) * float("nan"))
    with pytest.raises(ValueError, match="Expected finite features, got NaN or infinity for picture"):
        find(inside, dino, batch())
    label = nodes(inside, "label").LabelParts.execute
    with pytest.raises(ValueError, match="Expected finite features"):
        label(dino, clusters, batch(1), "")


def test_another_encoder_is_refused_by_every_node(inside, dino, clusters):
    vision, image = inside.tiny.tiny_clip_vision(), batch(2)
    narrow = replace(clusters, coarse=clusters.coarse[:, :32])
    calls = {
        "Find Parts": [lambda: find(inside, vision, image)],
        "Label Parts": [
            lambda: nodes(inside, "label").LabelParts.execute(vision, clusters, image, ""),
            lambda: nodes(inside, "label").LabelParts.execute(dino, narrow, image, ""),
        ],
        "Measure Part Words": [
            lambda: nodes(inside, "measure").MeasurePartWords.execute(vision, clusters, image, "<part1:1>"),
            lambda: nodes(inside, "measure").MeasurePartWords.execute(dino, narrow, image, "<part1:1>"),
        ],
    }
    messages = "a DINOv2 as its CLIP_VISION", "the DINOv2 of width 32"
    for name, each in calls.items():
        for call, message in zip(each, messages, strict=False):
            with pytest.raises(ValueError, match=f"^{name} expected {message}"):
                call()


def test_a_search_tells_that_it_goes_on(inside, dino, monkeypatch):
    said, module = [], nodes(inside, "find")
    monkeypatch.setattr(module, "say", lambda node, text: said.append(text))
    monkeypatch.setattr(module, "TOLD_EVERY", 2)
    find(inside, dino, batch())
    assert said[0] == "looking for clusters: step 2" and said[-1].startswith("12 pictures")


def test_a_search_can_be_canceled(inside, dino, cancel_at):
    seen = cancel_at(1)
    with pytest.raises(inside.comfy("model_management").InterruptProcessingException):
        find(inside, dino, batch())
    assert len(seen) == 1


@pytest.mark.parametrize("size", [(64, 64), (90, 48), (40, 130)])
def test_pictures_of_any_size_are_labelled_whole(inside, dino, clusters, size):
    label, image = nodes(inside, "label"), batch(2, size)
    masks, preview, words, codes = label.LabelParts.execute(dino, clusters, image, "").args
    assert masks.shape == (2 * 3, size[1], size[0]) and preview.shape == image.shape
    # Each place belongs to one part.
    assert torch.equal(masks.unflatten(0, (2, 3)).sum(1), torch.ones(2, size[1], size[0]))
    seen = nodes(inside, "dino").whole_features(dino, to_pil(image)[1])
    found = find_parts(seen, clusters)
    expected = words_in(codes_of(found, clusters)[0].tolist(), clusters.absent)
    assert words.splitlines()[1] == " ".join(map(clusters.vocabulary.text, expected))
    assert len(codes.splitlines()) == 2


def test_the_middle_is_labelled_as_the_clusters_were_found(inside, dino, clusters):
    label, image = nodes(inside, "label"), batch(1, (128, 64))
    masks, preview, words, codes = label.LabelParts.execute(dino, clusters, image, "", label.MIDDLE).args
    # 224 of 256 of the shorter side, in the middle.
    covered = masks.sum(0)
    assert covered[4:60, 36:92].eq(1).all() and covered.sum() == 56 * 56
    assert_equal(preview[0, :4], image[0, :4])
    found = find_parts(nodes(inside, "dino").middle_features(dino, to_pil(image)), clusters)
    assert codes == caption(codes_of(found, clusters)[0].tolist(), clusters.absent)


def test_parts_are_chosen_by_name(inside, dino, clusters):
    label, known = nodes(inside, "label"), clusters.vocabulary
    everything = label.LabelParts.execute(dino, clusters, batch(2), "").args[0].unflatten(0, (2, 3))
    names = [known.parts[2].name, known.parts[0].name]
    chosen = label.LabelParts.execute(dino, clusters, batch(2), ", ".join(names)).args[0]
    assert torch.equal(chosen, everything[:, [2, 0]].flatten(0, 1))
    with pytest.raises(ValueError, match="got 'backgrond'. Did you mean background"):
        label.LabelParts.execute(dino, clusters, batch(2), "backgrond")


def test_clusters_are_named_and_kept(inside, clusters):
    module = nodes(inside, "clusters")
    front = [number for number in range(3) if number != clusters.background_part]
    names = ["", "", ""]
    names[front[0]] = "Ball"
    saved = module.SaveClusters.execute(clusters, "balls", ", ".join(names), "red\ngreen").args[0]
    folder_of(inside, "part_clusters")
    loaded = module.LoadClusters.execute("balls.safetensors").args[0]
    assert loaded.vocabulary == saved.vocabulary and torch.equal(loaded.fine, clusters.fine)
    assert (loaded.foreground, loaded.background_part) == (clusters.foreground, clusters.background_part)
    word = loaded.vocabulary.word("ball", "green")
    assert (word.part, word.codes) == (front[0], (1,))
    assert loaded.vocabulary.text(word) == "<Ball:green>"
    assert loaded.vocabulary.parts[clusters.background_part].name == "background"
    with pytest.raises(ValueError, match="a file that does not tell its foreground"):
        module.LoadClusters.execute("balls.safetensors", list(module.CHOICES)[1 + (1 - clusters.foreground)])


def test_published_clusters_are_loaded_without_their_library(inside, monkeypatch):
    """The foreground, of which they say nothing, can be chosen."""
    module, clusters = nodes(inside, "clusters"), random_clusters()
    folder = folder_of(inside, "part_clusters")
    save_published(folder / "pretrained_kmeans.pth", published_content(clusters), monkeypatch)
    loaded = module.LoadClusters.execute("pretrained_kmeans.pth").args[0]
    assert torch.equal(loaded.fine, clusters.fine) and loaded.foreground == 0
    second = list(module.CHOICES)[2]
    assert module.LoadClusters.execute("pretrained_kmeans.pth", second).args[0].foreground == 1
    save_published(folder / "other.pth", [1, random_clusters().fine], monkeypatch)
    with pytest.raises(ValueError, match="other.pth"):
        module.LoadClusters.execute("other.pth")


@pytest.mark.parametrize("names, codes, message", [
    ("a, b, c, d", "", "names of at most 3 parts"), ("a, A", "", "'a' twice"), ("a:b", "", "without <, >"),
    ("17", "", "no number"), ("", "red\ngreen\nblue", "3 parts and 2 codes"), ("", "red\nRed", "'red' twice"),
    ("x" * 101, "", "at most 100 letters"),
])
def test_names_that_a_word_cannot_hold_are_refused(inside, clusters, names, codes, message):
    with pytest.raises(ValueError, match=message):
        nodes(inside, "clusters").SaveClusters.execute(clusters, "bad", names, codes)
    assert not (folder_of(inside, "part_clusters") / "bad.safetensors").exists()


def test_clusters_stay_in_their_folder(inside, clusters):
    with pytest.raises(ValueError):
        nodes(inside, "clusters").SaveClusters.execute(clusters, "../elsewhere", "")


def test_part_words_are_measured_as_by_the_engine(inside, dino, clusters):
    measure, image = nodes(inside, "measure").MeasurePartWords, batch(3)
    found = find_parts(nodes(inside, "dino").middle_features(dino, to_pil(image)), clusters)
    own = [words_in(codes, clusters.absent) for codes in codes_of(found, clusters).tolist()]
    prompts = "\n".join(f"a {' '.join(map(clusters.vocabulary.text, words))} ball" for words in own)
    exact, similarity, there, report = measure.execute(dino, clusters, image, prompts).args
    assert (exact, there) == (1, 1) and similarity == pytest.approx(1, abs=1e-5)
    expected = measure_words(found, clusters, own)
    assert f"{expected.count} part words" in report and "EMR 100.0%" in report
    name = next(part.name for part in clusters.vocabulary.parts if part.name != "background")
    values = measure.execute(dino, clusters, image, f"a <{name}:1> ball").args
    one = clusters.vocabulary.word(name, "1")
    assert values[:3] == pytest.approx(measure_words(found, clusters, [[one]] * 3)[:3])


@pytest.mark.parametrize("prompts, message", [
    ("", "one prompt for all pictures or one line for each of 3, got 0"),
    ("a\nb", "one line for each of 3, got 2"), ("a ball", "Expected part words in the prompts, got none"),
    ("<prt1:1>", "Did you mean part"), ("<part9:1>", "a part that these part words have"),
])
def test_prompts_that_cannot_be_measured_are_refused(inside, dino, clusters, prompts, message):
    with pytest.raises(ValueError, match=message):
        nodes(inside, "measure").MeasurePartWords.execute(dino, clusters, batch(3), prompts)


def test_comfyui_loads_and_frees_the_dino(inside, dino, clusters):
    management = inside.comfy("model_management")
    management.unload_all_models()
    nodes(inside, "label").LabelParts.execute(dino, clusters, batch(1), "")
    assert any(each.model is dino.patcher for each in management.current_loaded_models)


def test_a_missing_dino_is_told_with_the_way_to_get_it(inside):
    message = nodes(inside, "dino").LoadDino.validate_inputs("nowhere.safetensors")
    assert message.startswith("Load DINOv2 expected a file from models/clip_vision")
    assert "python -m pit download dinov2-base" in message
