"""What makes two implementations the same: every gradient, measured by a scale that is never zero in theory."""

AUDIBLE = 3e-4  # the least that the largest entry of a gradient is, beside the largest of all


def assert_same_gradients(got, want, tolerance, zero=()):
    """Each tensor of `got` (a dict by name) is the one of `want`, within `tolerance` of the largest entry of them all.

    Its own largest entry is no measure: the gradient of the keys' bias, or of queries that see one key, is zero in
    theory, and what rounding leaves of it depends on the processor. Names that end like one of `zero` are such and must
    be zero within tolerance; any other gradient must be large enough that a mistake in it is not lost beside the rest.
    """
    assert got.keys() == want.keys()
    largest = max(theirs.abs().max().item() for theirs in want.values())
    for name, ours in got.items():
        theirs = want[name]
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype), name
        assert (ours.double() - theirs.double()).abs().max().item() <= tolerance * largest, name
        share = theirs.abs().max().item() / largest
        assert share <= tolerance if name.endswith(tuple(zero)) else share > AUDIBLE, (name, share)


def gradients(module):
    """Name -> gradient of all parameters of a module."""
    return {name: parameter.grad for name, parameter in module.named_parameters()}
