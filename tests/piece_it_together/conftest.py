"""The published prior at the tiny size of the golden data."""
from __future__ import annotations

import pytest

from pit.piece_it_together.prior import IPPrior, feed_forward_width


@pytest.fixture
def golden_prior(golden) -> IPPrior:
    """Fresh for each test, and open to training."""
    sizes = golden.facts("pit_tiny_config")["dit"]
    model = IPPrior(
        sizes["embedding_dim"], sizes["hidden_dim"], sizes["n_layers"], sizes["n_heads"],
        feed_forward_dim=feed_forward_width(sizes["hidden_dim"], sizes["multiple_of"]),
    )
    model.load_state_dict(golden.below("pit_tiny_state", "prior."))
    return model.eval()
