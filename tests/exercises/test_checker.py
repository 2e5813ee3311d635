"""The checker tells a missing answer from an error."""

import torch

from course_lib.exercises import call, checker


def test_what_torch_has_not_implemented_is_no_missing_answer():
    @checker
    def check(fn):
        call(fn, torch.arange(3))

    assert check(lambda x: x.softmax(-1)).ok is False

    def stub(x):
        raise NotImplementedError

    assert check(stub).ok is None
