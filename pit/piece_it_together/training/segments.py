"""Parts of an object on plain ground, found without any model.

What differs from the ground is cut into superpixels (SLIC: Achanta et al., 2012); neighbours of similar
colour are merged, the cheapest pair first, where a border costs the mean colour difference of the superpixels
that first met along it (so soft shading merges and edges stay). Drawn outlines go to the areas beside them.
"""
from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.spatial import cKDTree

from ...images import on_white

_FINE_SIDE = 1024  # pixels of the longer side at which silhouettes are found
_WORKING_SIDE = 256  # pixels of the longer side at which regions are found
_STEP = 8  # distance of the superpixels' first centres
_COMPACTNESS = 12.0  # Lab units that a distance of _STEP weighs
_ROUNDS = 6
_LIGHTNESS_WEIGHT = 0.6  # shading changes lightness more than hue
_SIMILAR = 14.0  # weighted Lab units below which neighbours are one region
_LINE = 9  # pixels; areas narrower than this are lines, not regions
_GROUND_DIFFERENCE = 7.0  # Lab units
_SHADOW_DARKENING, _SHADOW_TINT = 30.0, 6.0  # Lab units
_LARGEST_FILLED_HOLE = 0.025  # of the picture: the white of an eye, but not the opening of a handle
_SMALLEST_OBJECT = 0.005  # of the picture: less is dust


class UnevenGroundError(ValueError):
    """The picture's border shows no plain ground."""


def segment(image: Image.Image, *, minimum: float = 0.015) -> np.ndarray:
    """Masks `[N,H,W]` bool of the regions of what stands on plain ground; they do not overlap.

    Regions of less than `minimum` of the picture join their most similar neighbour. The same picture gives
    the same masks. Nothing found gives N = 0.

    Raises UnevenGroundError if the picture's border shows no plain ground.
    """
    image = on_white(image)
    fine = image.resize(_fit(image.size, min(_FINE_SIDE, max(image.size))), Image.Resampling.BILINEAR)
    object_mask = foreground(fine)
    size = _fit(image.size, _WORKING_SIDE)
    small = np.asarray(Image.fromarray(object_mask).resize(size, Image.Resampling.NEAREST))
    if not small.any():
        return np.zeros((0, image.height, image.width), bool)
    colours = lab(np.asarray(fine.resize(size, Image.Resampling.BILINEAR)))
    colours[..., 0] *= _LIGHTNESS_WEIGHT
    labels = _Regions(_superpixels(colours, small), colours).merge_similar(_SIMILAR)
    labels = _Regions(_give_lines_away(labels), colours).merge_small(minimum * small.size)
    return _enlarge(labels, object_mask, image.size)


def foreground(image: Image.Image) -> np.ndarray:
    """`[H,W]` bool: what differs in colour from the ground, without its soft shadow.

    The ground is a quadratic surface in Lab fitted to the picture's border, so it may be a gradient. Neutral
    darkening counts as shadow unless most of what differs is like that. Small holes are filled.
    Raises UnevenGroundError if less than half of the border follows such a surface.
    """
    blur = max(image.size) / 512
    colours = ndimage.gaussian_filter(lab(np.asarray(on_white(image))), (blur, blur, 0))
    difference = colours - _ground(colours)
    different = np.linalg.norm(difference, axis=2) > _GROUND_DIFFERENCE
    tint = np.linalg.norm(difference[..., 1:], axis=2)
    darkening = -difference[..., 0]
    shadow = different & (tint < _SHADOW_TINT) & (darkening > 0) & (darkening < _SHADOW_DARKENING)
    if shadow.sum() < different.sum() / 2:
        different &= ~shadow
    filled = ~_without_small_areas(~different, _LARGEST_FILLED_HOLE)
    return _without_small_areas(filled, _SMALLEST_OBJECT)


def lab(pixels: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) `[...,3]` float32 of sRGB `pixels` `[...,3]` uint8."""
    value = pixels.astype(np.float32) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.412456, 0.357576, 0.180438], [0.212673, 0.715152, 0.072175], [0.019334, 0.119192, 0.950304]],
        np.float32,
    )
    xyz = linear @ (to_xyz / to_xyz.sum(axis=1, keepdims=True)).T
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(np.float32)


def _ground(colours: np.ndarray) -> np.ndarray:
    """The ground's colour at every pixel, from the border of `colours` `[H,W,3]`."""
    height, width = colours.shape[:2]
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    surface = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=2).astype(np.float32)
    strip = np.ones((height, width), bool)
    edge = max(round(0.02 * min(height, width)), 1)
    strip[edge:-edge, edge:-edge] = False
    terms, border = surface[strip], colours[strip]
    fits = np.linalg.norm(border - np.median(border, axis=0), axis=1)
    for _ in range(4):  # what stands at the border, such as a cut-off foot, drops out
        kept = fits <= max(2 * np.median(fits), 1.0)
        weights = np.linalg.lstsq(terms[kept], border[kept], rcond=None)[0]
        fits = np.linalg.norm(border - terms @ weights, axis=1)
    if np.median(fits) > _GROUND_DIFFERENCE:
        raise UnevenGroundError(
            "Expected an object on plain ground, found a border whose colour is not even. Give masks for "
            "this picture, or put the object on white."
        )
    return surface @ weights


def _without_small_areas(mask: np.ndarray, share: float) -> np.ndarray:
    labels, _ = ndimage.label(mask)
    large = np.bincount(labels.ravel()) >= share * mask.size
    large[0] = False
    return large[labels]


