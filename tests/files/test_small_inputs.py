"""Small inputs of every kind but pickles cost little, and are refused in a sentence."""

import json
import os
import re
import struct
import unicodedata
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save, save_file

from pit.files.lora import read_lora
from pit.files.lora_blocks import parse_block_strengths
from pit.files.pictures import PictureError, decode_picture, file_name, list_pictures, open_picture
from pit.files.weights import WeightFileError, read_keys, read_state
from pit.files.whole import read_small, sha256_of
from pit.images import on_white
from pit.ip_adapter.files import read_ip_adapter
from pit.messages import LONGEST, ShortError, quoted, shortened
from pit.number_lists import amounts_in, edit_amounts_in, numbers_in
from pit.object_insertion.files import read_embedding_optimizer
from pit.piece_it_together import prior_files
from pit.piece_it_together.ip_lora.dataset import pictures_by_name, read_caption
from pit.piece_it_together.prior_files import read_prior
from pit.training.clip_vision import load_clip_vision
from tests.frugal import frugally
from tests.piece_it_together.random_prior import random_prior

PRIOR = random_prior().state_dict()


def refusal(error: type[Exception], function, *arguments) -> str:
    """The message with which a call refuses, at little cost."""
    with frugally(), pytest.raises(error) as caught:
        function(*arguments)
    message = str(caught.value)
    assert len(message) <= LONGEST and message.isprintable() and message.endswith("."), message
    return message


HUGE = "9" * 10_000
CFG = {
    "aliases": "a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [{'*a, ' * 9}*a]\n" for n in range(9)),
    "one alias": "a: &a 4\nnum_attention_heads: *a",
    "a merge key": "base: {num_attention_heads: 4}\n<<: {hidden_dim: 64}",
    "a date": "when: 2025-99-99 99:99:99",
    "a huge number": f"num_attention_heads: {HUGE}",
    "a huge hexadecimal number": f"num_attention_heads: 0x{HUGE}",
    "a huge binary number": f"num_attention_heads: 0b{'1' * 30_000}",
    "a number in base 60": f"num_attention_heads: {':'.join(['1'] * 9000)}",
    "a negative number": "num_attention_heads: -4",
    "a huge size": f"hidden_dim: {HUGE}",
    "a list": f"num_attention_heads: [{'1, ' * 9000}]",
    "a long name": f"num_attention_heads: {'x' * 30_000}",
    "deep brackets": "[" * 30_000,
    "deep maps": "{a: " * 7000,
    "deep indents": "\n".join(" " * n + "a:" for n in range(250)) + HUGE,
    "a long file": "a: 1\n" * 10_000,
    "a set as a name": "? {a: b}\n: 1",
    "a tag": "!!python/object/apply:os.system ['true']",
    "binary data": "use_ref: !!binary '////'",
    "zero bytes": "a: \x00",
    "infinity": "num_attention_heads: .inf",
}


@pytest.mark.parametrize("kind", CFG)
def test_a_strange_cfg_yaml_is_refused_at_little_cost(tmp_path, kind):
    save_file(PRIOR, tmp_path / "prior.safetensors")
    (tmp_path / "cfg.yaml").write_text(CFG[kind])
    message = refusal(WeightFileError, read_prior, tmp_path / "prior.safetensors")
    assert message.startswith(f"{tmp_path / 'cfg.yaml'}: expected ")


def header(entries: object, length: int | None = None) -> bytes:
    content = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(content) if length is None else length) + content


EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
HEADERS = {
    "a header longer than its file": header({"a": EMPTY}, 90_000_000),
    "a header longer than any file": header({"a": EMPTY}, 2**47),
    "a long name": header({"k" * 900_000: EMPTY}),
    "very many names": header({f"{n}": EMPTY for n in range(14_000)}),
    "deep brackets": header(b'{"a": ' + b"[" * 900_000),
    "deep maps": header(b'{"a": ' * 150_000),
    "a shape beyond the file": header({"a": EMPTY | {"shape": [2**40, 2**20]}}),
    "offsets beyond the file": header({"a": EMPTY | {"shape": [2**40], "data_offsets": [0, 2**42]}}),
    "an unknown type": header({"a": EMPTY | {"dtype": "F4"}}),
    "metadata of another kind": header({"__metadata__": {"a": [1]}, "b": EMPTY}),
    "no tensors": header({"__metadata__": {"a": "b" * 900_000}}),
    "surplus layers": header({f"layers.{n}.x": EMPTY for n in range(9000)} | {"x_embedder.weight": EMPTY}),
}


