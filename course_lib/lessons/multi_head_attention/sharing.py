"""The study of shared keys and values in one picture: what they cost, and what they save."""

from matplotlib.figure import Figure

from course_lib.experiments.record import Record
from course_lib.experiments.seeds import gaps
from course_lib.viz.plots import OKABE_ITO, headline, new_figure


def plot_sharing(record: Record, reference: str, *, title: str) -> Figure:
    """For each arm of `kv_heads` its gap in held-out loss to the arm `reference`, and its share of the cache.

    Dots are means over seeds, paired, lines their 95 % intervals. Raises ValueError for an arm that is not there.
    """
    found = {reference: (0.0, 0.0, 0.0)} | gaps(record, "validation_loss", reference)
    cache = {run["name"]: run["metrics"]["cache_bytes"] for run in record["arms"]}
    names = list(found)
    figure, axes = new_figure(2, size=(9.0, 2.6), sharey=True)
    loss, bytes_ = axes[0]
    loss.axvline(0, color="black", lw=0.8)
    for y, name in enumerate(names):
        middle, low, high = found[name]
        loss.plot((low, high), (y, y), color=OKABE_ITO[0], lw=2)
        loss.plot(middle, y, "o", color=OKABE_ITO[0], ms=7)
        share = cache[name] / cache[reference]
        bytes_.barh(y, share, color=OKABE_ITO[1], height=0.5)
        bytes_.annotate(f"{share:.1%}", (share, y), xytext=(4, 0), textcoords="offset points", va="center")
    loss.set_yticks(range(len(names)), labels=names)
    loss.set(xlabel="held-out loss, nats a token more", ylim=(len(names) - 0.5, -0.5))
    bytes_.set(xlabel="bytes of cache, share", xlim=(0, 1.15))
    headline(figure, f"{title}\n(dots: mean and 95 % interval over seeds, paired)")
    return figure
