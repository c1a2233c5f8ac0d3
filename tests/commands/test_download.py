"""The download command against a loopback server that speaks the hub's protocol; no test reaches further."""
from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest
from huggingface_hub import constants

from pit.__main__ import main
from pit.commands.download import download_names
from pit.files.published import file_kind, published_files
from pit.object_insertion.published import REPO as INSERTION_REPO
from pit.piece_it_together.published import IP_ADAPTER_REPO, PIT_REPO
from tests.commands.hub_server import HubServer
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("only_loopback")
ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
CHUNK = constants.DOWNLOAD_CHUNK_SIZE  # what huggingface_hub writes at a time, and a cut loses
ADAPTER = "sdxl_models/ip-adapter-plus_sdxl_vit-h.safetensors"
DIFFUSERS = ("diffusion_pytorch_model.safetensors", "config.json")
ADAPTER_TARGET = "ipadapter/ip-adapter-plus_sdxl_vit-h.safetensors"
INSERTION_FILES = {
    "object_insertion/emb_opt.pt", "object_insertion/unet.safetensors", "vae/object_insertion.safetensors",
    "clip_vision/clip-vit-large-patch14.safetensors",
}
# Of a folder, the file that stands for it on the hub of these tests.
PARTS2WHOLE_TARGETS = {
    "parts2whole/published/decoupled_attn.pth", "parts2whole/published/unet/config.json",
    "parts2whole/published/reference_unet/config.json", "parts2whole/published/pose_guider/config.json",
    "clip_vision/parts2whole/config.json", "text_encoders/parts2whole/config.json",
    "vae/sd-vae-ft-mse.safetensors",
}


def content(name: str, size: int = 5000) -> bytes:
    return random.Random(name).randbytes(size)


def published_repos() -> dict[str, dict[str, bytes]]:
    repos: dict[str, dict[str, bytes]] = defaultdict(dict)
    repos |= {PIT_REPO: {"README.md": b"card"}, IP_ADAPTER_REPO: {"a.bin": b"x"}, INSERTION_REPO: {}}
    for file in published_files():
        path = f"{file.path}config.json" if file.is_folder else file.path
        repos.setdefault(file.repo, {})[path] = content(path, 300 if path.endswith(".yaml") else 5000)
    del repos[PIT_REPO]["ip_space_edit_directions/config.json"]
    repos[PIT_REPO]["ip_space_edit_directions/muscular.pt"] = content("muscular")
    repos[PIT_REPO]["ip_space_edit_directions/age/old.pt"] = content("old")
    return repos


@pytest.fixture
def hub():
    with HubServer(published_repos()) as server:
        yield server


