"""Lesson 02: what its prose says is in the record of its study and in the saved outputs."""

import json
import re

import numpy as np
import pytest

from course_lib.experiments import as_frame, get_study, load
from tests.conftest import ROOT


def table():
    """Per width and way of scoring: the medians at the best learning rate, as the lesson computes them."""
    frame = as_frame(load("attention_scores"))
    frame["scoring"] = frame["arm"].str.split(" width=").str[0]
    frame["steps"] = frame["steps_to_90"].astype(float).fillna(np.inf)
    rows = {}
    for (width, name), runs in frame.groupby(["width", "scoring"]):
        medians = runs.groupby("lr")["final_loss"].median()
        best = runs[runs.lr == medians.idxmin()].median(numeric_only=True)
        best["lr"], best["usable"] = medians.idxmin(), medians.index[medians < 0.5].max()
        best["fastest"] = runs.groupby("lr")["steps"].median().min()
        rows[width, name] = best
    return frame, rows


def test_claims_about_the_study():
    """The predictions one by one, in the order of the prose."""
    frame, best = table()
    assert len(frame) == 375
    assert not frame.diverged.any()
    loss = {key: row.final_loss for key, row in best.items()}
    assert loss[16, "dot"] / loss[16, "scaled"] == pytest.approx(3.2, abs=0.05)
    assert loss[256, "dot"] / loss[256, "scaled"] == pytest.approx(13, abs=0.5)
    assert [best[256, name].steps for name in ("dot", "scaled")] == [74, 54]
    assert [best[256, name].fastest for name in ("dot", "scaled")] == [63, 19]
    widths = (16, 64, 256)
    assert [best[w, "dot"].usable for w in widths] == [0.03, 0.03, 0.01]
    assert [best[w, "scaled"].usable for w in widths] == [0.03] * 3
    assert [round(loss[256, n], 4) for n in ("dot", "dot, small start", "scaled")] == [0.0611, 0.0085, 0.0046]
    share = {(w, n): loss[w, n] / loss[w, "scaled"] for w in widths for n in ("additive", "1/d")}
    assert [round(share[w, "additive"], 2) for w in widths] == [0.55, 0.22, 0.50]
    assert [round(share[w, "1/d"], 2) for w in widths] == [0.37, 0.30, 0.17]
    assert [loss[w, "1/d"] < loss[w, "additive"] for w in widths] == [True, False, True]
    assert loss[16, "additive"] < loss[16, "dot"] / 5  # "less than a fifth of dot's loss"
    closed = [(loss[w, "dot"] - loss[w, "dot, small start"]) / (loss[w, "dot"] - loss[w, "scaled"]) for w in widths]
    assert [round(c, 2) for c in closed] == [0.62, 0.81, 0.93]
    for w in widths:
        assert 0.785 < best[w, "additive"].test_mass < 0.87
        assert best[w, "additive"].test_accuracy > 0.999
        assert best[w, "additive"].unseen_mass == pytest.approx(0.065, abs=1e-3)
        assert best[w, "additive"].lengthened_mass < 0.08  # "near an even spread, whatever the length"
        assert min(best[w, n].test_mass for n in ("dot", "scaled", "dot, small start")) > 0.95
        assert best[w, "additive"].fastest > best[w, "scaled"].fastest
        assert best[w, "1/d"].usable == best[w, "additive"].usable == 0.03
    assert [round(best[w, "1/d"].test_mass, 2) for w in widths] == [0.96, 0.94, 0.88]
    assert min(best[w, "1/d"].test_accuracy for w in widths) > 0.999
    assert best[256, "dot, small start"].lr == best[256, "scaled"].lr == 1e-3
    at = frame[(frame.width == 256) & (frame.lr == 0.03)].groupby("scoring").final_loss.median()
    assert at["dot, small start"] > 10 * at["scaled"]  # "higher rates hurt it much more"


def test_claims_about_unseen_countries():
    frame, best = table()
    widths = (16, 64, 256)
    assert [round(best[w, "dot"].unseen_accuracy, 2) for w in widths] == [0.42, 0.62, 0.77]
    assert [round(best[w, "scaled"].unseen_accuracy, 2) for w in widths] == [0.19, 0.64, 0.81]
    assert all(best[w, "dot"].unseen_mass > best[w, "scaled"].unseen_mass for w in widths)
    rates = frame[(frame.scoring == "scaled") & (frame.width == 16)].groupby("lr").unseen_accuracy.median()
    assert rates[0.03] < rates[0.01] < rates[0.003]  # "high rates cost it the unseen"
    assert best[256, "scaled"].unseen_mass == pytest.approx(0.54, abs=5e-3)
    assert best[256, "dot, small start"].unseen_mass == pytest.approx(0.96, abs=5e-3)
    assert best[256, "1/d"].unseen_mass == pytest.approx(0.18, abs=5e-3)
    assert best[256, "1/d"].unseen_hit == pytest.approx(0.865, abs=1e-3)
    assert best[256, "dot, small start"].unseen_accuracy == pytest.approx(0.99, abs=5e-3)
    assert best[256, "1/d"].lengthened_hit == pytest.approx(0.998, abs=1e-3)
    assert best[256, "1/d"].lengthened_mass == pytest.approx(0.28, abs=5e-3)
    assert (best[16, "scaled"].unseen_mass, best[16, "scaled"].lengthened_mass) == pytest.approx((0.17, 0.69), abs=5e-3)
    assert best[256, "scaled"].unseen_length == pytest.approx(0.96, abs=5e-3)
    like_ours = frame[(frame.scoring == "scaled") & (frame.lr == 0.003) & (frame.width == 64)]
    assert like_ours.unseen_mass.median() == pytest.approx(0.44, abs=5e-3)  # section 6


