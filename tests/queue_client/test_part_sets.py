"""The client finds the sets that the node Load Part Sets finds, and gives their results safe names."""

import pytest

from pit.piece_it_together.part_sets import read_part_sets as read_for_the_node
from queue_client import Problem
from queue_client.part_sets import plain_name, read_part_sets


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def test_it_finds_what_the_node_finds(tmp_path):
    touch(tmp_path, "10/b.png", "2/10.PNG", "2/9.jpg", "2/notes.txt", ".hidden/1.png", "2/.h.png",
          "loose.png", "none/a.txt", "\u00e4 b/\u00fc.webp")
    sets, _ = read_for_the_node(tmp_path)
    expected = {each.name: {path.name for path in each.pictures} for each in sets}
    found = {name: {path.name for path in each.pictures} for name, each in read_part_sets(tmp_path).items()}
    assert found == expected


def test_other_contents_have_another_key(tmp_path):
    touch(tmp_path, "a/1.png", "b/1.png")
    sets = read_part_sets(tmp_path)
    keys = [sets[name].contents()[0] for name in ("a", "b", "a")]
    touch(tmp_path, "a/2.png")
    more = read_part_sets(tmp_path)["a"].contents()
    (tmp_path / "a" / "2.png").write_bytes(b"changed")
    keys += [more[0], read_part_sets(tmp_path)["a"].contents()[0]]
    assert keys[0] == keys[2] and len(set(keys)) == 4
    assert more[1] == {"1.png": b"a/1.png", "2.png": b"a/2.png"}


def test_a_folder_without_sets_and_none_at_all_are_told(tmp_path):
    touch(tmp_path, "1.png")
    with pytest.raises(Problem, match="a subfolder with pictures for each set in"):
        read_part_sets(tmp_path)
    with pytest.raises(Problem, match="a folder of part sets, got none at"):
        read_part_sets(tmp_path / "no")


def test_sets_whose_results_could_not_be_told_apart_are_refused(tmp_path):
    touch(tmp_path, "Ember/1.png", "ember/1.png")
    with pytest.raises(Problem, match="sets of different names in .*, got 'ember' twice"):
        read_part_sets(tmp_path)


@pytest.mark.parametrize("name", [
    "a/b", "..", "c:", "con", "a\nb", "n" * 300, " x ", "\ud800", "\u00fc" * 60, "",
])
def test_names_are_made_plain_and_stay_different(name):
    plain = plain_name(name)
    assert plain == plain.strip(". ") and len(plain.encode()) <= 100
    assert not set(plain) & set('/\\:\n') and plain not in ("", "con", "..")
    assert plain_name("ember 2") == "ember 2"
