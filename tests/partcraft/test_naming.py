"""People name the parts that were found, and words with these names mean them."""
from __future__ import annotations

import pytest
import torch

from pit.messages import ShortError
from pit.partcraft.discovery import PartClusters, usual_codes
from pit.partcraft.files import PartWords, names_in, save_part_words
from pit.partcraft.mapper import TokenMapper
from pit.partcraft.naming import named
from pit.partcraft.prompt import Part, PartWord, Vocabulary


def clusters(names: Vocabulary | None = None) -> PartClusters:
    fine = torch.ones(4, 3, 6)
    fine[1, 2] = 0
    return PartClusters(torch.ones(2, 6), torch.ones(4, 6), fine, 0, 2, names)


def test_names_are_given_in_the_order_of_the_parts():
    found = named(clusters(), ["head", "", "", "wing"])
    assert [part.name for part in found.parts] == ["head", "part1", "background", "wing"]
    assert [part.count for part in found.parts] == [3, 2, 3, 3]
    assert found.word("wing", "3") == PartWord(3, (2,)) and found.word("part1", "2") == PartWord(1, (1,))
    again = named(clusters(found), ["", "tail"])
    assert [part.name for part in again.parts] == ["head", "tail", "background", "wing"]


def test_codes_are_named_for_all_parts_but_the_background():
    found = named(clusters(), [], ["robin", "jay"])
    assert found.word("part0", "jay") == PartWord(0, (1,)) and found.word("part3", "3") == PartWord(3, (2,))
    assert found.codes_of(2) == ("1", "2", "3")
    assert named(clusters(found), ["head"]).word("head", "jay") == PartWord(0, (1,))


@pytest.mark.parametrize("names, classes, message", [
    (["a"] * 5, [], "at most 4 parts and 3 codes, got 5 and 0"), ([], ["a", "b", "c", "d"], "got 0 and 4"),
    (["head", "Head"], [], "'head' twice"), (["background"], [], "'background' twice"),
    (["a|b"], [], "without <, >, : and |"), (["<a"], [], "got '<a'"), (["12"], [], "no number"),
    (["x" * 101], [], "100 letters"), ([], ["a", "A"], "Expected each code to have a name of its own"),
    ([], ["a:b"], "the name of a code"),
])
def test_names_that_words_cannot_hold_are_refused(names, classes, message):
    with pytest.raises(ShortError, match=message.replace("|", r"\|")):
        named(clusters(), names, classes)


def test_a_collection_has_four_pictures_for_a_code():
    assert [usual_codes(count) for count in (2, 3, 8, 100, 5994)] == [1, 1, 2, 25, 256]


def test_names_are_read_without_loading_the_words(tmp_path):
    known = Vocabulary((Part("horn", 2),), ("moss", "ember"))
    words = PartWords(TokenMapper(1, 2, 4, 0), known, {}, "horns")
    save_part_words(tmp_path / "horns.safetensors", words)
    assert names_in(tmp_path / "horns.safetensors") == known
    (tmp_path / "cub").mkdir()
    (tmp_path / "cub" / "pytorch_model_1.bin").write_bytes(b"not looked into")
    assert names_in(tmp_path / "cub" / "pytorch_model_1.bin").names()[0] == "body"
    (tmp_path / "other.bin").write_bytes(b"not looked into")
    assert names_in(tmp_path / "other.bin") is None and names_in(tmp_path / "missing.bin") is None


def test_parts_are_found_by_name_or_number():
    known = clusters().vocabulary
    assert [known.part_number(name) for name in ("part0", " Background", "3")] == [0, 2, 3]
    with pytest.raises(ShortError, match="got 'backgrund'. Did you mean background"):
        known.part_number("backgrund")
