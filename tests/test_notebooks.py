"""Notebooks as saved: run from the top, without errors, warnings, widget state or local paths; claims match records."""

import ast
import json
import re
from functools import reduce

import nbformat
import pytest

from course_lib import show_source
from course_lib.experiments import as_frame, load, load_tensors
from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_saved_as_run(path):
    raw = path.read_text("utf-8")
    notebook = nbformat.reads(raw, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert "widgets" not in notebook.metadata
    assert not re.search(r"NBVAL_SKIP|application/vnd.jupyter.widget-view", raw)
    text = json.dumps(outputs)
    assert not re.search(r"Warning|/home/|/root/|/tmp/|site-packages|Traceback", text)
    assert len(raw) < 1_500_000
    assert "setup" in code[0].metadata.get("tags", [])
    assert all(len(cell.source.splitlines()) <= 40 for cell in code)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_figures_fit_the_page(path):
    """A saved figure is at most 1,040 pixels wide (10 inches at 100 dpi, plus the border that `tight` adds)."""
    import base64
    import struct

    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                header = base64.b64decode(output["data"]["image/png"])[16:24]
                assert struct.unpack(">II", header)[0] <= 1040


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


def test_claims_of_notebook_00():
    """What its prose says of its own, saved numbers."""
    notebook = nbformat.read(ROOT / "notebooks" / "00_start_here.ipynb", as_version=4)
    printed = "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))

    def number(pattern):
        return float(re.search(pattern, printed)[1].replace(",", ""))

    text = "".join(c.source for c in notebook.cells if c.cell_type == "markdown")

    def row(name):
        """Training and validation perplexity, as the comparison prints them."""
        return [float(n) for n in re.search(rf"{name} +train +([\d.]+) +validation +([\d.]+)", printed).groups()]

    rows = {name: row(name) for name in ("Witten and Bell", "Kneser and Ney", "network")}
    assert "tables (114 and 108)" in text
    assert (round(rows["Witten and Bell"][1]), round(rows["Kneser and Ney"][1])) == (114, 108)
    assert rows["network"][1] == pytest.approx(rows["Witten and Bell"][1], rel=0.05)  # "about the same"
    assert rows["network"][1] > rows["Kneser and Ney"][1]
    assert all(train < 0.85 * validation for train, validation in rows.values())
    assert rows["network"][0] > rows["Witten and Bell"][0]  # the tables' gap is the larger one
    tests = {name: number(rf"{name} +perplexity +([\d.]+)\n(?!.*bits)") for name in rows}
    assert sorted(tests, key=tests.get) == sorted(rows, key=lambda name: rows[name][1])
    assert number(r"([\d,]+) tokens; counts") == pytest.approx(586_000, abs=500)
    assert number(r"same bug: perplexity ([\d.]+)") < 1.1
    assert number(r"on the next token: perplexity ([\d,]+)") > 4000  # "less than a blind guess"
    stages = [number(rf"{name} *: perplexity +([\d.]+)") for name in ("embedding", "block 1", "block 2")]
    assert stages[0] > 4 * stages[1]
    assert stages[1] - stages[2] < 0.1 * (stages[0] - stages[2])  # "most of the work is done in block 1"
    assert number(r"(\d+) of the \d+ pairs of neighbours") > 40
    assert number(r"data: (\d+) files") >= 12


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_source_that_is_shown_is_the_last_of_its_cell(path):
    """`show_source` gives Markdown, which Jupyter displays only as a cell's last value."""
    for cell in nbformat.read(path, 4).cells:
        lines = [line for line in cell.source.splitlines() if cell.cell_type == "code" and line.strip()]
        shown = [i for i, line in enumerate(lines) if line.startswith("show_source(")]
        assert shown in ([], [len(lines) - 1]), cell.source


def python(cell):
    """The parsed code of a cell, less its IPython magics."""
    return ast.parse(re.sub(r"^( *)%.*", r"\1pass", cell.source, flags=re.M))


def shown_sources(path):
    """(expression, object, saved Markdown) of each `show_source(...)`; the notebook's own imports find the object."""
    imported, found = {}, []
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type != "code":
            continue
        for node in python(cell).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                imported |= {(a.asname or a.name).partition(".")[0]: node for a in node.names}
            elif isinstance(node, ast.Expr) and re.match(r"show_source\(", expression := ast.unparse(node)):
                name, *attributes = ast.unparse(node.value.args[0]).split(".")
                assert name in imported, f"{path.name}: {expression} shows what was not imported"
                scope = {}
                exec(compile(ast.Module([imported[name]], []), path.name, "exec"), scope)
                saved = [output["data"]["text/markdown"] for output in cell.outputs if "data" in output]
                found.append((expression, reduce(getattr, attributes, scope[name]), saved))
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_source_that_is_shown_is_todays(path):
    """Red when the code changed after the notebook was saved: then `make notebooks NB=...`."""
    raw = path.read_text("utf-8")
    sources = shown_sources(path)
    assert len(sources) == len(re.findall(r"^ *\"show_source\(", raw, re.M)), "a call that this test cannot see"
    for expression, shown, saved in sources:
        assert saved == [show_source(shown).data], f"{expression}: run `make notebooks NB=notebooks/{path.name}`"
