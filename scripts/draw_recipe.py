"""The picture of docs/recipe.md: perplexity against time, of the old recipe and the new one."""

import numpy as np
from matplotlib.figure import Figure

from course_lib.experiments import load
from course_lib.experiments.recipe_by_time import TIMED
from course_lib.viz.plots import GREY, OKABE_ITO, headline, new_figure

SHIPPED = "GPT-2", 2 * 92  # gpt2_english: its arm, and minutes: 92 on both cores
BIGRAM = 4.70  # nats: Kneser-Ney, counted on all training text (a test counts it again)
SMOOTH = 10  # recorded steps, of which each tenth is recorded


def plot_recipe_by_time() -> Figure:
    """Curves of training and, as dots, held-out perplexity: runs of `recipe_by_time`, and the shipped GPT-2."""
    runs = {run["name"]: run for study in ("recipe_by_time", "gpt2_english") for run in load(study)["arms"]}
    minutes = {name: minutes for name, (minutes, _) in TIMED.items()} | dict([SHIPPED])
    figure, axes = new_figure(size=(8.0, 3.8))
    ax = axes[0, 0]
    for name, total in minutes.items():
        color = OKABE_ITO[1] if name.startswith("old") else OKABE_ITO[0]
        step, loss = (np.array(runs[name]["curve"][column])[20:] for column in ("step", "loss"))
        smooth = np.convolve(loss, np.ones(SMOOTH) / SMOOTH, "valid")
        time = step[SMOOTH - 1 :] / runs[name]["config"]["steps"] * total
        ax.plot(time, np.exp(smooth), color=color, lw=1, alpha=0.5)
        held_out = np.exp(runs[name]["metrics"]["validation_loss"])
        ax.plot(total, held_out, "o", color=color)
        label = f"{held_out:.0f}, {'the shipped GPT-2' if name == SHIPPED[0] else name}"
        offset, where = ((6, 8), "left") if name.startswith("old") else ((4, -16), "right")
        ax.annotate(label, (total, held_out), xytext=offset, textcoords="offset points", color=color, ha=where)
    ax.axhline(np.exp(BIGRAM), color=GREY, ls=":")
    ax.annotate("table of pairs (Kneser–Ney)", (500, np.exp(BIGRAM)), xytext=(0, 4), textcoords="offset points",
                ha="right", color=GREY)  # fmt: skip
    ticks = [1, 3, 10, 30, 60, 180]
    ax.set(xscale="log", xlim=(0.5, 500), ylim=(0, 300), xlabel="minutes of one core", ylabel="perplexity")
    ax.set_xticks(ticks, labels=map(str, ticks))
    ax.minorticks_off()
    new, old = (np.exp(runs[name]["metrics"]["validation_loss"]) for name in ("new, 10 minutes", "old, 20 minutes"))
    headline(figure, f"The new recipe reaches {new:.0f} in 10 minutes, the old one {old:.0f} in 20\n"
                     "(lines: training text; dots: held-out text of five sources)")  # fmt: skip
    return figure
