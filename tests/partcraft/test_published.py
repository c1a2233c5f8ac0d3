"""`python -m pit download` fetches the published part words with their LoRA, to where they load by name."""

import io

import pytest
import torch

from pit.__main__ import main
from pit.files.published import file_kind
from pit.partcraft.files import load_part_words
from pit.partcraft.published import PART_WORDS
from pit.partcraft.published_names import published_names
from tests.commands.hub_server import HubServer
from tests.partcraft.test_files import LORA, random_words


def saved(state: dict[str, torch.Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("name, collection", [("partcraft-cub", "cub"), ("partcraft-dogs", "dogs")])
def test_the_published_words_are_fetched_and_load(tmp_path, name, collection):
    files = [file for file in PART_WORDS.published if file.name == name]
    content = {"pytorch_model_1.bin": random_words(parts=8, codes=256, dim=4), "pytorch_model.bin": LORA}
    repo = {file.path: saved(content[file.path.rpartition("/")[2]]) for file in files}
    with HubServer({files[0].repo: repo}) as hub:
        assert main(["download", name, "--models", str(tmp_path), "--endpoint", hub.endpoint]) == 0
    words = load_part_words(tmp_path / "part_words" / name)
    assert words.vocabulary == published_names(collection) and len(words.lora) == 2


def test_errors_say_where_to_get_part_words():
    assert "python -m pit download partcraft-cub" in file_kind("part_words").where_to_get
    assert "also published: partcraft-dogs" in file_kind("part_words").where_to_get
    assert file_kind("part_clusters").where_to_get == "Save Part Clusters writes such files."
