"""Train the weights of `data/weights/` again, each by the recorded study that it belongs to: `make weights`."""

import torch

from build_data import record
from course_lib.corpora import fashion_tensors
from course_lib.experiments import get_study, load
from course_lib.experiments.norm_placement import Config, build, evaluate, fit
from course_lib.paths import shipped
from course_lib.pretrained import MODELS, save


def main() -> None:
    """Train, compare with the record, save."""
    torch.set_num_threads(1)  # as the recorded runs
    for name, made in MODELS.items():
        config = Config(**get_study(made.study).arms[made.arm])
        model = build(config, made.seed)
        fit(model, config, made.seed)
        runs = load(made.study)["arms"]
        (recorded,) = (a["metrics"] for a in runs if (a["name"], a["seed"]) == (made.arm, made.seed))
        print(name, "now", evaluate(model, *fashion_tensors("test")), "recorded", recorded)
        path = save(name, model, shipped("data") / "weights")
        record([path])
        print("wrote", path.name)


if __name__ == "__main__":
    main()