@pytest.fixture
def no_pauses(monkeypatch):
    """The library waits a second before each of its five attempts."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def download(hub: HubServer, models: Path, *arguments: str) -> int:
    return main(["download", *arguments, "--models", str(models), "--endpoint", hub.endpoint])


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def partials(models: Path) -> list[Path]:
    return sorted(models.rglob("*.partial"))


def error_of(capsys) -> str:
    """The one sentence that a failed command leaves on stderr."""
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1 and "Traceback" not in text
    return text


def test_a_prior_arrives_with_its_configuration(hub, models):
    assert download(hub, models, "characters") == 0
    assert files_below(models) == {"ip_prior/characters/prior.ckpt", "ip_prior/characters/cfg.yaml"}
    for name in ("prior.ckpt", "cfg.yaml"):
        expected = hub.repos[PIT_REPO][f"models/characters_ckpt/{name}"]
        assert (models / "ip_prior/characters" / name).read_bytes() == expected
    assert not (models / "ip_prior/characters/.incomplete").exists()


def test_all_fetches_every_file_to_its_place(hub, models):
    assert download(hub, models, "all") == 0
    found = files_below(models)
    assert found >= {
        "ip_prior/characters/prior.ckpt", "ip_prior/characters/cfg.yaml",
        "ip_prior/products/prior.ckpt", "ip_prior/products/cfg.yaml",
        "ip_prior/plush/prior.ckpt", "ip_prior/plush/cfg.yaml",
        ADAPTER_TARGET, "clip_vision/CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors",
        "loras/pit/character_sheet.safetensors", "loras/pit/background_generation.safetensors",
        "ip_directions/muscular.pt", "ip_directions/age/old.pt", *INSERTION_FILES, *PARTS2WHOLE_TARGETS,
        *(f"pops/{name}/learned_prior.pth" for name in ("texturing", "union", "scene", "instruct")),
        *(f"kandinsky_prior/kandinsky-2-2-prior/prior/{name}" for name in DIFFUSERS),
        *(f"kandinsky_decoder/kandinsky-2-2-decoder/{part}/{name}"
          for part in ("unet", "movq") for name in DIFFUSERS),
        "kandinsky_decoder/kandinsky-2-2-decoder/scheduler/scheduler_config.json",
        "ipadapter/ip-adapter_sdxl.safetensors",
        "clip_vision/CLIP-ViT-bigG-14-laion2B-39B-b160k.safetensors",
    }
    directions = {name for name in found if name.startswith("ip_directions/")}
    files = {file.target for file in published_files() if not file.is_folder}
    assert found - directions == files | PARTS2WHOLE_TARGETS
    assert (models / "ip_directions/age/old.pt").read_bytes() == content("old")


def test_object_insertion_arrives_with_the_models_that_it_was_trained_with(hub, models):
    assert download(hub, models, "object-insertion") == 0
    assert files_below(models) == INSERTION_FILES
    expected = hub.repos[INSERTION_REPO]["emb_opt.pt"]
    assert (models / "object_insertion/emb_opt.pt").read_bytes() == expected


def test_one_name_fetches_all_of_parts2whole(hub, models):
    assert download(hub, models, "parts2whole") == 0
    assert files_below(models) == PARTS2WHOLE_TARGETS


def test_several_names_in_one_command(hub, models):
    assert download(hub, models, "ip-lora", "ip-adapter-plus", "ip-lora") == 0
    assert len(files_below(models)) == 3
    assert len(hub.transfers()) == 3


def test_dry_run_lists_and_fetches_nothing(hub, models, capsys):
    hub.licences[PIT_REPO] = "some-licence"
    assert download(hub, models, "all", "--dry-run") == 0
    listed = capsys.readouterr().out
    for name in ("prior.ckpt", "5.00 kB", "300 bytes", "muscular.pt", str(models / ADAPTER_TARGET)):
        assert name in listed
    assert "'some-licence' on the model card" in listed and "Apache-2.0" in listed
    assert hub.transfers() == [] and list(models.iterdir()) == []


def test_a_right_file_is_kept(hub, models, capsys):
    target = models / ADAPTER_TARGET
    target.parent.mkdir()
    target.write_bytes(hub.repos[IP_ADAPTER_REPO][ADAPTER])
    written = target.stat().st_mtime_ns
    assert download(hub, models, "ip-adapter-plus") == 0
    assert "kept, already there" in capsys.readouterr().out
    assert hub.transfers() == [] and target.stat().st_mtime_ns == written


@pytest.mark.parametrize("size", [5000, 4999])
def test_a_different_file_is_replaced_only_with_force(hub, models, capsys, size):
    target = models / ADAPTER_TARGET
    target.parent.mkdir()
    target.write_bytes(b"m" * size)
    assert download(hub, models, "ip-adapter-plus", "characters") == 1
    assert "--force" in error_of(capsys) and target.read_bytes() == b"m" * size
    assert hub.transfers() == []
    assert download(hub, models, "ip-adapter-plus", "--force") == 0
    assert target.read_bytes() == hub.repos[IP_ADAPTER_REPO][ADAPTER]


@pytest.mark.usefixtures("no_pauses")
def test_a_cut_transfer_leaves_no_file_and_resumes_at_the_missing_byte(hub, models, capsys):
    whole = content("large", 24 * MIB)
    hub.repos[IP_ADAPTER_REPO][ADAPTER] = whole
    hub.cut_at = 15 * MIB
    assert download(hub, models, "ip-adapter-plus") == 1
    assert "what has arrived is kept" in error_of(capsys)
    assert not (models / ADAPTER_TARGET).exists()
    (partial,) = partials(models)
    arrived = partial.stat().st_size
    assert arrived == CHUNK and partial.read_bytes() == whole[:arrived]

    hub.cut_at = None
    hub.answers.clear()
    assert download(hub, models, "ip-adapter-plus") == 0
    assert "resuming ip-adapter-plus_sdxl_vit-h.safetensors" in capsys.readouterr().out
    (transfer,) = hub.transfers()
    assert transfer.byte_range == f"bytes={arrived}-" and transfer.sent == len(whole) - arrived
    assert (models / ADAPTER_TARGET).read_bytes() == whole
    assert partials(models) == []


@pytest.mark.usefixtures("no_pauses")
def test_a_server_without_ranges_still_gives_a_right_file(hub, models):
    whole = content("large", 24 * MIB)
    hub.repos[IP_ADAPTER_REPO][ADAPTER] = whole
    hub.cut_at = 15 * MIB
    download(hub, models, "ip-adapter-plus")
    hub.cut_at, hub.ignore_ranges = None, True
    while download(hub, models, "ip-adapter-plus"):  # older libraries need a second attempt
        assert not (models / ADAPTER_TARGET).exists() and len(hub.transfers()) < 20
    assert (models / ADAPTER_TARGET).read_bytes() == whole


def test_a_partial_file_that_is_too_long_is_thrown_away(hub, models):
    whole = hub.repos[IP_ADAPTER_REPO][ADAPTER]
    partial = models / "ipadapter/.incomplete" / f"{hashlib.sha256(whole).hexdigest()}.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"m" * 6000)
    assert download(hub, models, "ip-adapter-plus") == 0
    assert (models / ADAPTER_TARGET).read_bytes() == whole


@pytest.mark.parametrize("name", ["prior.ckpt", "cfg.yaml"])
def test_wrong_bytes_never_get_the_final_name(hub, models, capsys, name):
    hub.corrupt.add(f"characters_ckpt/{name}")
    assert download(hub, models, "characters") == 1
    assert "another hash" in error_of(capsys)
    assert not (models / "ip_prior/characters" / name).exists() and partials(models) == []
    hub.corrupt.clear()
    assert download(hub, models, "characters") == 0


@pytest.mark.parametrize("name", [
    "../x", "..", "a/../../x", "/etc/x", "a//b", "..\\x", "C:x", "a/./b", "line\nbreak", "",
])
def test_hostile_names_in_the_directions_listing_are_refused(hub, models, capsys, name):
    hub.repos[PIT_REPO][f"ip_space_edit_directions/{name}"] = content("hostile")
    assert download(hub, models, "directions") == 1
    assert "unsafe file name" in error_of(capsys)
    assert hub.transfers() == [] and files_below(models.parent) == set()


@pytest.mark.parametrize("change", [
    '"sha256": "../../../x"', '"sha256": null', '"size": null', '"size": "5000"',
])
def test_a_listing_without_size_and_hash_is_refused(hub, models, capsys, change):
    digest = hashlib.sha256(content(ADAPTER)).hexdigest()
    key, value = change.split(": ")
    lfs = {'"sha256"': f'"{digest}"', '"size"': "5000", '"pointerSize"': "134", key: value}
    lfs_text = ", ".join(f"{name}: {value}" for name, value in lfs.items())
    sibling = f'{{"rfilename": "{ADAPTER}", "lfs": {{{lfs_text}}}}}'
    hub.listing = f'{{"id": "x", "sha": "y", "siblings": [{sibling}]}}'
    assert download(hub, models, "ip-adapter-plus") == 1
    assert "cannot be verified" in error_of(capsys)
    assert files_below(models.parent) == set()


@pytest.mark.parametrize("listing", ["<html>log in to the network</html>", "{}"])
def test_something_that_is_not_a_hub(hub, models, capsys, listing):
    hub.listing = listing
    assert download(hub, models, "plush") == 1
    assert "Expected the answer of a hub from" in error_of(capsys)


@pytest.mark.parametrize("status, words", [
    (401, "hf auth login"), (403, "hf auth login"), (404, "moved or removed"), (500, "try again later"),
])
@pytest.mark.parametrize("place", [PIT_REPO, f"{PIT_REPO}/models/plush_ckpt/prior.ckpt"])
def test_refusals_by_the_hub(hub, models, capsys, place, status, words):
    hub.status[place] = status
    assert download(hub, models, "plush") == 1
    message = error_of(capsys)
    assert words in message and f"HTTP {status}" in message and PIT_REPO in message
    assert files_below(models) == set() and not list(models.rglob(".incomplete"))


def test_a_file_that_the_repository_no_longer_lists(hub, models, capsys):
    del hub.repos[IP_ADAPTER_REPO][ADAPTER]
    assert download(hub, models, "ip-adapter-plus") == 1
    assert ADAPTER in error_of(capsys)


@pytest.mark.usefixtures("no_pauses")
def test_hub_unreachable(models, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert main(["download", "plush", "--models", str(models), "--endpoint", endpoint]) == 1
    assert "check the connection" in error_of(capsys)


def test_unknown_name_lists_the_names(hub, models, capsys):
    assert download(hub, models, "plush", "caracters") == 1
    message = error_of(capsys)
    assert "caracters" in message and all(name in message for name in (*download_names(), "all"))
    assert hub.answers == []


def test_models_folder_that_does_not_exist(hub, models, capsys):
    assert download(hub, models / "missing", "plush") == 1
    assert f"got {models / 'missing'}, which is not a folder" in error_of(capsys)
    assert hub.answers == []


def test_too_little_space_is_noticed_before_the_transfer(hub, models, capsys, monkeypatch):
    usage = shutil.disk_usage(models)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5299))
    assert download(hub, models, "plush") == 1
    assert "Expected 5.30 kB free" in error_of(capsys) and hub.transfers() == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5300))
    assert download(hub, models, "plush") == 0


def test_a_resumed_transfer_needs_only_the_missing_space(hub, models, monkeypatch):
    whole = hub.repos[IP_ADAPTER_REPO][ADAPTER]
    partial = models / "ipadapter/.incomplete" / f"{hashlib.sha256(whole).hexdigest()}.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(whole[:4000])
    usage = shutil.disk_usage(models)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert download(hub, models, "ip-adapter-plus") == 0
    assert [answer.byte_range for answer in hub.transfers()] == ["bytes=4000-"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_up_during_the_transfer(hub, models, capsys):
    digest = hashlib.sha256(hub.repos[IP_ADAPTER_REPO][ADAPTER]).hexdigest()
    partial = models / "ipadapter/.incomplete" / f"{digest}.partial"
    partial.parent.mkdir(parents=True)
    partial.symlink_to("/dev/full")
    assert download(hub, models, "ip-adapter-plus") == 1
    assert "No space left" in error_of(capsys) and not (models / ADAPTER_TARGET).exists()


def test_a_target_below_a_file_is_one_sentence(hub, models, capsys):
    (models / "ipadapter").write_text("not a folder")
    assert download(hub, models, "ip-adapter-plus") == 1
    assert "cannot use" in error_of(capsys)


def test_the_login_is_not_sent_to_a_mirror(hub, models, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert download(hub, models, "plush") == 0
    assert [answer.authorization for answer in hub.answers if answer.authorization] == []


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_keeps_the_partial_file(hub, models):
    hub.repos[IP_ADAPTER_REPO][ADAPTER] = whole = content("large", 24 * MIB)
    hub.pause_at = 12 * MIB
    command = [sys.executable, "-m", "pit", "download", "ip-adapter-plus", "--models", models, "--endpoint"]
    process = subprocess.Popen(
        [*command, hub.endpoint], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # The child of a job in the background would ignore what a test sends.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_until(lambda: process.poll() is not None or any(part.stat().st_size for part in partials(models)))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130 and "resumes" in errors and "Traceback" not in errors
    assert not (models / ADAPTER_TARGET).exists()

    (partial,) = partials(models)
    arrived = partial.stat().st_size
    hub.pause_at = None
    hub.answers.clear()
    assert download(hub, models, "ip-adapter-plus") == 0
    assert sum(transfer.sent for transfer in hub.transfers()) == len(whole) - arrived


def test_help_names_the_commands_without_heavy_imports():
    script = (
        "import sys, pit.__main__ as entry\n"
        "try: entry.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'huggingface_hub'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in ("download", "demo-train", "convert"))


@pytest.mark.parametrize("kind", [
    "ip_adapter", "ip_prior", "clip_vision", "ip_lora", "ip_direction", "parts2whole_decoupled",
    "parts2whole_reference_unet", "parts2whole_image_encoder",
])
def test_where_to_get_names_repository_file_target_and_command(kind):
    sentence = file_kind(kind).where_to_get
    file = file_kind(kind).published[0]
    command = f"python -m pit download {file.name} --models"
    for part in (file.repo, file.path, f"models/{file.target}", command):
        assert part in sentence
    assert "\n" not in sentence


def test_what_is_not_published_is_written_by_a_node():
    assert file_kind("ip_tokens").where_to_get == "Save IP+ Tokens writes such files."
    with pytest.raises(KeyError):
        file_kind("vae")
