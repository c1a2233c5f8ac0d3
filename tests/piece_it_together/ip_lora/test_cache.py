"""Encoding the samples of an IP-LoRA once."""
from __future__ import annotations

import pytest
import torch
from PIL import Image

from pit.files.weights import WeightFileError
from pit.piece_it_together.ip_lora.cache import encode_lora_dataset
from pit.piece_it_together.ip_lora.dataset import read_lora_dataset
from tests.training.tiny_renderer import tiny_encoders, write_pictures

SIZE = 16


def encode(folder, version="1", size=SIZE, on_progress=lambda done, total: None):
    samples = read_lora_dataset(folder / "pictures", "captions as they are").samples
    return encode_lora_dataset(samples, folder / "cache", tiny_encoders(version), size, on_progress)


def test_everything_is_encoded_once(tmp_path):
    write_pictures(tmp_path / "pictures")
    cache, skipped = encode(tmp_path)
    assert cache.names == tuple("012345") and not skipped
    stamps = {path: path.stat().st_mtime_ns for path in cache.files}
    again, _ = encode(tmp_path)
    assert again.files == cache.files and again.fingerprint == cache.fingerprint
    assert {path: path.stat().st_mtime_ns for path in again.files} == stamps
    sample, encoders = cache.read(2), tiny_encoders()
    context, pooled = encoders.text(["picture number 2"])
    torch.testing.assert_close(sample.context, context[0], atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(sample.pooled, pooled[0], atol=1e-2, rtol=1e-2)
    assert sample.latents.shape == (8, 8, 8) and sample.tokens.shape == (16, 24)
    assert sample.time_ids.tolist() == [16, 16, 0, 0, 16, 16]
    assert torch.equal(cache.empty.context, encoders.text([""])[0][0].half().float())


def test_more_pictures_add_files_and_changed_ones_are_encoded_anew(tmp_path):
    write_pictures(tmp_path / "pictures", 3)
    before, _ = encode(tmp_path)
    write_pictures(tmp_path / "pictures", 4)
    Image.new("RGB", (16, 16), "white").save(tmp_path / "pictures" / "targets" / "0.png")
    (tmp_path / "pictures" / "targets" / "1.txt").write_text("other words")
    after, _ = encode(tmp_path)
    assert [path in before.files for path in after.files] == [False, False, True, False]


@pytest.mark.parametrize("change", [{"version": "2"}, {"size": 32}])
def test_other_models_and_sizes_share_nothing(tmp_path, change):
    write_pictures(tmp_path / "pictures", 3)
    one, other = encode(tmp_path)[0], encode(tmp_path, **change)[0]
    assert not set(one.files) & set(other.files)


def test_pictures_of_all_sizes_become_one_square(tmp_path):
    write_pictures(tmp_path / "pictures", 2, (40, 20))
    write_pictures(tmp_path / "pictures", 1, (9, 100))
    cache, _ = encode(tmp_path)
    assert {cache.read(index).latents.shape for index in range(2)} == {(8, 8, 8)}


def test_a_corrupt_picture_is_skipped_by_name(tmp_path):
    write_pictures(tmp_path / "pictures", 3)
    (tmp_path / "pictures" / "targets" / "1.png").write_bytes(b"no picture")
    (tmp_path / "pictures" / "refs" / "2_ref.png").write_bytes(b"")
    cache, skipped = encode(tmp_path)
    assert cache.names == ("0",)
    assert [each.path.name for each in skipped] == ["1.png", "2.png"]
    assert "cannot be read" in skipped[0].why


def test_nothing_readable_is_an_error(tmp_path):
    write_pictures(tmp_path / "pictures", 1)
    (tmp_path / "pictures" / "targets" / "0.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="got none of 1: .*0.png"):
        encode(tmp_path)


def test_cancelling_keeps_what_is_encoded(tmp_path):
    write_pictures(tmp_path / "pictures")

    def cancel(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(tmp_path, on_progress=cancel)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 4
    assert len(encode(tmp_path)[0].files) == 6


def test_a_damaged_file_is_named(tmp_path):
    write_pictures(tmp_path / "pictures", 1)
    cache, _ = encode(tmp_path)
    cache.files[0].write_bytes(b"")
    with pytest.raises(WeightFileError, match=cache.files[0].name):
        cache.read(0)