def _superpixels(colours: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Labels `[H,W]` from 1 (0 = outside `mask`) of connected superpixels."""
    places = np.argwhere(mask)
    points = np.concatenate([colours[mask], places * (_COMPACTNESS / _STEP)], axis=1)
    on_grid = ((places % _STEP) == _STEP // 2).all(axis=1)
    centres = points[on_grid] if on_grid.any() else points[:1]
    for _ in range(_ROUNDS):
        nearest = cKDTree(centres).query(points)[1]
        counts = np.bincount(nearest, minlength=len(centres))
        sums = [np.bincount(nearest, column, len(centres)) for column in points.T]
        centres = (np.stack(sums, axis=1)[counts > 0]) / counts[counts > 0, None]
    labels = np.zeros(mask.shape, int)
    labels[mask] = cKDTree(centres).query(points)[1] + 1
    return _connected(labels)


def _connected(labels: np.ndarray) -> np.ndarray:
    """`labels` numbered anew, such that each is one connected area."""
    result, count = np.zeros_like(labels), 0
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        if box is not None:
            pieces, found = ndimage.label(labels[box] == label)
            result[box][pieces > 0] = pieces[pieces > 0] + count
            count += found
    return result


def _give_lines_away(labels: np.ndarray) -> np.ndarray:
    """Outlines and other narrow areas join the nearest area that is not narrow."""
    wide = np.zeros(labels.shape, bool)
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        if box is not None:
            wide[box] |= ndimage.binary_opening(labels[box] == label, np.ones((_LINE, _LINE), bool))
    if not wide.any():
        return labels
    nearest = ndimage.distance_transform_edt(~wide, return_distances=False, return_indices=True)
    return _connected(np.where(labels > 0, labels[tuple(nearest)], 0))


def _fit(size: tuple[int, int], longer: int) -> tuple[int, int]:
    width, height = (max(round(side * longer / max(size)), 1) for side in size)
    return width, height


def _enlarge(labels: np.ndarray, object_mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Masks `[N,H,W]` of `size` (W, H) of `labels` with smooth borders, cut to the finer `object_mask`."""
    nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    spread = labels[tuple(nearest)]
    masks = []
    for label in np.unique(labels[labels > 0]):
        fine = _resized(spread == label, object_mask.shape[::-1]) & object_mask
        masks.append(_resized(fine, size))
    return np.stack(masks)


def _resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Disjoint masks stay disjoint: at no place do two of them cover more than half."""
    soft = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(soft) > 128


class _Regions:
    """Connected areas of a picture, and what the border between each two of them costs.

    `lengths` and `costs` `[K+1,K+1]`: pixels of the common border, and their colour differences summed.
    """

    def __init__(self, labels: np.ndarray, colours: np.ndarray) -> None:
        count = int(labels.max()) + 1
        self.labels, self.owner = labels, np.arange(count)
        self.areas = np.bincount(labels.ravel(), minlength=count)
        sums = [np.bincount(labels.ravel(), channel.ravel(), count) for channel in np.moveaxis(colours, 2, 0)]
        means = np.stack(sums, axis=1) / np.maximum(self.areas, 1)[:, None]
        self.lengths = _border_lengths(labels, count)
        self.costs = self.lengths * np.linalg.norm(means[:, None] - means, axis=2)
        self.mean_costs = _ratio(self.costs, self.lengths)

    def merge_similar(self, similar: float) -> np.ndarray:
        """Labels after merging neighbours while the cheapest border costs less than `similar` per pixel."""
        while self.mean_costs.min() < similar:
            self._merge(*np.unravel_index(self.mean_costs.argmin(), self.mean_costs.shape))
        return self.owner[self.labels]

    def merge_small(self, least: float) -> np.ndarray:
        """Labels after areas below `least` pixels, the smallest first, joined their cheapest neighbour."""
        while True:
            areas = np.where((self.areas > 0) & self.lengths.any(axis=1), self.areas, np.inf)
            smallest = int(areas.argmin())
            if areas[smallest] >= least:
                return self.owner[self.labels]
            self._merge(int(self.mean_costs[smallest].argmin()), smallest)

    def _merge(self, kept: int, gone: int) -> None:
        self.owner[self.owner == gone] = kept
        self.areas[kept] += self.areas[gone]
        self.areas[gone] = 0
        for table in (self.lengths, self.costs):
            table[kept] += table[gone]
            table[gone] = 0
            table[:, gone] = 0
            table[kept, kept] = 0
            table[:, kept] = table[kept]
        self.mean_costs[gone] = self.mean_costs[:, gone] = np.inf
        self.mean_costs[kept] = self.mean_costs[:, kept] = _ratio(self.costs[kept], self.lengths[kept])


def _ratio(costs: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return np.divide(costs, lengths, out=np.full(costs.shape, np.inf), where=lengths > 0)


def _border_lengths(labels: np.ndarray, count: int) -> np.ndarray:
    """`[count,count]`: how many pixels of two labels lie side by side; label 0 has no neighbours."""
    pairs = [(labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])]
    first = np.concatenate([a.ravel() for a, _ in pairs])
    second = np.concatenate([b.ravel() for _, b in pairs])
    met = (first != second) & (first > 0) & (second > 0)
    lengths = np.bincount(first[met] * count + second[met], minlength=count * count).reshape(count, count)
    return (lengths + lengths.T).astype(np.float64)
