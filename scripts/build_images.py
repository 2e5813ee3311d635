"""Draw the pictures of README again: `make images`. They come from recorded runs, so this takes seconds."""

from course_lib.experiments import load_tensors
from course_lib.paths import shipped, whole_or_nothing
from course_lib.viz.animate import gif, png
from course_lib.viz.lesson_map import plot_lesson_map
from course_lib.viz.norms import norm_frame, plot_norm_frames
from course_lib.viz.plots import use_house_style

IMAGES = shipped("data").parent / "images"
PAIR = ("pre-norm lr=0.01", "post-norm lr=0.01")


def main() -> None:
    """Draw all of them."""
    use_house_style()
    traces = {name: load_tensors("norm_dynamics", name) for name in PAIR}
    steps = traces[PAIR[0]]["steps"].tolist()
    frames = (plot_norm_frames([norm_frame(traces, name, layer=5, step=step) for name in PAIR]) for step in steps)
    gif(frames, IMAGES / "layernorm_dynamics.gif")
    with whole_or_nothing(IMAGES / "lesson_map.png") as path:
        path.write_bytes(png(plot_lesson_map()))
    print(*(f"{path.name}: {path.stat().st_size // 1000} kB" for path in sorted(IMAGES.iterdir())), sep="\n")


if __name__ == "__main__":
    main()
