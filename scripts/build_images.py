"""Draw the pictures of README and lessons again: `make images`. They come from recorded runs: this takes seconds."""

import numpy as np
from matplotlib.figure import Figure

from course_lib import corpora, pretrained, tokenization
from course_lib.experiments import load_tensors
from course_lib.lessons.layernorm_dynamics.norm_frame import norm_frame, plot_norm_frames
from course_lib.lessons.positional_encodings.rope_frame import example_vectors
from course_lib.lessons.positional_encodings.rope_motion import rope_figures, rope_steps
from course_lib.paths import shipped, whole_or_nothing
from course_lib.viz.animate import gif, png
from course_lib.viz.attention_maps import Selection
from course_lib.viz.attention_plot import plot_maps
from course_lib.viz.contact_sheet import choose_drawings, contact_sheet
from course_lib.viz.lesson_map import plot_lesson_map
from course_lib.viz.model_maps import maps_of
from course_lib.viz.plots import use_house_style

IMAGES = shipped("data").parent / "images"
PAIR = ("pre-norm lr=0.01", "post-norm lr=0.01")


def emoji_sheet() -> Figure:
    """Two drawings of each vendor in every class."""
    rows = corpora.emoji("train")[:]
    labels, order = rows["label"].tolist(), corpora.EMOJI_VENDORS
    chosen = choose_drawings(labels, rows["vendor"], rows["base"], order, each=2)
    names = [f"{en}  {ja}" for en, ja in zip(corpora.EMOJI_CLASSES, corpora.EMOJI_CLASSES_JA, strict=True)]
    pictures = rows["image"].numpy()[np.array(chosen)]  # (10, 14, 32, 32, 3)
    return contact_sheet(pictures, names, dict.fromkeys(order, 2), "Ten classes of emoji, as seven sets draw them")


def attention() -> Figure:
    """The shipped GPT-2 in the explorer: a head that looks at its own token and at earlier copies of it."""
    text = "The people of this country are strong. The people of this country are free."
    maps = maps_of(pretrained.load("gpt2-tiny"), tokenization.load("english-4k"), text)
    return plot_maps(maps, Selection(layer=0, head=0))


def main() -> None:
    """Draw all of them."""
    use_house_style()
    traces = {name: load_tensors("norm_dynamics", name) for name in PAIR}
    steps = traces[PAIR[0]]["steps"].tolist()
    frames = (plot_norm_frames([norm_frame(traces, name, layer=5, step=step) for name in PAIR]) for step in steps)
    gif(frames, IMAGES / "layernorm_dynamics.gif")
    gif(rope_figures(rope_steps(*example_vectors())), IMAGES / "rope.gif", seconds=0.5, colors=128)
    with whole_or_nothing(IMAGES / "lesson_map.png") as path:
        path.write_bytes(png(plot_lesson_map()))
    with whole_or_nothing(IMAGES / "emoji10.png") as path:
        path.write_bytes(png(emoji_sheet()))
    with whole_or_nothing(IMAGES / "attention.png") as path:
        path.write_bytes(png(attention()))
    print(*(f"{path.name}: {path.stat().st_size // 1000} kB" for path in sorted(IMAGES.iterdir())), sep="\n")


if __name__ == "__main__":
    main()
