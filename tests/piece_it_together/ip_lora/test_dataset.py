"""TODO"""

import pytest
from PIL import Image

from pit.piece_it_together.ip_lora.dataset import describe_lora_dataset, read_lora_dataset
from pit.piece_it_together.ip_lora.prompts import CHARACTER_SHEET
from tests.golden import facts

PUBLISHED = facts("pit_lora_dataset")
SHEET, SCENE, PLAIN = "character sheet", "creature in scene", "captions as they are"


def write(folder, files, caption="studio photo, a small dragon in a dark forest"):
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".txt":
            path.write_text(caption, encoding="utf-8")
        else:
            Image.new("RGB", (8, 8)).save(path)
    return folder


def test_the_published_layout_pairs_as_published_with_its_faults_mended(tmp_path):
    dataset = read_lora_dataset(write(tmp_path, PUBLISHED["files"]), SHEET)
    found = {
        sample.name: (sample.reference.relative_to(tmp_path).as_posix(),
                      sample.target.relative_to(tmp_path).as_posix())
        for sample in dataset.samples
    }
    for sample in PUBLISHED["samples"]:
        if "MISSING" not in sample["ref"]:
            assert (sample["ref"], sample["sheet"]) in found.values()
    assert found["plain"] == ("refs/plain.jpg", "targets/plain.jpg")
    assert found["a_ref_b"] == ("refs/a_ref_b_ref.jpg", "targets/a_ref_b.jpg")
    assert found.keys() == {"a_ref_b", "both", "img0", "img1", "img2", "plain"}
    assert all(sample.caption == CHARACTER_SHEET for sample in dataset.samples)


def test_what_is_skipped_is_named(tmp_path):
    write(tmp_path, [*PUBLISHED["files"], "refs/alone_ref.png", "refs/notes.pdf.txt", "targets/.hidden.jpg"])
    (tmp_path / "targets" / "readme.md").touch()
    report = describe_lora_dataset(read_lora_dataset(tmp_path, PLAIN))
    assert "6 targets with references, 1 captions" in report
    for line in (
        "1, a reference without a target (refs/alone_ref.png)",
        "1, a target without a reference (targets/noref.jpg)",
        "1, a missing caption (targets/noprompt.txt)", "2, the same name as another",
        "1, not one of .jpg, .jpeg, .png, .webp (targets/readme.md)",
    ):
        assert line in report


def test_captions_by_mode(tmp_path):
    files = ["targets/a.png", "targets/a.txt", "refs/a_ref.png"]
    write(tmp_path, files, " studio photo, a small dragon in a dark forest\n")
    captions = {mode: read_lora_dataset(tmp_path, mode).samples[0].caption for mode in (SHEET, SCENE, PLAIN)}
    assert captions == {
        SHEET: CHARACTER_SHEET, SCENE: "studio photo an imaginary fantasy creature in dark forest",
        PLAIN: "studio photo, a small dragon in a dark forest",
    }


def test_a_caption_of_another_form_is_skipped_by_name(tmp_path):
    write(tmp_path, ["targets/a.png", "targets/a.txt", "refs/a_ref.png"])
    sea = ["targets/sea.png", "targets/sea.txt", "refs/sea_ref.png"]
    write(tmp_path, sea, "watercolor, thing in the sea")
    (tmp_path / "targets" / "bytes.png").write_bytes((tmp_path / "targets" / "a.png").read_bytes())
    (tmp_path / "refs" / "bytes_ref.png").write_bytes((tmp_path / "targets" / "a.png").read_bytes())
    (tmp_path / "targets" / "bytes.txt").write_bytes(b"\xff\xfe\xff")
    report = describe_lora_dataset(read_lora_dataset(tmp_path, SCENE))
    assert 'a caption without "STYLE, ... in a SCENE" (targets/sea.txt)' in report
    assert "a caption that cannot be read (targets/bytes.txt)" in report


@pytest.mark.parametrize("files", [[], ["targets/a.png", "targets/a.txt"], ["refs/a_ref.png"], ["a.png"]])
def test_a_folder_without_samples_says_what_was_expected(tmp_path, files):
    write(tmp_path, files)
    with pytest.raises(ValueError, match=r"Expected targets/NAME.png .* got: "):
        read_lora_dataset(tmp_path, SHEET)


def test_no_folder_and_no_mode(tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected a folder with targets/NAME.png"):
        read_lora_dataset(tmp_path / "absent", SHEET)
    with pytest.raises(ValueError, match="prompt modes character sheet, .* got 'x'"):
        read_lora_dataset(tmp_path, "x")