def test_claims_about_the_start_and_the_end():
    frame, _ = table()
    means = frame[frame.lr == 0.003].groupby(["width", "scoring"]).mean(numeric_only=True)
    for width, spread in ((16, 4), (64, 8), (256, 16)):
        assert means.loc[width, "dot"].start_score_std == pytest.approx(spread, rel=0.03)
        assert means.loc[width, "scaled"].start_score_std == pytest.approx(1, rel=0.03)
        assert 13.5 < means.loc[width, "scaled"].test_gap < 16.5
    ratio = means.loc[256, "dot"].start_gradient / means.loc[256, "scaled"].start_gradient
    assert ratio == pytest.approx(9, abs=0.5)
    assert get_study("attention_scores").seeds == 5
    runs = {run["name"]: run for run in load("attention_scores")["arms"] if run["seed"] == 0}
    dot, scaled = (runs[f"{name} width=256 lr=0.003"] for name in ("dot", "scaled"))
    assert 8 < dot["metrics"]["final_loss"] / scaled["metrics"]["final_loss"] < 13  # "about ten times higher"

    def below_a_guess(run):
        return next(s for s, loss in zip(run["curve"]["step"], run["curve"]["loss"], strict=True) if loss < np.log(16))

    assert below_a_guess(dot) > 2 * below_a_guess(scaled)


PARTS = ("keys", "values", "scores")


ORDER = (r"median question ([\d.]+)", r"mean question ([\d.]+)")


def test_claims_of_the_saved_notebook():
    """What the prose says of the lesson's own numbers."""
    cells = json.loads((ROOT / "notebooks" / "02_attention_scoring.ipynb").read_text("utf-8"))["cells"]
    printed = "".join("".join(o.get("text", "")) for c in cells for o in c.get("outputs", []))

    def number(pattern):
        return float(re.search(pattern, printed)[1])

    assert number(r"price of tea: ([\d.]+)") == 4.34
    assert number(r"trained +([\d.]+)%\n") == pytest.approx(99.3, abs=0.3)
    assert number(r" untrained +([\d.]+)%") == pytest.approx(6.7, abs=0.3)
    assert number(r"countries shuffled +([\d.]+)%") == pytest.approx(6.25, abs=1)
    assert number(r"capitals shuffled +([\d.]+)%") > 99
    assert re.search(r"Vietnam: Oslo", printed)
    assert not re.search(r"Uruguay: Lima", printed)  # "one is confused with another"
    assert number(r"Japan: \w+ \((\d+)%\)") == pytest.approx(98, abs=1)
    shares = {n: (number(rf"{n} +country (\d+)%"), number(rf"{n} +country \d+%, capital (\d+)%")) for n in PARTS}
    assert 25 < shares["keys"][1] < shares["keys"][0] < 75  # "the keys still hold the capital"
    assert shares["values"][1] > 70  # "mostly the capital"
    assert shares["scores"][0] > 75  # "the queries mostly do not ask for it"
    assert number(r"d = 1024: .* top tenth holds (\d+)%") > 60  # "few queries get nearly all of the gradient"
    assert number(r"d = 1024: .* below 0.01: (\d+)%") > 60  # "most get almost none"
    question = {n: [number(rf"{n} +gradient.* {p}") for p in ORDER] for n in ("dot", "scaled")}
    assert question["dot"][0] < question["scaled"][0] / 2  # "the typical question gives less"
    assert question["dot"][1] > question["scaled"][1]
    assert number(r"dot +gradient.* the questions holds (\d+)%") > 50  # "a tenth of them gives most of it"
    assert 3 > number(r"no scale: .* loss ([\d.]+)") / number(r"right: .* loss ([\d.]+)\nno scale") > 1.7  # "doubles"
    assert number(r"1 question .* wrong axis: ([\d.]+)%") < 5
    assert number(r"forbidden after softmax: +100.0% right, loss ([\d.]+)") > 100 * number(
        r"old ones forbidden: +100.0% right, loss ([\d.]+)"
    )
    assert number(r"no scale: +([\d.]+)% right") > 99.5
