"""Which areas count as parts."""

import numpy as np
import pytest

from pit.piece_it_together.training.part_rules import DEFAULT_RULES, PartRules


@pytest.mark.parametrize("rules", [{"smallest": 0.5}, {"largest": 1.5}, {"most": 0}, {"smallest": -1}])
def test_rules_that_let_nothing_through_are_refused(rules):
    with pytest.raises(ValueError, match="smallest < largest <= 1 .* and at least one part, got smallest"):
        PartRules(**rules)


def test_areas_between_the_limits_are_allowed():
    mask = np.zeros((10, 20), bool)
    assert not DEFAULT_RULES.allow(mask)
    mask[0, :4] = True
    assert DEFAULT_RULES.allow(mask) and not PartRules(smallest=0.02).allow(mask)
    assert not PartRules(largest=0.02).allow(mask)
