"""Find, edit, combine and keep directions: in a running ComfyUI, and with tensors to look at."""

import pytest
import torch
from PIL import Image

from tests.comfyui.nodes.graphs import changed, node

KINDS = "no wings to bat wings"


def direction_graph(**changes) -> dict:
    """A direction from pictures of two kinds, kept; one creature edited along it; the strip of both."""
    graph = {
        "models": node("PiT_LoadCreatureModels"),
        "kinds": node("PiT_CreatureKinds", difference=KINDS, count=6, seed=0),
        "find": node(
            "PiT_FindDirection", clip_vision=["models", 3], ip_adapter=["models", 4], pictures="batches",
            pictures__first=["kinds", 0], pictures__second=["kinds", 1], method="shrinkage",
        ),
        "save": node("PiT_SaveDirection", direction=["find", 0], name="wings"),
        "one": node("PiT_CreatureKinds", difference=KINDS, count=1, seed=50),
        "encode": node(
            "PiT_EncodeImage", clip_vision=["models", 3], ip_adapter=["models", 4], image=["one", 0],
        ),
        "edit": node(
            "PiT_DirectionEdit", tokens=["encode", 0], direction=["find", 0], amounts="-1 to 1 in 3",
            unit="recommended",
        ),
        "pictures": node("EmptyImage", width=32, height=32, batch_size=3, color=0x00ff00),
        "strip": node("PiT_LabelledStrip", images=["pictures", 0], labels=["edit", 1], columns=0),
        "loaded": node("Tiny_Loaded", after=["edit", 0]),
        "shown": node("PreviewImage", images=["strip", 0]),
    }
    return changed(graph, changes)


def finished(lab, graph):
    result = lab.queue(graph)
    assert result.status == "success", result.error
    return result


@pytest.fixture(scope="module")
def found(inside, shipped):
    """The directions in token space and CLIP space that eight pictures of each kind give."""
    first, second = inside.pack("nodes.creatures.parts").CreatureKinds.execute(KINDS, 8, 0).args
    pictures = {"pictures": "batches", "first": first, "second": second}
    return find(inside, shipped, pictures).args


@pytest.fixture(scope="module")
def encoded(inside, shipped):
    """Tokens of two creatures without wings."""
    creatures, _ = inside.pack("nodes.creatures.parts").CreatureKinds.execute(KINDS, 2, 50).args
    with torch.inference_mode():
        return inside.nodes("parts").EncodeImage.execute(shipped[3], shipped[4], creatures).args[0]


def find(inside, shipped, pictures, method="shrinkage"):
    with torch.inference_mode():
        return inside.nodes("find_direction").FindDirection.execute(shipped[3], shipped[4], pictures, method)


def edit(inside, *inputs, **more):
    with torch.inference_mode():
        return inside.nodes("directions").DirectionEdit.execute(*inputs, **more).args


def test_a_graph_finds_keeps_and_edits(lab):
    result = finished(lab, direction_graph())
    assert (lab.base / "models" / "ip_directions" / "wings.safetensors").is_file()
    assert len(result.outputs["find"]["images"]) == len(result.outputs["strip"]["images"]) == 1
    told = [event for event in result.events if event["type"] == "progress"]
    assert told[-1]["data"]["max"] >= 1
    loaded = direction_graph(
        find=node("PiT_LoadDirection", file="wings.safetensors"),
        save=node("PiT_SaveDirection", direction=["find", 0], name="wings again"),
    )
    text = finished(lab, loaded).outputs["find"]["text"][0]
    assert "space: tokens" in text and "method: shrinkage" in text and "recommended: " in text
    folder = lab.base / "models" / "ip_directions"
    one, other = ((folder / f"{name}.safetensors").read_bytes() for name in ("wings", "wings again"))
    assert one != other  # it says where it comes from


def test_a_file_that_is_written_anew_is_read_anew(lab):
    path = lab.base / "models" / "ip_directions" / "changing.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(torch.zeros(16, 64), path)
    graph = direction_graph(find=node("PiT_LoadDirection", file="changing.pt"), edit__unit="raw")
    del graph["save"]
    finished(lab, graph)
    torch.save(torch.ones(17, 192), path)
    assert "changing.pt is in CLIP space; got none" in lab.queue(graph).error


