"""What the loaders say, and refuse, when the file that a graph names is not in the model folders."""

import importlib

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
    (folder / "products" / "notes.onnx").touch()  # not offered, and so not named
    message = load_prior.validate_inputs("characters/prior.ckpt")
    for words in [
        "Load IP-Prior", "'characters/prior.ckpt'", str(folder), "Found there: products/prior.ckpt.",
        "kfirgold99/Piece-it-Together", "python -m pit download characters",
    ]:
        assert words in message
    assert "products/cfg.yaml" not in message and "notes.onnx" not in message


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


@pytest.mark.parametrize(("saved", "here"), [
    ("characters\\prior.ckpt", "characters/prior.ckpt"), ("characters/prior.ckpt", "characters\\prior.ckpt"),
    ("a\\b/prior.ckpt", "a/b\\prior.ckpt"),
])
def test_a_graph_of_another_system_names_the_same_file(inside, monkeypatch, saved, here):
    """ComfyUI lists files with the separator of its system, and saves them in graphs like that."""
    folders = inside.pack("nodes.bridge.folders")
    files = folders.ModelFiles("ip_prior")
    monkeypatch.setattr(folders.folder_paths, "get_filename_list", lambda folder: ["other.ckpt", here])
    monkeypatch.setattr(folders.folder_paths, "get_full_path_or_raise", lambda _, name: f"/models/{name}")
    assert files.why_missing(saved) is None
    assert files.path(saved).as_posix() == f"/models/{here}"


def test_every_loader_reads_a_graph_that_was_saved_on_windows(folders, inside):
    write_ip_adapter(folders["ipadapter"][0] / "more" / "tiny.safetensors")
    write_prior(folders["ip_prior"][0] / "characters" / "prior.ckpt")
    loading, training = inside.nodes("loading"), inside.nodes("train_prior").TrainPrior
    adapter, prior = "more\\tiny.safetensors", "characters\\prior.ckpt"
    assert loading.LoadIPAdapter.validate_inputs(adapter) is True
    assert loading.LoadIPAdapter.fingerprint_inputs(adapter) is not None
    assert loading.LoadIPAdapter.execute(adapter).args[0].token_dim
    assert loading.LoadIPPrior.validate_inputs(prior) is True
    assert loading.LoadIPPrior.fingerprint_inputs(prior, 0)[1] is not None  # with its cfg.yaml
    assert loading.LoadIPPrior.execute(prior, 0).args[0].config
    assert training.validate_inputs(prior) is True
    assert training.fingerprint_inputs(prior)[0] == loading.PRIORS.stamp("characters/prior.ckpt")


def test_what_comes_over_a_link_is_checked_when_it_has_come(inside):
    """ComfyUI gives None in its place, while it validates and in fingerprints."""
    for module, name, inputs in [
        ("loading", "LoadIPAdapter", {"file": None}), ("loading", "LoadIPPrior", {"file": None}),
        ("tokens", "LoadTokens", {"file": None}), ("directions", "LoadDirection", {"file": None}),
        ("ip_lora", "ApplyIPLora", {"file": None}), ("train_prior", "TrainPrior", {"start_from": None}),
        ("datasets", "LoadDataset", {"folder": None}), ("train_ip_lora", "TrainIPLora", {"folder": None}),
    ]:
        node = getattr(inside.nodes(module), name)
        assert node.validate_inputs(**inputs) is True, name
        if name != "TrainIPLora":  # which reads its folder anew each time
            more = {"num_heads": None} if name == "LoadIPPrior" else {}
            assert node.fingerprint_inputs(**inputs, **more) in (None, [None, 0]), name
    found = inside.nodes("find_direction").FindDirection.fingerprint_inputs
    for pictures in (None, {"pictures": None}, {"pictures": "folders"},
                     {"pictures": "folders", "first_folder": None, "second_folder": "a"}):
        assert found(pictures) is None


def test_a_new_node_stands_on_a_file_that_can_be_loaded(folders, inside, monkeypatch):
    for folder in ("ip_tokens", "ip_directions", "loras"):
        value = ([str(folders["ip_prior"][0] / "none")], {".safetensors"})
        folder_paths = inside.pack("nodes.bridge.folders").folder_paths
        monkeypatch.setitem(folder_paths.folder_names_and_paths, folder, value)
    folder_paths.filename_list_cache.clear()
    loaders = (("tokens", "LoadTokens"), ("directions", "LoadDirection"), ("ip_lora", "ApplyIPLora"))
    for module, name in loaders:
        node = getattr(inside.nodes(module), name)
        (choices,) = (each.options for each in node.define_schema().inputs if each.id == "file")
        assert node.validate_inputs(choices[0]) is True
        assert not any(choice.startswith("no file") for choice in choices)


@pytest.mark.parametrize(("marked", "first"), [("true", True), ("false", False), (None, False)])
def test_new_files_go_to_our_folder_unless_a_shared_one_is_the_default(
    inside, monkeypatch, tmp_path, marked, first
):
    bridge = inside.pack("nodes.bridge.folders")
    table = {}
    monkeypatch.setattr(bridge.folder_paths, "folder_names_and_paths", table)
    config = tmp_path / "extra.yaml"
    mark = "" if marked is None else f"  is_default: {marked}\n"
    config.write_text(f"nothing:\nmine:\n  base_path: {tmp_path}\n{mark}  ip_tokens: shared\n")
    monkeypatch.setattr(bridge.args, "extra_model_paths_config", [[str(config)]])
    importlib.import_module("utils.extra_config").load_extra_path_config(str(config))
    bridge.register_model_folders()
    own = f"{bridge.folder_paths.models_dir}/ip_tokens"
    assert table["ip_tokens"][0] == [str(tmp_path / "shared"), own]
    expected = str(tmp_path / "shared") if first else own
    assert bridge.ModelFiles("ip_tokens").folder_to_write() == expected
    assert bridge.ModelFiles("ip_prior").folder_to_write() == f"{bridge.folder_paths.models_dir}/ip_prior"


def test_extra_model_paths_stay_in_front_of_ours(inside, monkeypatch, tmp_path):
    folders = inside.pack("nodes.bridge.folders")
    table = {"ipadapter": ([str(tmp_path)], set())}
    monkeypatch.setattr(folders.folder_paths, "folder_names_and_paths", table)
    folders.register_model_folders()
    models = folders.folder_paths.models_dir
    assert table["ipadapter"][0] == [str(tmp_path), f"{models}/ipadapter"]
    assert table["ip_prior"][0] == [f"{models}/ip_prior"]
    assert table["ip_prior"][1] == table["ipadapter"][1] == folders.folder_paths.supported_pt_extensions
