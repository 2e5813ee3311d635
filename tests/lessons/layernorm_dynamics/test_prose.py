"""Lesson 01: what its prose says is in the records."""

import pytest

from course_lib.experiments import as_frame, load, load_tensors


def medians():
    frame = as_frame(load("norm_placement"))
    frame["network"] = frame["arm"].str.split(" lr=").str[0]
    frame["final_loss"] = frame["final_loss"].astype(float).fillna(float("inf"))
    return frame.groupby(["network", "warmup", "lr"])["final_loss"].median()


def usable(network, warmup):
    table = medians()[network][warmup]
    return table[table < 1.0].index.max()


def test_claims_of_lesson_01_about_placement():
    """What the prose of lesson 01 says of the recorded study."""
    table = medians()
    best = {key: table[key].min() for key in {(n, w) for n, w, _ in table.index}}
    # 1. Post-norm: warm-up hardly changes the best loss, and not the largest usable rate.
    assert best["post-norm", 80] == pytest.approx(0.235, abs=5e-4)
    assert best["post-norm", 0] == pytest.approx(0.247, abs=5e-4)
    assert usable("post-norm", 0) == usable("post-norm", 80) == 1e-3
    # 2. Pre-norm: the best losses differ by less than the seeds, but at large rates warm-up helps.
    assert best["pre-norm", 80] == pytest.approx(0.222, abs=5e-4)
    assert best["pre-norm", 0] == pytest.approx(0.247, abs=5e-4)
    assert table["pre-norm", 80, 0.1] < 0.6 * table["pre-norm", 0, 0.1]
    # 3. Post-norm at its best is within 10 %.
    assert best["post-norm", 80] < 1.1 * best["pre-norm", 80]
    # 4. RMSNorm equals LayerNorm: the medians lie within the range over seeds, everywhere.
    frame = as_frame(load("norm_placement"))
    pre = frame[(frame.norm == "layernorm") & (frame.placement == "pre")].groupby(["warmup", "lr"])["final_loss"]
    for (warmup, lr), losses in pre:
        assert losses.min() <= table["RMSNorm", warmup, lr] <= losses.max()
    # 5. Without a norm: usable up to 0.01 and 0.03; pre-norm to the end of the grid.
    assert (usable("no norm", 0), usable("no norm", 80)) == (0.01, 0.03)
    assert usable("pre-norm", 0) == usable("pre-norm", 80) == frame.lr.max() == 0.1


def test_claims_of_lesson_01_about_dynamics():
    means = as_frame(load("norm_dynamics")).groupby("arm").mean(numeric_only=True)
    slow, fast = means.loc["pre-norm lr=0.001"], means.loc["pre-norm lr=0.01"]
    assert slow.gain_std == pytest.approx(0.012, abs=1e-3)
    assert fast.gain_std / slow.gain_std == pytest.approx(6, abs=0.5)
    assert (slow.gain_last, fast.gain_last) == (pytest.approx(1.02, abs=5e-3), pytest.approx(0.89, abs=5e-3))
    assert slow.input_std_last / slow.input_std_first == pytest.approx(2.7, abs=0.1)
    post = means.loc["post-norm lr=0.001"]
    assert post.input_std_last / post.input_std_first == pytest.approx(1, abs=0.2)
    assert means.loc["post-norm lr=0.01"].gain_std / post.gain_std == pytest.approx(12, abs=1)
    frame = as_frame(load("norm_dynamics")).set_index(["arm", "seed"])
    dead = frame.loc["post-norm lr=0.01"]
    assert dead.test_accuracy.round(2).tolist() == [0.2, 0.1, 0.19]
    assert dead.distinct_rows.tolist() == [2, 1, 2]
    saved = frame.loc["post-norm skip=4 lr=0.01"]
    assert saved.distinct_rows.between(507, 510).all()
    assert saved.test_accuracy.mean() == pytest.approx(0.873, abs=1e-3)
    assert fast.test_accuracy == pytest.approx(0.875, abs=1e-3)
    assert min(slow.distinct_rows, fast.distinct_rows) > 500


def test_claims_of_lesson_01_about_the_collapse():
    """Between step 40 and 160 the skip falls to a tenth and 512 rows to 2, deep norms first."""
    trace = load_tensors("norm_dynamics", "post-norm lr=0.01")
    at = {int(step): i for i, step in enumerate(trace["steps"])}
    share = (1 / trace["input_std"].float())[:, 1:].median(1).values
    rows = trace["distinct_rows"].float()
    assert share[0] > 0.8
    assert share[at[160]] == pytest.approx(0.1, abs=0.02)
    assert rows[at[40]].min() >= 300
    assert rows[at[160]].median() == 2
    assert 2 < rows[at[100]].median() < 256  # half done
    assert (rows[at[40]].diff() <= 0).all()
    pre = load_tensors("norm_dynamics", "pre-norm lr=0.001")["input_std"].float()
    assert pre[0, -1] / pre[0, 0] > 2  # an untrained stream widens as much


def test_claims_of_lesson_01_seed_by_seed():
    frame = as_frame(load("norm_placement"))
    frame["network"] = frame["arm"].str.split(" lr=").str[0]

    def at_best(network, warmup):
        table = frame[(frame.network == network) & (frame.warmup == warmup)].astype({"final_loss": float})
        lr = table.groupby("lr").final_loss.median().idxmin()
        return table[table.lr == lr].set_index("seed")

    def change(network):
        return at_best(network, 80).final_loss / at_best(network, 0).final_loss - 1

    assert change("post-norm").mean() == pytest.approx(-0.02, abs=0.005)
    assert (change("pre-norm") < 0).all()
    assert change("pre-norm").mean() == pytest.approx(-0.11, abs=0.005)
    ratio = at_best("post-norm", 80).final_loss / at_best("pre-norm", 80).final_loss - 1
    assert (ratio.min().round(2), ratio.max().round(2)) == (0.02, 0.13)
    accuracy = {name: at_best(name, 80).test_accuracy.median() for name in ("pre-norm", "no norm")}
    assert accuracy["pre-norm"] - accuracy["no norm"] == pytest.approx(0.04, abs=0.005)
