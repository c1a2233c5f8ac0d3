"""Parts of an object on plain ground, found without any model.

What differs from the ground is cut into superpixels (SLIC: Achanta et al., 2012). Neighbors of similar color
are merged in a region adjacency graph, the cheapest border first. A border costs the mean color difference of
the superpixels that first met along it, so that soft shading merges and edges stay. Drawn outlines go to the
areas beside them.

It imports scikit-image, which takes most of a second: import this module only where parts are looked for.
"""
from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.color import rgb2lab
from skimage.graph import RAG, merge_hierarchical, rag_boundary
from skimage.measure import label
from skimage.segmentation import expand_labels, slic

from ...images import on_white
from .part_rules import SMALLEST_PART, UnevenGroundError

_FINE_SIDE = 1024  # pixels of the longer side at which silhouettes are found
_WORKING_SIDE = 256  # pixels of the longer side at which regions are found
_STEP = 8  # pixels between the first centers of superpixels
_COMPACTNESS = 12.0  # Lab units that a distance of _STEP weighs
_LIGHTNESS_WEIGHT = 0.6  # shading changes lightness more than hue
_SIMILAR = 14.0  # weighted Lab units below which neighbors are one region
_LINE = 7  # pixels; areas narrower than this are lines, not regions
_GROUND_DIFFERENCE = 7.0  # Lab units
_SHADOW_DARKENING, _SHADOW_TINT = 30.0, 6.0  # Lab units
_LARGEST_FILLED_HOLE = 0.025  # of the picture: the white of an eye, but not the opening of a handle
_SMALLEST_OBJECT = 0.005  # of the picture: less is dust


def segment(image: Image.Image, smallest: float = SMALLEST_PART) -> np.ndarray:
    """Masks `[N,H,W]` bool of the regions of what stands on plain ground; they do not overlap.

    Regions of less than `smallest` of the picture join their most similar neighbor. The same picture gives
    the same masks. Nothing found gives N = 0.

    Raises UnevenGroundError if the picture's border shows no plain ground.
    """
    image = on_white(image)
    fine = image.resize(_fit(image.size, min(_FINE_SIDE, max(image.size))), Image.Resampling.BILINEAR)
    object_mask = foreground(fine)
    size = _fit(image.size, _WORKING_SIDE)
    small = np.asarray(_picture_of(object_mask).resize(size, Image.Resampling.NEAREST)) > 0
    if not small.any():
        return np.zeros((0, image.height, image.width), bool)
    colors = rgb2lab(np.asarray(fine.resize(size, Image.Resampling.BILINEAR)))
    colors[..., 0] *= _LIGHTNESS_WEIGHT
    labels = _merge_similar(_superpixels(colors, small), colors)
    labels = _merge_small(_give_lines_away(labels), colors, smallest * small.size)
    return _enlarge(labels, object_mask, image.size)


def foreground(image: Image.Image) -> np.ndarray:
    """`[H,W]` bool: what differs in color from the ground, without its soft shadow.

    The ground is a quadratic surface in Lab fitted to the picture's border, so it may be a gradient. Neutral
    darkening counts as shadow unless most of what differs is like that. Small holes are filled.

    Raises UnevenGroundError if less than half of the border follows such a surface.
    """
    blur = max(image.size) / 512
    colors = ndimage.gaussian_filter(rgb2lab(np.asarray(on_white(image))), (blur, blur, 0))
    difference = colors - _ground(colors)
    different = np.linalg.norm(difference, axis=2) > _GROUND_DIFFERENCE
    tint = np.linalg.norm(difference[..., 1:], axis=2)
    darkening = -difference[..., 0]
    shadow = different & (tint < _SHADOW_TINT) & (darkening > 0) & (darkening < _SHADOW_DARKENING)
    if shadow.sum() < different.sum() / 2:
        different &= ~shadow
    filled = ~_without_small_areas(~different, _LARGEST_FILLED_HOLE)
    return _without_small_areas(filled, _SMALLEST_OBJECT)


def _ground(colors: np.ndarray) -> np.ndarray:
    """The ground's color at every pixel, from the border of `colors` `[H,W,3]`."""
    height, width = colors.shape[:2]
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    surface = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=2)
    strip = np.ones((height, width), bool)
    edge = max(round(0.02 * min(height, width)), 1)
    strip[edge:-edge, edge:-edge] = False
    terms, border = surface[strip], colors[strip]
    fits = np.linalg.norm(border - np.median(border, axis=0), axis=1)
    for _ in range(4):  # what stands at the border, such as a cut-off foot, drops out
        kept = fits <= max(2 * np.median(fits), 1.0)
        weights = np.linalg.lstsq(terms[kept], border[kept], rcond=None)[0]
        fits = np.linalg.norm(border - terms @ weights, axis=1)
    if np.median(fits) > _GROUND_DIFFERENCE:
        raise UnevenGroundError(
            "Expected an object on plain ground, got a border whose color is not even. Give masks for this "
            "picture, or put the object on white."
        )
    return surface @ weights