@pytest.mark.parametrize("read", [read_prior, read_ip_adapter, load_clip_vision, read_embedding_optimizer])
@pytest.mark.parametrize("kind", HEADERS)
def test_a_strange_header_is_refused_at_little_cost(tmp_path, kind, read):
    path = tmp_path / "x.safetensors"
    path.write_bytes(HEADERS[kind])
    assert refusal(WeightFileError, read, path).startswith(f"{path}: expected ")


def test_the_names_of_a_strange_header_are_not_listed(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(HEADERS["a header longer than its file"])
    assert "header of 90000000 bytes" in refusal(WeightFileError, read_keys, path)
    path.write_bytes(b"PK\x03\x04")
    refusal(WeightFileError, read_keys, path)


def surplus(state: dict, name: str, count: int) -> dict:
    """Each of the layers with a tensor of every name, so that no count of names gives them away."""
    first = [key for key in state if key.startswith(f"{name}0.")]
    more = {key.replace(f"{name}0.", f"{name}{n}.", 1): torch.zeros(0) for n in range(count) for key in first}
    return more | state


def test_surplus_layers_are_counted_before_one_is_built(tmp_path, monkeypatch):
    path = tmp_path / "prior.safetensors"
    save_file(surplus(PRIOR, "layers.", 800), path)
    assert path.stat().st_size < 3_000_000
    monkeypatch.setattr(prior_files, "empty_prior", lambda *_: pytest.fail("it was built"))
    assert "at most 128 layers, got 800" in refusal(WeightFileError, read_prior, path)


@pytest.mark.parametrize("make", ["fifo", "device", "folder"])
def test_what_is_not_an_ordinary_file_is_never_opened(tmp_path, make):
    def place(name: str) -> Path:
        path = tmp_path / name
        if make == "fifo":
            os.mkfifo(path)
        elif make == "device":
            path.symlink_to("/dev/zero")
        else:
            path.mkdir()
        return path

    for name in ("x.ckpt", "x.safetensors"):
        path = place(name)
        for read in (read_state, read_keys, read_prior):
            assert str(path) in refusal(WeightFileError, read, path)
    picture = place("a.png")
    assert str(picture) in refusal(PictureError, open_picture, picture)
    skipped: list = []
    assert pictures_by_name(tmp_path, skipped) == {} and list_pictures(tmp_path)[0] == []
    for path in (place("a.txt"), picture):
        for read in (read_small, sha256_of):
            with pytest.raises(OSError):
                read(path)
    assert read_caption(tmp_path / "a.txt", "captions as they are").why == "a caption that cannot be read"
    save_file(PRIOR, tmp_path / "prior.safetensors")
    place("cfg.yaml")
    message = refusal(WeightFileError, read_prior, tmp_path / "prior.safetensors")
    assert "cfg.yaml: expected readable YAML" in message


NAMES = [
    " " * 60_000 + "x", "x" + " " * 900_000 + "x", ". " * 400_000, "e\u0301\u0316" * 300_000,
    "\u0344" * 300_000, "con." + "." * 900_000, "\x00" * 900_000, "\ud800" * 300_000,
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_long_name_is_shortened_at_little_cost(name):
    with frugally(0.5):
        found = file_name(name)
    assert len(found.encode()) <= 100 and found != file_name(name + "y") and re.search("-[0-9a-f]{8}$", found)


@pytest.mark.parametrize("name", ["/" * 900_000, "a" * 900_000 + "/", " " * 900_000, "C:" + "x" * 900_000])
def test_a_long_name_of_another_folder_is_refused_in_a_sentence(name):
    refusal(ShortError, file_name, name)


@pytest.mark.parametrize("name", [" a ", "...a", "a...", " ... ", ".a b.", "a. .b", "..a?. ", "a\x00 "])
def test_spaces_and_dots_at_the_ends_become_one_line(name):
    plain = re.sub(r'[\x00-\x1f\x7f<>:"|?*]|^[. ]+|[. ]+$', "_", unicodedata.normalize("NFC", name))
    assert file_name(name).rsplit("-", 1)[0] == plain


def listed(text: str) -> list[int]:
    return list(numbers_in(text))


@pytest.mark.parametrize("read, text", [
    (parse_block_strengths, "out0-9999999=0"), (parse_block_strengths, f"in{HUGE}=0"),
    (parse_block_strengths, "in0-99=0," * 100_000), (parse_block_strengths, "x" * 900_000),
    (parse_block_strengths, f"in0-{HUGE[:9000]}=0"), (parse_block_strengths, "out3-1=0"),
    (amounts_in, "0," * 400_000), (amounts_in, "1" * 9999), (amounts_in, "x" * 9999),
    (amounts_in, "0," * 300 + "0"),
    (edit_amounts_in, "-1 to 1 in 256," * 60_000), (edit_amounts_in, "1 to " + " " * 9000 + "x"),
    (edit_amounts_in, "-1 to 1 in 200, -1 to 1 in 200"), (edit_amounts_in, "1" * 9999),
    (listed, "9" * 9999),
    (listed, "1-16," * 180_000),
    (listed, "x" * 9999),
])
def test_a_long_list_of_numbers_is_refused_at_little_cost(read, text):
    refusal(ValueError, read, text)


def test_lists_of_blocks_and_numbers_are_read_as_before():
    assert parse_block_strengths("in0-2=0.5, mid=1, out11=0").values == {
        "in0": 0.5, "in1": 0.5, "in2": 0.5, "mid": 1.0, "out11": 0.0,
    }
    assert len(amounts_in("0," * 255 + "1")) == 256 and list(numbers_in("1, 4, 7-9")) == [1, 4, 7, 8, 9]


@pytest.mark.parametrize("ending", ["png", "webp", "gif"])
def test_a_small_picture_of_many_pixels_is_refused_before_it_is_decoded(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    Image.new("L", (7000, 7000)).save(path)
    assert path.stat().st_size < 1_000_000
    assert "7000x7000 pixels of next to nothing" in refusal(PictureError, open_picture, path)


@pytest.mark.parametrize("ending, mode", [("png", "RGBA"), ("png", "I;16"), ("webp", "RGBA"), ("jpg", "RGB")])
def test_the_largest_small_picture_costs_little(tmp_path, ending, mode):
    path = tmp_path / f"a.{ending}"
    Image.new(mode, (4800, 5000)).save(path, quality=1)
    with frugally():
        assert open_picture(path).size == (4800, 5000)


def test_a_jpeg_of_very_many_scans_is_refused(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (400, 400)).save(path, progressive=True)
    content = path.read_bytes()
    scans = content[content.rindex(b"\xff\xda"):-2]
    path.write_bytes(content[:-2] + scans * 50 + content[-2:])
    assert "at most 40 scans" in refusal(PictureError, open_picture, path)
    path.write_bytes(content)
    assert decode_picture(path).size == (400, 400)


def test_only_formats_that_pillow_decodes_itself_are_opened(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    assert "cannot be read" in refusal(PictureError, open_picture, path)


def test_bands_composite_as_a_whole_does():
    image = Image.effect_noise((301, 700), 90).convert("RGBA")
    image.putalpha(Image.effect_noise((301, 700), 90))
    white = Image.new("RGBA", image.size, "white")
    assert on_white(image).tobytes() == Image.alpha_composite(white, image).convert("RGB").tobytes()


def test_messages_are_short_and_printable():
    text = shortened("first " + "x\n" * 5000 + " last.")
    assert len(text) == LONGEST and text.isprintable()
    assert text.startswith("first ") and text.endswith(" last.")
    assert shortened("a sentence.") == "a sentence."
    assert quoted("ab") == "'ab'" and quoted(None) == "None" and len(quoted("x" * 10**6)) < 110
    assert quoted(10**5000) == "a number of 16610 bits" and len(quoted([1] * 1000)) < 110


def test_a_long_path_leaves_the_advice(tmp_path):
    path = Path(str(tmp_path) + "/" + "/".join(["x" * 200] * 19) + "/prior.ckpt")
    assert refusal(WeightFileError, read_state, path).endswith("Check its name and folder.")
    path = tmp_path / ("x" * 5000)
    assert refusal(WeightFileError, read_state, path).endswith("Check its name and folder.")


def test_long_names_in_a_file_leave_the_advice(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(save({"y" * 500 + str(n): torch.zeros(1) for n in range(9)}))
    assert refusal(WeightFileError, read_prior, path).endswith("Take the published file.")


@pytest.mark.parametrize("read", [read_state, read_lora, read_ip_adapter, read_embedding_optimizer])
def test_very_many_dimensions_are_refused(tmp_path, read):
    path, names = tmp_path / "many.safetensors", ("unet.mid_block.x.lora_A.weight", "image_proj.latents")
    header = json.dumps({
        name: {"dtype": "F32", "shape": [1] * 200_000, "data_offsets": [4 * place, 4 * place + 4]}
        for place, name in enumerate(names)
    }).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    assert "at most 16 dimensions, got 200000" in refusal(WeightFileError, read, path)
