"""What tests of sampling share besides their fixtures."""



def assert_same(found, expected, tolerance=1e-4):
    """The same but for rounding; the values of a tiny model reach into the hundreds."""
    assert (found - expected).abs().max() < tolerance * expected.abs().max()


def whole(tensor, times):
    return tensor.repeat(times, *[1] * (tensor.ndim - 1))


def interleaved(tensor, times):
    return tensor.repeat_interleave(times, dim=0)
