"""EMR and CoSim of pictures with part words, against hand-made pictures and the published centroids."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from pit.messages import ShortError
from pit.partcraft.discovery import PartClusters, codes_of, find_parts
from pit.partcraft.prompt import PartWord
from pit.partcraft.scores import code_features, measure_words
from tests.golden import assert_equal
from tests.partcraft.test_discovery import published_clusters

EYE = torch.eye(9)
# Part 0 is along axis 1, part 1 along axis 2, part 2 is the background; codes lean to axes 3, 4 and 5.
CLUSTERS = PartClusters(
    torch.stack([EYE[1] + EYE[2], EYE[0]]), torch.stack([EYE[1], EYE[2], -EYE.sum(dim=0)]),
    EYE[[1, 2, 0], None] + EYE[None, 3:6], 0, 2,
)


def picture(upper: int | None, lower: int | None) -> Tensor:
    """Features `[9,4,2]`: background, the upper part, the lower part, background."""
    rows = [EYE[0] + EYE[3]] * 4
    if upper is not None:
        rows[1] = EYE[1] + EYE[3 + upper]
    if lower is not None:
        rows[2] = EYE[2] + EYE[3 + lower]
    return torch.stack(rows).T[:, :, None].expand(9, 4, 2)


def seen(*pictures: Tensor):
    return find_parts(torch.stack(pictures), CLUSTERS)


def test_the_centroids_of_codes_are_the_published_ones(golden):
    theirs = golden.below("partcraft_tiny_io", "seg/")["obtain_fine_feats"]
    clusters = published_clusters(golden)
    distances = (clusters.fine - theirs[:, None]).norm(dim=-1)
    assert_equal(code_features(clusters, distances.argmin(dim=1).tolist()), theirs)


def test_what_was_asked_for_is_exact():
    parts = seen(picture(0, 1), picture(2, 2))
    asked = [[PartWord(0, (0,)), PartWord(1, (1,))], [PartWord(1, (2,)), PartWord(0, (2,))]]
    scores = measure_words(parts, CLUSTERS, asked)
    assert scores.exact == scores.found == 1 and scores.count == 4
    assert scores.similarity == pytest.approx(1)


def test_other_codes_and_absent_parts_count():
    parts = seen(picture(0, 1), picture(0, None))
    asked = [[PartWord(0, (1,)), PartWord(1, (1,))], [PartWord(1, (2,)), PartWord(0, (0,))]]
    scores = measure_words(parts, CLUSTERS, asked)
    other = cosine_similarity(CLUSTERS.fine[0, 1], CLUSTERS.fine[0, 0], dim=0)
    assert (scores.exact, scores.found, scores.count) == (0.5, 0.75, 4)
    assert scores.similarity == pytest.approx((other + 1 + 0 + 1) / 4)


def test_a_mixture_is_met_by_each_of_its_codes():
    parts = seen(picture(0, 1), picture(2, 1))
    scores = measure_words(parts, CLUSTERS, [[PartWord(0, (0, 1))], [PartWord(0, (0, 1))]])
    nearest = cosine_similarity(CLUSTERS.fine[0, 2], CLUSTERS.fine[0, 0], dim=0)
    assert scores.exact == 0.5 and scores.similarity == pytest.approx((1 + nearest) / 2)


def test_the_background_counts_only_on_request():
    parts = seen(picture(0, 1))
    asked = [[PartWord(0, (0,)), PartWord(2, (2,))]]
    assert codes_of(parts, CLUSTERS)[0, 2] == 0
    assert measure_words(parts, CLUSTERS, asked)[::2] == (1, 1)
    assert measure_words(parts, CLUSTERS, asked, with_background=True).exact == 0.5


@pytest.mark.parametrize("prompts, message", [
    ([], "each of 1 pictures, got 0 prompts"), ([[]], "part words in the prompts, got none"),
    ([[PartWord(2, (0,))]], "got none"), ([[PartWord(3, (0,))]], "part words of 3 parts with 3 codes"),
    ([[PartWord(0, (0, 3))]], "got part 0 with 0, 3"), ([[PartWord(0, (0,))]] * 2, "got 2 prompts"),
])
def test_what_cannot_be_measured_is_told(prompts, message):
    with pytest.raises(ShortError, match=message):
        measure_words(seen(picture(0, 1)), CLUSTERS, prompts)
