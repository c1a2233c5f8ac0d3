"""What the loaders say, and refuse, when the file that a graph names is not in the model folders."""

import pytest

from tests.comfyui.nodes.published import write_ip_adapter, write_prior

HOSTILE = [
    "../secret.safetensors", "more/../../secret.safetensors", "..\\secret.safetensors", "/etc/passwd",
    "C:\\secret.safetensors", "\\\\host\\share\\x.safetensors", "secret.safetensors\0.txt", "", ".",
    "a" * 300, "tiny.safetensors/", "./tiny.safetensors",
]


@pytest.fixture
def folders(inside, tmp_path, monkeypatch):
    """Two folders for IP-Adapters and one for priors, all still to be made."""
    folder_paths = inside.pack("nodes.bridge.folders").folder_paths
    extensions = folder_paths.supported_pt_extensions
    paths = {"ipadapter": [tmp_path / "ipadapter", tmp_path / "extra"], "ip_prior": [tmp_path / "ip_prior"]}
    for name, places in paths.items():
        value = ([str(place) for place in places], extensions)
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, value)
    folder_paths.filename_list_cache.clear()
    yield paths
    folder_paths.filename_list_cache.clear()


@pytest.fixture
def load_adapter(inside):
    return inside.nodes("loading").LoadIPAdapter


@pytest.fixture
def load_prior(inside):
    return inside.nodes("loading").LoadIPPrior


def options(node):
    return node.define_schema().inputs[0].options


def test_an_empty_folder_is_named_in_the_list_itself(folders, load_adapter, load_prior):
    assert options(load_adapter) == ["no file in models/ipadapter"]
    assert options(load_prior) == ["no file in models/ip_prior"]


def test_a_missing_ip_adapter_says_where_it_was_sought_and_where_to_get_it(folders, load_adapter):
    (name,) = options(load_adapter)
    message = load_adapter.validate_inputs(name)
    for words in [
        "Load IP-Adapter+", *map(str, folders["ipadapter"]), "Found there: nothing.", "h94/IP-Adapter",
        "ip-adapter-plus_sdxl_vit-h.safetensors", "python -m pit download ip-adapter-plus",
    ]:
        assert words in message
    with pytest.raises(FileNotFoundError, match="h94/IP-Adapter"):
        load_adapter.execute(name)


def test_a_missing_prior_says_what_is_there_instead(folders, load_prior):
    folder = folders["ip_prior"][0]
    write_prior(folder / "products" / "prior.ckpt")
    message = load_prior.validate_inputs("characters/prior.ckpt")
    for words in [
        "Load IP-Prior", "'characters/prior.ckpt'", str(folder), "products/cfg.yaml, products/prior.ckpt",
        "kfirgold99/Piece-it-Together", "python -m pit download characters",
    ]:
        assert words in message


def test_a_full_folder_is_not_listed_to_the_end(folders, load_prior):
    folder = folders["ip_prior"][0]
    folder.mkdir()
    for number in range(20):
        (folder / f"{number:02}.ckpt").touch()
    message = load_prior.validate_inputs("prior.ckpt")
    assert "00.ckpt, 01.ckpt" in message
    assert "07.ckpt and 12 more." in message


def test_files_are_found_in_every_folder(folders, load_adapter):
    write_ip_adapter(folders["ipadapter"][1] / "tiny.safetensors")
    assert options(load_adapter) == ["tiny.safetensors"]
    assert load_adapter.validate_inputs("tiny.safetensors") is True
    assert load_adapter.execute("tiny.safetensors").args[0].name == "tiny.safetensors"


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_leads_out_of_the_folders(folders, load_adapter, name, tmp_path):
    write_ip_adapter(tmp_path / "secret.safetensors")
    write_ip_adapter(folders["ipadapter"][0] / "tiny.safetensors")
    assert load_adapter.validate_inputs(name).startswith("Load IP-Adapter+ expected a file from ")
    with pytest.raises(FileNotFoundError):
        load_adapter.execute(name)
    with pytest.raises(FileNotFoundError):
        load_adapter.fingerprint_inputs(name)


def test_extra_model_paths_stay_in_front_of_ours(inside, monkeypatch, tmp_path):
    folders = inside.pack("nodes.bridge.folders")
    table = {"ipadapter": ([str(tmp_path)], set())}
    monkeypatch.setattr(folders.folder_paths, "folder_names_and_paths", table)
    folders.register_model_folders()
    models = folders.folder_paths.models_dir
    assert table["ipadapter"][0] == [str(tmp_path), f"{models}/ipadapter"]
    assert table["ip_prior"][0] == [f"{models}/ip_prior"]
    assert table["ip_prior"][1] == table["ipadapter"][1] == folders.folder_paths.supported_pt_extensions
