"""What several tests of lesson 02 need."""

import pytest

from course_lib.experiments.attention_scores import ARMS, Config, build, fit


@pytest.fixture(scope="package")
def trained():
    """The head of section 6."""
    config = Config(**ARMS["scaled"], width=64, lr=3e-3)
    model = build(config, 0)
    fit(model, config, 0, progress=False)
    return model
