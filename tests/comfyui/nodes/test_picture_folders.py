"""The folders of pictures that nodes offer: the first of them in their lists, and all by their names."""
from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folders(inside, monkeypatch, tmp_path):
    """The module, with an empty input folder."""
    module = inside.pack("nodes.bridge.picture_folders")
    monkeypatch.setattr(module.folder_paths, "get_input_directory", lambda: str(tmp_path))
    return module


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir(parents=True)


def test_folders_are_offered_by_their_paths_and_higher_ones_first(folders, tmp_path):
    make(tmp_path, "a/b/c/too deep", "z", "a/.hidden/inside", ".git/objects")
    (tmp_path / "a" / "picture.png").touch()
    found = dict(folders.input_folders())
    assert list(found) == ["a", "z", "a/b", "a/b/c"]
    assert found["a/b"] == tmp_path / "a" / "b"


def test_several_places_have_their_names_before_the_folders(folders, tmp_path):
    make(tmp_path, "one/cats", "two/cats", "two/dogs/inner")
    places = {"output": str(tmp_path / "one"), "input": str(tmp_path / "two"), "none": str(tmp_path / "gone")}
    assert [name for name, _ in folders.folders_in(places)] == ["output/cats", "input/cats", "input/dogs"]


def test_a_list_ends_before_it_is_too_long_and_the_rest_is_found_by_name(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "MOST_OFFERED", 3)
    make(tmp_path, *(f"birds/{number:03}" for number in range(5)), "dogs")
    assert folders.offered_names(folders.input_folders()) == ["birds", "dogs", "birds/000"]
    assert folders.input_folder("birds/004", "Train", "") == tmp_path / "birds" / "004"
    assert folders.input_folder("birds\\004", "Train", "") == tmp_path / "birds" / "004"


def test_a_long_tree_is_not_walked_to_its_end_for_a_list(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "MOST_OFFERED", 3)
    make(tmp_path, *(f"{number:03}/inner" for number in range(9)))
    looked, visible = [], folders.visible_folders
    monkeypatch.setattr(folders, "visible_folders", lambda root: (looked.append(root), visible(root))[1])
    assert folders.offered_names(folders.input_folders()) == ["000", "001", "002"]
    assert looked == [tmp_path]


def test_the_real_limit_is_one_that_a_page_can_show(folders, tmp_path):
    make(tmp_path, *map(str, range(folders.MOST_OFFERED + 20)))
    assert len(folders.offered_names(folders.input_folders())) == folders.MOST_OFFERED <= 1000


def test_nothing_and_what_cannot_be_read_break_no_list(folders, tmp_path, monkeypatch):
    assert folders.offered_names(folders.input_folders()) == [folders.NO_FOLDER]
    make(tmp_path, "closed/inner", "open/inner")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "circle").symlink_to(tmp_path)
    listed = Path.iterdir

    def iterdir(self):
        if self.name == "closed":
            raise PermissionError(13, "Permission denied", str(self))
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    found = dict(folders.input_folders())
    assert {"closed", "open/inner", "circle/circle/open"} <= found.keys()
    assert "nowhere" not in found and "closed/inner" not in found


@pytest.mark.parametrize("choice", ["", "..", "../input", "a/../a", "/etc", "b", "a/", ".git", "./a"])
def test_no_name_leads_elsewhere(folders, tmp_path, choice):
    make(tmp_path, "a", ".git")
    message = "^Train expected a folder inside ComfyUI's input folder, got .*Found there: a. Make one"
    with pytest.raises(FileNotFoundError, match=message):
        folders.input_folder(choice, "Train", "Make one")
    assert folders.why_no_folder(choice, lambda name: folders.input_folder(name, "Train", "Make one"))


def test_a_choice_that_comes_over_a_link_is_not_refused(folders, tmp_path):
    make(tmp_path, "a")
    assert folders.why_no_folder(None, lambda name: folders.input_folder(name, "Train", "")) is None
    assert folders.why_no_folder("a", lambda name: folders.input_folder(name, "Train", "")) is None