def test_folders_give_what_their_pictures_give(inside, shipped, found):
    first, second = inside.pack("nodes.creatures.parts").CreatureKinds.execute(KINDS, 8, 0).args
    root = inside.base / "input" / "kinds"
    for name, batch in (("without", first), ("with", second)):
        (root / name).mkdir(parents=True)
        for number, picture in enumerate(inside.pack("pit.images").to_pil(batch)):
            picture.save(root / name / f"{number}.png")
    (root / "with" / "broken.png").write_bytes(b"no picture")
    pictures = {"pictures": "folders", "first_folder": "kinds/without", "second_folder": "kinds/with"}
    tokens, clip, chart, report = find(inside, shipped, pictures).args
    torch.testing.assert_close(tokens.values, found[0].values, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(clip.values, found[1].values, rtol=1e-4, atol=1e-5)
    assert "broken.png" in report and chart.shape[3] == 3


def test_the_directions_lie_in_both_spaces(found, shipped):
    tokens, clip, _, report = found
    assert (tokens.space, tuple(tokens.values.shape)) == ("tokens", (16, 64))
    assert (clip.space, tuple(clip.values.shape)) == ("clip", (64, 192))
    assert tokens.adapter == shipped[4].stamp and tokens.notes["adapter"] == shipped[4].name
    assert "token space: " in report and "CLIP space: " in report


def test_the_published_method_is_the_difference_of_means(inside, shipped):
    first, second = inside.pack("nodes.creatures.parts").CreatureKinds.execute(KINDS, 4, 1).args
    pictures = {"pictures": "batches", "first": first, "second": second}
    direction = find(inside, shipped, pictures, "difference of means").args[0]
    encode = inside.nodes("parts").EncodeImage
    with torch.inference_mode():
        means = [encode.execute(shipped[3], shipped[4], each).args[0].values.mean(dim=0)
                 for each in (first, second)]
    torch.testing.assert_close(direction.values, means[1] - means[0], rtol=1e-4, atol=1e-5)


def test_an_edit_moves_every_concept_by_every_amount(inside, found, encoded):
    done, labels = edit(inside, encoded, found[0], "-1, 0, 0.5", "raw")
    expected = [encoded.values + amount * found[0].values for amount in (-1, 0, 0.5)]
    torch.testing.assert_close(done.values, torch.cat(expected))
    assert labels.split("\n") == ["-1", "-1", "0", "0", "0.5", "0.5"]
    assert done.adapter == encoded.adapter


@pytest.mark.parametrize("unit, name", [("standard deviations", "deviation"), ("recommended", "recommended")])
def test_amounts_have_units(inside, found, encoded, unit, name):
    done, _ = edit(inside, encoded, found[0], "2", unit)
    moved = encoded.values + 2 * getattr(found[0], name) * found[0].values
    torch.testing.assert_close(done.values, moved)


def test_only_some_tokens_are_edited(inside, found, encoded):
    done, _ = edit(inside, encoded, found[0], "1", "raw", "1, 15-16")
    changed = (done.values - encoded.values).abs().sum(dim=-1)[0] > 0
    assert changed.nonzero().flatten().tolist() == [0, 14, 15]


def test_a_direction_of_clip_space_is_applied_before_the_resampler(inside, shipped, found, encoded):
    done, _ = edit(inside, encoded, found[1], "0, 1", "raw", ip_adapter=shipped[4])
    with torch.inference_mode():
        expected = shipped[4].resampler.model(encoded.features + found[1].values)
    torch.testing.assert_close(done.values[:2], encoded.values, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(done.values[2:], expected, rtol=1e-4, atol=1e-4)
    twice, _ = edit(inside, done, found[1], "1", "raw", ip_adapter=shipped[4])
    assert len(twice.values) == 4


def test_directions_are_combined_and_freed_of_each_other(inside, found):
    combine = inside.nodes("directions").CombineDirections.execute
    first = found[0]
    second = inside.concepts("directions").Direction(torch.randn(16, 64), "tokens", source="chance")
    weights = {"mode": "sum", "weight_first": 2.0, "weight_second": -1.0}
    both = combine(first, second, weights).args[0]
    torch.testing.assert_close(both.values, 2 * first.values - second.values)
    freed = combine(first, second, {"mode": "first without second"}).args[0]
    assert abs((freed.values * second.values).sum()) < 1e-3


def test_a_strip_has_the_original_first(inside):
    strip = inside.nodes("concepts").LabelledStrip.execute
    images, original = torch.zeros(2, 40, 40, 3), torch.ones(1, 20, 40, 3)
    picture = strip(images, "a\nb", 0, original).args[0][0]
    assert picture.shape[1] == 3 * 40 and picture[-20:, :40].mean() == 1 and picture[-40:, 40:].mean() == 0
    assert strip(images, "", 1).args[0].shape[1:3] == (2 * (40 + 20), 40)


# Bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(0, 4), (4, 0), (1, 4), (4, 1)])
def test_too_few_pictures_are_refused(inside, shipped, counts):
    first, second = (torch.rand(count, 32, 32, 3) for count in counts)
    with pytest.raises(ValueError, match=f"at least 2 .* of each kind, got {counts[0]} and {counts[1]}"):
        inside.nodes("find_direction").found_directions(
            shipped[3], shipped[4],
            [inside.pack("pit.images").to_pil(each) if len(each) else [] for each in (first, second)],
            "shrinkage",
        )


def test_the_same_pictures_or_folder_twice_are_refused(inside, shipped):
    pictures = torch.rand(3, 32, 32, 3)
    with pytest.raises(ValueError, match="the same pictures"):
        find(inside, shipped, {"pictures": "batches", "first": pictures, "second": pictures})
    folders = {"pictures": "folders", "first_folder": "a", "second_folder": "a"}
    with pytest.raises(ValueError, match="expected two different folders, got 'a' twice"):
        find(inside, shipped, folders)


@pytest.mark.parametrize("folder", ["../outside", "/etc", "kinds/../../outside", "absent"])
def test_a_folder_outside_of_input_is_refused(inside, shipped, folder):
    outside = inside.base / "outside"
    outside.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(outside / "1.png")
    (inside.base / "input" / "inner").mkdir(parents=True, exist_ok=True)
    pictures = {"pictures": "folders", "first_folder": "inner", "second_folder": folder}
    with pytest.raises(FileNotFoundError, match="inside ComfyUI's input folder"):
        find(inside, shipped, pictures)


def test_the_server_refuses_a_folder_that_it_does_not_offer(lab):
    graph = direction_graph()
    graph["find"]["inputs"] |= {
        "pictures": "folders", "pictures.first_folder": "../models", "pictures.second_folder": "../output",
    }
    result = lab.queue(graph)
    assert result.status == "refused" and "first_folder" in result.error


@pytest.mark.parametrize("amounts", ["", "much", "nan", "1, inf", "1 to 2", "-1 to 1 in 1", "1e9"])
def test_amounts_that_are_no_numbers_are_refused(inside, found, encoded, amounts):
    with pytest.raises(ValueError, match="Expected"):
        edit(inside, encoded, found[0], amounts, "raw")


def test_what_a_direction_does_not_know_is_named(inside, encoded):
    bare = inside.concepts("directions").Direction(torch.ones(16, 64), "tokens", source="scrawny.pt")
    with pytest.raises(ValueError, match="scrawny.pt, which does not say how far"):
        edit(inside, encoded, bare, "1", "standard deviations")
    with pytest.raises(ValueError, match="expected a direction with a recommended amount, got scrawny.pt"):
        edit(inside, encoded, bare, "1", "recommended")


def test_a_direction_that_does_not_fit_is_refused(inside, shipped, found, encoded):
    directions, tokens = inside.concepts("directions"), inside.concepts("tokens")
    wide = directions.Direction(torch.ones(16, 2048), "tokens", source="wide")
    with pytest.raises(ValueError, match=r"shape \[16, 2048\]"):
        edit(inside, encoded, wide, "1", "raw")
    other = directions.Direction(torch.ones(16, 64), "tokens", source="other", adapter="another")
    with pytest.raises(ValueError, match="Expected a direction for .*, got other for another one"):
        edit(inside, encoded, other, "1", "raw")
    with pytest.raises(ValueError, match="connect the ip_adapter"):
        edit(inside, encoded, found[1], "1", "raw")
    concept = tokens.Tokens(encoded.values, encoded.uncond, source="IP-Prior Sample")
    with pytest.raises(ValueError, match="got tokens without features from IP-Prior Sample"):
        edit(inside, concept, found[1], "1", "raw", ip_adapter=shipped[4])
    with pytest.raises(ValueError, match="tokens from 1 to 16, .* got 17"):
        edit(inside, encoded, found[0], "1", "raw", "17")


@pytest.mark.parametrize("name", ["../out", "", "/etc/passwd", "a/b"])
def test_a_name_that_leads_out_is_refused(inside, found, name):
    with pytest.raises(ValueError, match="Expected a plain name"):
        inside.nodes("directions").SaveDirection.execute(found[0], name)


def test_labels_that_do_not_fit_are_refused(inside):
    with pytest.raises(ValueError, match="each of 2 pictures, got 3 lines"):
        inside.nodes("concepts").LabelledStrip.execute(torch.zeros(2, 8, 8, 3), "a\nb\nc", 0)
