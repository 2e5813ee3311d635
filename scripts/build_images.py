"""Draw the pictures of README and docs again: `make images`.

    python scripts/build_images.py [NAME ...]        (default: all; a picture's name is that of its file)

Most come from recorded runs; the film of the induction head trains its model, in half a minute.
"""

import sys
from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from course_lib import corpora, pretrained, tokenization
from course_lib.experiments import load_tensors
from course_lib.lessons.layernorm_dynamics.norm_frame import norm_frame, plot_norm_frames
from course_lib.lessons.multi_head_attention.induction_birth import Film, birth_frame, plot_birth, train_on_repeats
from course_lib.lessons.positional_encodings.rope_frame import example_vectors
from course_lib.lessons.positional_encodings.rope_motion import rope_figures, rope_steps
from course_lib.models.attention_only import AttentionOnly, AttentionOnlyConfig
from course_lib.paths import shipped, whole_or_nothing
from course_lib.viz.animate import gif, png
from course_lib.viz.attention_maps import Selection
from course_lib.viz.attention_plot import plot_maps
from course_lib.viz.contact_sheet import choose_drawings, contact_sheet
from course_lib.viz.lesson_map import plot_lesson_map
from course_lib.viz.model_maps import maps_of
from course_lib.viz.plots import use_house_style
from draw_architecture import plot_architecture
from draw_recipe import plot_recipe_by_time

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
    """The shipped GPT-2 in the explorer: an induction head that looks at what came next the last time."""
    text = "Harriet Smith met Mr. Elton in London. Later Harriet Smith"
    maps = maps_of(pretrained.load("gpt2-english"), tokenization.load("prose-4k"), text, start=True)
    return plot_maps(maps, Selection(layer=3, head=3, query=len(maps.queries) - 1))


def norm_frames() -> Iterator[Figure]:
    """Two networks at the same learning rate, step by step."""
    traces = {name: load_tensors("norm_dynamics", name) for name in PAIR}
    for step in traces[PAIR[0]]["steps"].tolist():
        yield plot_norm_frames([norm_frame(traces, name, layer=5, step=step) for name in PAIR])


def induction_frames() -> Iterator[Figure]:
    """Lesson 03's two layers learn to continue what repeats."""
    model, film = AttentionOnly(AttentionOnlyConfig()), Film(every=10)
    train_on_repeats(model, 400, film)
    for step in (*range(0, 180, 30), *range(180, 270, 10), *range(270, 401, 30), 400):
        yield plot_birth(birth_frame(film, step))


PICTURES = {
    "architecture": plot_architecture,
    "attention": attention,
    "emoji10": emoji_sheet,
    "lesson_map": plot_lesson_map,
    "recipe_by_time": plot_recipe_by_time,
}
MOTIONS = {
    "induction": lambda path: gif(induction_frames(), path, seconds=0.4),
    "layernorm_dynamics": lambda path: gif(norm_frames(), path),
    "rope": lambda path: gif(rope_figures(rope_steps(*example_vectors())), path, seconds=0.5, colors=128),
}


def main(names: list[str]) -> None:
    """Draw those named, or all. Raises KeyError for a name that is no picture's."""
    use_house_style()
    for name in names or [*PICTURES, *MOTIONS]:
        if name in MOTIONS:
            path = IMAGES / f"{name}.gif"
            MOTIONS[name](path)
        else:
            path = IMAGES / f"{name}.png"
            with whole_or_nothing(path) as temporary:
                temporary.write_bytes(png(PICTURES[name]()))
        print(f"{path.name}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
