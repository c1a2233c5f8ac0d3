"""`python -m pit convert` merges an operator with the statistics of its base."""

import pytest
import torch
from safetensors.torch import save_file

from pit import load_operator
from pit.__main__ import main
from pit.files.weights import read_state
from pit.pops.files import read_operator
from tests.golden import assert_equal
from tests.pops.test_files import BASE, assert_is
from tests.pops.tiny import HEADS, write_base, write_operator


@pytest.mark.parametrize("inner", ["", "prior/diffusion_pytorch_model.safetensors"])
def test_a_merged_operator_needs_no_base_and_says_what_it_is_for(tmp_path, capsys, inner):
    source = write_operator(tmp_path / "texturing/learned_prior.pth")
    target = tmp_path / "texture.safetensors"
    base = write_base(tmp_path / "base") / inner
    assert main(["convert", str(source), str(target), "--base", str(base)]) == 0
    assert capsys.readouterr().out == f"written: {target}\n"
    assert_is(load_operator(target))
    file = read_operator(target)
    assert file.mode == "texture" and file.config.num_heads == HEADS
    # And again, into the same.
    assert main(["convert", str(target), str(tmp_path / "again.safetensors")]) == 0
    assert read_operator(tmp_path / "again.safetensors").mode == "texture"


def test_the_published_operator_merges_into_the_published_network(golden, tmp_path):
    base, target = golden.path("pops_tiny_base_state.safetensors"), tmp_path / "merged.safetensors"
    save_file(read_state(base)[0], tmp_path / "base.safetensors")
    heads = golden.facts("pops_tiny_config")["prior"]["num_attention_heads"]
    (tmp_path / "config.json").write_text(f'{{"num_attention_heads": {heads}}}')
    source = golden.path("pops_tiny_operator.pth")
    assert main(["convert", str(source), str(target), "--base", str(tmp_path / "base.safetensors")]) == 0
    io, operator = golden.below("pops_tiny_io", "fwd.both."), load_operator(target)
    with torch.no_grad():
        assert_equal(operator(io["x"], io["t"], io["hidden"]), io["pred"])


def test_an_operator_without_a_base_is_not_written(tmp_path, capsys):
    source, target = write_operator(tmp_path / "learned_prior.pth"), tmp_path / "a.safetensors"
    assert main(["convert", str(source), str(target)]) == 1
    assert "Give the prior of Kandinsky 2.2 as its base" in capsys.readouterr().err
    assert not target.exists()


def test_a_base_for_something_else_is_refused(tmp_path, capsys):
    save_file({"weight": torch.zeros(2)}, tmp_path / "a.safetensors")
    save_file(BASE, tmp_path / "base.safetensors")
    arguments = ["convert", str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")]
    assert main([*arguments, "--base", str(tmp_path / "base.safetensors")]) == 1
    assert "expected a pOps operator to merge with" in capsys.readouterr().err
    assert not (tmp_path / "b.safetensors").exists()
