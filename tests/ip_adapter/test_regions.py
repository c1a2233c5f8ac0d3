"""How much of each cell of a layer's grid a mask covers, against sums of fractions."""

from fractions import Fraction

import pytest
import torch

from pit.ip_adapter.regions import checked_mask, coverage, grids, resampled


def shares(start, length, whole, cells, pixels):
    """What each cell shares with each pixel, as a share of the cell, by the book."""
    def shared(cell, pixel):
        cell_start = Fraction(start) + Fraction(length * cell, cells)
        cell_end = cell_start + Fraction(length, cells)
        pixel_start, pixel_end = Fraction(whole * pixel, pixels), Fraction(whole * (pixel + 1), pixels)
        return max(min(cell_end, pixel_end) - max(cell_start, pixel_start), 0) / (cell_end - cell_start)

    return torch.tensor([[float(shared(cell, pixel)) for pixel in range(pixels)] for cell in range(cells)])


@pytest.mark.parametrize(("window", "size", "grid", "pixels"), [
    ((0, 0, 8, 8), (8, 8), (4, 4), (8, 8)),
    ((0, 0, 9, 7), (9, 7), (5, 4), (64, 64)),
    ((0, 0, 13, 21), (13, 21), (7, 11), (5, 3)),
    ((3, 5, 16, 24), (10, 9), (5, 5), (37, 100)),
    ((2, 0, 7, 11), (1, 11), (1, 6), (1, 1)),
])
def test_a_cell_takes_the_average_of_what_lies_in_it(window, size, grid, pixels):
    mask = torch.rand(1, *pixels, generator=torch.Generator().manual_seed(1))
    top, left, height, width = window
    rows = shares(top, size[0], height, grid[0], pixels[0])
    columns = shares(left, size[1], width, grid[1], pixels[1])
    found = coverage(mask, torch.tensor([window]), size, grid)
    torch.testing.assert_close(found[0], rows @ mask[0] @ columns.T, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (127, 200), (1, 31)])
@pytest.mark.parametrize("pixels", [(8, 8), (64, 48), (1023, 771), (3, 5)])
def test_all_of_a_mask_of_one_value_is_exactly_that_value(size, pixels):
    windows = torch.tensor([[0, 0, *size]])
    for grid in grids(size):
        for value in (1.0, 0.5, 0.0):
            found = coverage(torch.full((1, *pixels), value), windows, size, grid)
            assert found.shape == (1, *grid) and (found == value).all()


@pytest.mark.parametrize("size", [(24, 24), (26, 38), (25, 19), (152, 104)])
def test_nothing_leaks_over_an_edge(size):
    """Pixels of a mask as many as the cells, or several for each: the cells beyond have exactly nothing."""
    for grid in grids(size):
        for fine in (1, 3, 8):
            mask = torch.zeros(1, grid[0] * fine, grid[1] * fine)
            edge = grid[1] // 2
            mask[:, :, :edge * fine] = 1
            found = coverage(mask, torch.tensor([[0, 0, *size]]), size, grid)
            assert (found[..., :edge] == 1).all() and (found[..., edge:] == 0).all()


def test_rows_may_show_different_parts_of_different_masks():
    masks = torch.rand(2, 6, 10, generator=torch.Generator().manual_seed(2))
    windows = torch.tensor([[0, 0, 6, 10], [2, 4, 6, 10]])
    found = coverage(masks, windows, (4, 6), (4, 6))
    torch.testing.assert_close(found, torch.stack([masks[0, :4, :6], masks[1, 2:, 4:]]))
    one = coverage(masks[:1], windows, (4, 6), (4, 6))
    torch.testing.assert_close(one[1], masks[0, 2:, 4:])


def test_a_grid_of_its_own_is_made_of_the_finest():
    mask = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(3))
    expected = torch.nn.functional.avg_pool2d(mask, 4)
    torch.testing.assert_close(resampled(mask, [2, 2]), expected)


def test_grids_are_those_of_a_unet():
    assert grids((128, 96)) == [(128, 96), (64, 48), (32, 24), (16, 12)]
    assert grids((9, 1)) == [(9, 1), (5, 1), (3, 1), (2, 1)]


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5), (3, 1, 4, 5)])
def test_masks_come_in_every_layout(shape):
    mask = torch.rand(shape, dtype=torch.float16)
    found = checked_mask(mask)
    assert found.dtype == torch.float32 and found.shape == (3 if len(shape) > 2 else 1, 4, 5)
    assert found.flatten().equal(mask.float().flatten())
    assert checked_mask(torch.tensor([[1.0005, -0.0005]])).tolist() == [[[1, 0]]]


@pytest.mark.parametrize(("mask", "message"), [
    (torch.full((1, 4, 4), 255.0), "values from 0 to 1, got 255 to 255"),
    (torch.tensor([[0.0, -0.5]]), "got -0.5 to 0"),
    (torch.tensor([[0.0, float("nan")]]), "got nan to nan"),
    (torch.tensor([[0.0, float("inf")]]), "got 0 to inf"),
    (torch.zeros(0, 4, 4), r"at least one pixel, got one of shape \[0, 4, 4\]"),
    (torch.zeros(4), r"got one of shape \[4\]"),
])
def test_what_is_no_mask_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        checked_mask(mask)
