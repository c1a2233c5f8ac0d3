"""The optimizer of the miniature models: equal steps in all directions, for matrices and kernels alike."""

import pytest
import torch
from torch import nn

from pit.demo.training.muon import Muon, orthogonalized, split_parameters


@pytest.mark.parametrize("shape", [(3, 24, 100), (2, 100, 24), (1, 32, 32)])
def test_it_finds_the_nearest_matrix_with_equal_directions(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    nearest, found = left @ right, orthogonalized(matrices)
    # Nearly: singular values end within a tenth of 1, but for the smallest ones of square matrices.
    assert (found - nearest).norm() < 0.1 * nearest.norm()
    assert torch.linalg.svdvals(found).max() < 1.1


def test_a_matrix_of_zeros_stays_one():
    assert orthogonalized(torch.zeros(1, 20, 30)).eq(0).all()


def stepped(weight: torch.Tensor, gradients: list[torch.Tensor]) -> torch.Tensor:
    parameter = nn.Parameter(weight.clone(memory_format=torch.preserve_format))
    optimizer = Muon([parameter], 0.02)
    for gradient in gradients:
        parameter.grad = gradient
        optimizer.step()
    return parameter.detach()


def test_a_kernel_is_trained_as_the_matrix_that_it_is():
    generator = torch.Generator().manual_seed(1)
    kernel = torch.randn(16, 24, 3, 3, generator=generator)
    gradients = [torch.randn(kernel.shape, generator=generator) for _ in range(3)]
    plain = stepped(kernel, gradients)
    last = stepped(
        kernel.to(memory_format=torch.channels_last),
        [each.to(memory_format=torch.channels_last) for each in gradients],
    )
    matrix = stepped(
        kernel.permute(0, 2, 3, 1).flatten(1), [each.permute(0, 2, 3, 1).flatten(1) for each in gradients]
    )
    assert torch.allclose(plain, last, atol=1e-6)
    assert torch.allclose(plain.permute(0, 2, 3, 1).flatten(1), matrix, atol=1e-6)


def test_the_first_step_moves_entries_by_a_fifth_of_the_rate():
    generator = torch.Generator().manual_seed(2)
    before = torch.randn(64, 64, generator=generator)
    gradient = 1e-3 * torch.randn(64, 64, generator=generator)  # of any size
    moved = stepped(before, [gradient]) - before * (1 - 0.02 * 0.01)
    assert moved.square().mean().sqrt().item() == pytest.approx(0.2 * 0.02, rel=0.1)
    assert (moved * gradient).sum() < 0


def test_vectors_tables_and_narrow_layers_are_left_to_adamw():
    model = nn.Sequential(
        nn.Embedding(100, 32), nn.Linear(32, 64), nn.LayerNorm(64), nn.Linear(64, 3), nn.Conv2d(16, 16, 3),
    )
    model[4].bias.requires_grad_(False)
    matrices, others = split_parameters(model)
    assert [id(each) for each in matrices] == [id(model[1].weight), id(model[4].weight)]
    assert {id(each) for each in others} == {
        id(each) for each in model.parameters() if each.requires_grad
    } - {id(each) for each in matrices}