def _without_small_areas(mask: np.ndarray, share: float) -> np.ndarray:
    labels = _connected(mask)
    large = np.bincount(labels.ravel()) >= share * mask.size
    large[0] = False
    return large[labels]


def _connected(labels: np.ndarray) -> np.ndarray:
    """`labels` `[H,W]` numbered anew from 1, such that each is one connected area; 0 stays 0."""
    return label(labels, background=0, connectivity=1)


def _superpixels(colors: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Labels `[H,W]` from 1 (0 = outside `mask`) of connected superpixels.

    They are cut to the mask afterwards: with its `mask`, slic begins from k-means instead of a grid, which
    is slower and finds slightly fewer parts.
    """
    spread = np.ptp(colors) or 1.0  # slic scales all colors to 0..1
    everywhere = slic(
        colors, n_segments=max(mask.size // _STEP**2, 1), compactness=_COMPACTNESS / spread, max_num_iter=6,
        convert2lab=False, channel_axis=-1,
    )
    return _connected(everywhere * mask)


def _borders(labels: np.ndarray, colors: np.ndarray) -> RAG:
    """The graph of `labels` `[H,W]`: per edge `count`, the length, and `weight`, the color difference.

    Label 0, which is outside, takes part in nothing: the weights of its edges are infinite.
    """
    graph = rag_boundary(labels, np.zeros(labels.shape), connectivity=1)
    index = np.arange(labels.max() + 1)
    means = np.stack([ndimage.mean(channel, labels, index) for channel in np.moveaxis(colors, 2, 0)], axis=1)
    for a, b, edge in graph.edges(data=True):
        edge["weight"] = np.inf if 0 in (a, b) else float(np.linalg.norm(means[a] - means[b]))
    return graph


def _joined_border(graph: RAG, first: int, second: int, neighbor: int) -> dict[str, float]:
    """The edge to a neighbor after two regions became one: the mean weight over the whole border."""
    edges = [graph[region][neighbor] for region in (first, second) if graph.has_edge(region, neighbor)]
    count = sum(edge["count"] for edge in edges)
    return {"count": count, "weight": sum(edge["count"] * edge["weight"] for edge in edges) / count}


def _merge_similar(labels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Labels after merging neighbors while the cheapest border costs less than `_SIMILAR`."""
    graph = _borders(labels, colors)
    if not graph:  # one label in the whole picture
        return labels
    return merge_hierarchical(
        labels, graph, _SIMILAR, rag_copy=False, in_place_merge=True,
        merge_func=lambda *_: None, weight_func=_joined_border,
    )


def _merge_small(labels: np.ndarray, colors: np.ndarray, least: float) -> np.ndarray:
    """Labels after areas below `least` pixels, the smallest first, joined their cheapest neighbor."""
    graph, areas, owner = _borders(labels, colors), np.bincount(labels.ravel()), np.arange(labels.max() + 1)
    if 0 in graph:
        graph.remove_node(0)
    while touching := [region for region in graph if graph.degree(region)]:
        small = min(touching, key=areas.__getitem__)
        if areas[small] >= least:
            break
        kept = min(graph[small], key=lambda neighbor: graph[small][neighbor]["weight"])
        areas[kept] += areas[small]
        owner[owner == small] = kept
        graph.merge_nodes(small, kept, _joined_border)
    return owner[labels]


def _give_lines_away(labels: np.ndarray) -> np.ndarray:
    """Outlines and other narrow areas join the nearest area that is not narrow."""
    window = {"size": _LINE, "mode": "constant"}
    uniform = ndimage.maximum_filter(labels, **window) == ndimage.minimum_filter(labels, **window)
    wide = ndimage.maximum_filter(uniform, _LINE) & (labels > 0)
    if not wide.any():
        return labels
    return _connected(_spread(labels * wide) * (labels > 0))


def _spread(labels: np.ndarray) -> np.ndarray:
    """Every pixel gets its nearest label above 0."""
    return expand_labels(labels, distance=sum(labels.shape))


def _fit(size: tuple[int, int], longer: int) -> tuple[int, int]:
    width, height = (max(round(side * longer / max(size)), 1) for side in size)
    return width, height


def _enlarge(labels: np.ndarray, object_mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Masks `[N,H,W]` of `size` (W, H) of `labels` with smooth borders, cut to the finer `object_mask`."""
    spread, height, width = _spread(labels), *object_mask.shape
    fine = [_resized(spread == each, (width, height)) & object_mask for each in np.unique(labels[labels > 0])]
    return np.stack([_resized(mask, size) for mask in fine])


def _resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Disjoint masks stay disjoint: at no place do two of them cover more than half."""
    return np.asarray(_picture_of(mask).resize(size, Image.Resampling.BILINEAR)) > 128


def _picture_of(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8) * 255)
