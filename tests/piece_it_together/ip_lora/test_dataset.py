"""Which targets, references and captions go together: as published, and where the published code fails."""

from pathlib import Path

import pytest
from PIL import Image

from pit.piece_it_together.ip_lora.dataset import describe_lora_dataset, read_lora_dataset
from pit.piece_it_together.ip_lora.prompts import CHARACTER_SHEET

FILES = [
    "refs/a_ref_b_ref.jpg", "refs/both_ref.jpg", "refs/both_ref.png", "refs/mute_ref.jpg", "refs/plain.jpg",
    "targets/a_ref_b.jpg", "targets/a_ref_b.txt", "targets/both.jpg", "targets/both.png", "targets/both.txt",
    "targets/mute.jpg", "targets/noref.jpg", "targets/noref.txt", "targets/plain.jpg", "targets/plain.txt",
]
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


def pairs(folder: Path) -> dict[str, tuple[str, str]]:
    """Reference and target of each sample by its name."""
    return {
        sample.name: (sample.reference.relative_to(folder).as_posix(),
                      sample.target.relative_to(folder).as_posix())
        for sample in read_lora_dataset(folder, SHEET).samples
    }


def test_samples_are_the_published_ones_and_those_that_it_loses(golden, tmp_path):
    published = golden.facts("pit_lora_dataset")
    ours, files = pairs(write(tmp_path, published["files"])), set(published["files"])
    theirs = {Path(sample["sheet"]).stem: (sample["ref"], sample["sheet"]) for sample in published["samples"]}
    complete = {name: pair for name, pair in theirs.items() if "MISSING" not in pair[0]}
    assert complete.items() <= ours.items()
    # It demands an ending of every reference, and loses names that have the same in their middle.
    assert {name for name in theirs if files & {f"refs/{name}.png", f"refs/{name}.jpg"}} <= ours.keys()
    for name, (reference, target) in ours.items():
        assert Path(reference).stem in (name, f"{name}_ref") and Path(target).stem == name
        assert {reference, target, f"targets/{name}.txt"} <= files
        assert name in theirs or "_ref" in name


def test_faults_of_the_published_pairing_are_mended(tmp_path):
    assert pairs(write(tmp_path, FILES)) == {
        "a_ref_b": ("refs/a_ref_b_ref.jpg", "targets/a_ref_b.jpg"),
        "both": ("refs/both_ref.png", "targets/both.png"), "plain": ("refs/plain.jpg", "targets/plain.jpg"),
    }
    assert {each.caption for each in read_lora_dataset(tmp_path, SHEET).samples} == {CHARACTER_SHEET}


def test_what_is_skipped_is_named(tmp_path):
    write(tmp_path, [*FILES, "refs/alone_ref.png", "refs/notes.pdf.txt", "targets/.hidden.jpg"])
    (tmp_path / "targets" / "readme.md").touch()
    report = describe_lora_dataset(read_lora_dataset(tmp_path, PLAIN))
    assert "3 targets with references, 1 captions" in report
    for line in (
        "1, a reference without a target (refs/alone_ref.png)",
        "1, a target without a reference (targets/noref.jpg)",
        "1, a missing caption (targets/mute.txt)", "2, the same name as another",
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


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_captions_with_a_byte_order_mark(tmp_path, encoding):
    write(tmp_path, ["targets/a.png", "targets/a.txt", "refs/a_ref.png"])
    mark = "" if encoding in ("utf-8-sig", "utf-16") else "\ufeff"
    (tmp_path / "targets" / "a.txt").write_text(f"{mark}gouache, a café in a fjörd", encoding=encoding)
    captions = [read_lora_dataset(tmp_path, mode).samples[0].caption for mode in (PLAIN, SCENE)]
    assert captions == ["gouache, a café in a fjörd", "gouache an imaginary fantasy creature in fjörd"]


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
