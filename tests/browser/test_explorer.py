"""The attention explorer in a browser: what is drawn is the array, and what is chosen arrives in Python."""

import ast
import re
from pathlib import Path

import matplotlib as mpl
import nbformat
import numpy as np
from playwright.sync_api import Locator, Page, expect

from course_lib.tokenization import load
from course_lib.viz.attention_maps import AttentionMaps
from course_lib.viz.model_maps import maps_of
from run_notebooks import clean

from .drive import SESSION, errors, open_notebook, press, run_all, settle
from .lab import Lab, write_notebook

# Runs in the notebook and here, so that both have the same arrays.
ARRAYS = """
import numpy as np
from course_lib.viz.attention_maps import AttentionMaps, PatchImage
from course_lib.viz.explorer import AttentionExplorer, explore_model
from course_lib.viz.plots import use_house_style

def causal_maps(words, layers, heads):
    allowed = np.tril(np.ones((len(words),) * 2, bool))
    weights = np.random.default_rng(0).gamma(0.3, size=(layers, heads, *allowed.shape)) * allowed
    return AttentionMaps((weights / weights.sum(-1, keepdims=True)).astype(np.float32), words, allowed=allowed)
"""
WORDS = ["吾輩", "は", "猫", "である", "。", "the", "cat", "sat", "on", "the", "<mat>"]
MODEL = """
from course_lib.models.gpt2 import GPT2, GPT2Config
from course_lib.tokenization import load
tokenizer = load("japanese-8k")
model = GPT2(GPT2Config(tokenizer.vocab_size, d_model=32, n_heads=2, n_layers=3, seed=1))
for p in model.parameters():
    p.data *= 4  # far from equal weights
"""


def here(source: str) -> dict:
    """What the source defines, in this process."""
    names: dict = {}
    exec(source, names)
    return names


def start(page: Page, lab: Lab, name: str, *cells: str) -> tuple[Locator, Locator]:
    """Run a notebook of the cells; return its panel and its first explorer."""
    notebook = open_notebook(page, lab, write_notebook(lab.root / f"{name}.ipynb", cells))
    run_all(notebook)
    explorer = notebook.locator(".course-attention").first
    explorer.scroll_into_view_if_needed()
    return notebook, explorer


def python(page: Page, expression: str) -> object:
    """Value of an expression in the notebook's kernel, once what was chosen has arrived there."""
    page.wait_for_timeout(100)
    text = page.evaluate(
        f"""async code => {{
            let text = "";
            const asked = {SESSION}.session.kernel.requestExecute({{ code }});
            asked.onIOPub = ({{ content }}) => {{ text += content.text ?? ""; }};
            await asked.done;
            return text;
        }}""",
        f"print(repr({expression}))",
    )
    return ast.literal_eval(text)


CHOSEN = "(e.layer, e.head, e.query, list(e.heads))"


def lines(explorer: Locator) -> dict[tuple[int, int, int], tuple[float, float]]:
    """The lines that are drawn: (head, query, key) -> weight, opacity."""
    found = explorer.locator(".ae-lines path").evaluate_all(
        """all => all.map(line => [...["head", "q", "k", "weight"].map(name => line.dataset[name]),
            line.getAttribute("stroke-opacity")])"""
    )
    return {(int(h), int(q), int(k)): (float(weight), float(opacity)) for h, q, k, weight, opacity in found}


def assert_lines(explorer: Locator, maps: AttentionMaps, layer: int, heads: list[int], query: int) -> None:
    """The lines of a query are the array's row, in strength too; masked keys have none."""
    drawn = lines(explorer)
    row = {(h, query, k): w for h in heads for k, w in enumerate(maps.weights[layer, h, query]) if w > 1e-5}
    assert set(row) <= set(drawn)
    for key, (weight, opacity) in drawn.items():
        assert abs(weight - maps.weights[(layer, *key)]) < 1e-5
        assert opacity == weight
        assert maps.allowed is None or maps.allowed[layer][key[1:]]


def pixels(explorer: Locator, selector: str) -> np.ndarray:
    """Pixels (rows, columns, RGBA) of a canvas."""
    size, data = explorer.locator(selector).evaluate("""c => [[c.height, c.width, 4],
        Array.from(c.getContext("2d").getImageData(0, 0, c.width, c.height).data)]""")
    return np.array(data, np.uint8).reshape(size)


def colors(maps: AttentionMaps, layer: int, head: int) -> np.ndarray:
    """What the pixels have to be: viridis from 0 to 1, transparent where masked."""
    rgba = (mpl.colormaps["viridis"](np.rint(maps.weights[layer, head] * 255).astype(int)) * 255).round()
    return rgba if maps.allowed is None else rgba * maps.allowed[layer][..., None]


def assert_map(explorer: Locator, maps: AttentionMaps, layer: int, head: int) -> None:
    for selector in (".ae-cells", f"[data-layer='{layer}'][data-head='{head}']"):
        assert (
            np.abs(pixels(explorer, selector) - colors(maps, layer, head)).max() <= 8
        )  # a weight on the edge of a colour


def test_pointer_and_keyboard(page: Page, lab: Lab, shots: Path) -> None:
    maps = here(ARRAYS)["causal_maps"](WORDS, 3, 4)
    _, explorer = start(page, lab, "arrays", ARRAYS, f"e = AttentionExplorer(causal_maps({WORDS!r}, 3, 4)); e")
    query = explorer.locator(".ae-queries [data-query]")
    assert query.all_inner_texts() == WORDS
    assert_map(explorer, maps, 0, 0)
    assert not lines(explorer)

    query.nth(6).hover()
    assert_lines(explorer, maps, 0, [0], 6)
    page.screenshot(path=shots / "explorer-hover.png")
    strongest = WORDS[int(maps.weights[0, 0, 6].argmax())]
    expect(explorer.locator(".ae-readout")).to_contain_text(f"{WORDS[6]} looks at {strongest}")
    expect(explorer.locator(".ae-bars text").filter(has_text="masked")).to_have_count(len(WORDS) - 7)
    explorer.locator(".ae-keys [data-key='2']").hover()
    assert {key[2] for key in lines(explorer)} == {2}
    assert {key[1] for key in lines(explorer)} == set(np.flatnonzero(maps.weights[0, 0, :, 2] > 1e-5))

    query.nth(9).click()  # holds it, and pointing elsewhere changes nothing
    query.nth(3).hover()
    assert_lines(explorer, maps, 0, [0], 9)
    assert len(lines(explorer)) >= 2
    assert python(page, CHOSEN) == (0, 0, 9, [])

    explorer.locator("[data-layer='1'][data-head='2']").click()
    assert_map(explorer, maps, 1, 2)
    assert_lines(explorer, maps, 1, [2], 9)
    chips = explorer.locator("[data-chip]")
    chips.filter(has_text="0").click()
    chips.filter(has_text="3").click()
    assert_lines(explorer, maps, 1, [0, 3], 9)
    page.screenshot(path=shots / "explorer-heads.png")
    means = maps.weights[1, [0, 3], 9].mean(0)
    expect(explorer.locator(".ae-readout")).to_contain_text(
        f"Mean of heads 0, 3: the (held) looks at {WORDS[means.argmax()]}"
    )
    expect(explorer.locator(".ae-readout")).to_contain_text(f"{means.max():.2f}")
    assert python(page, CHOSEN) == (1, 2, 9, [0, 3])
    chips.filter(has_text="all").click()
    assert {key[0] for key in lines(explorer)} == {0, 1, 2, 3}
    chips.filter(has_text="all").click()
    assert python(page, CHOSEN) == (1, 2, 9, [])

    grid, queries = explorer.locator(".ae-grid"), explorer.locator(".ae-queries")
    press(grid, "ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight")  # stops at the edge
    assert_map(explorer, maps, 2, 3)
    press(grid, "ArrowUp", "ArrowLeft", "Enter")
    press(queries, "ArrowUp", "ArrowUp")
    assert_lines(explorer, maps, 1, [2], 7)
    assert python(page, CHOSEN) == (1, 2, 7, [2])
    page.keyboard.press("Escape")
    expect(explorer.locator(".ae-held")).to_have_count(0)
    press(queries, "End", "Enter")
    assert python(page, CHOSEN) == (1, 2, len(WORDS) - 1, [2])
    press(queries, " ", "Escape")
    assert python(page, CHOSEN) == (1, 2, None, [2])

    cells = explorer.locator(".ae-cells")
    side = cells.bounding_box()["width"] / len(WORDS)
    cells.hover(position={"x": 1.5 * side, "y": 8.5 * side})
    tip = explorer.locator(".ae-tip")
    assert abs(float(tip.get_attribute("data-weight")) - maps.weights[1, 2, 8, 1]) < 1e-5
    cells.hover(position={"x": 8.5 * side, "y": 1.5 * side})
    expect(tip).to_contain_text("masked")
    cells.click(position={"x": 1.5 * side, "y": 8.5 * side})
    assert python(page, CHOSEN) == (1, 2, 8, [2])


def test_python_and_the_theme(page: Page, lab: Lab, shots: Path) -> None:
    maps = here(ARRAYS)["causal_maps"](WORDS, 3, 4)
    notebook, explorer = start(
        page, lab, "python", ARRAYS, f"e = AttentionExplorer(causal_maps({WORDS!r}, 3, 4)); e",
        "e.layer, e.head, e.query, e.heads = 2, 1, 5, [1, 3]", "use_house_style(); e.figure()",
    )  # fmt: skip
    assert_map(explorer, maps, 2, 1)
    assert_lines(explorer, maps, 2, [1, 3], 5)
    assert notebook.locator(".jp-OutputArea-output img").count() == 1

    color = "element => getComputedStyle(element).color.match(/\\d+/g).slice(0, 3).map(Number)"
    assert max(explorer.evaluate(color)) < 100
    command = "window.jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab %s' })"
    try:
        page.evaluate(command % "Dark")
        page.wait_for_function("document.body.dataset.jpThemeLight === 'false'")
        settle(explorer)
        assert min(explorer.evaluate(color)) > 180
        page.screenshot(path=shots / "explorer-dark.png")
        explorer.screenshot(path=shots / "explorer-dark-alone.png")
    finally:
        page.evaluate(command % "Light")
    assert not errors(notebook)


def test_a_typed_text_is_computed_by_the_model(page: Page, lab: Lab, shots: Path) -> None:
    first = "吾輩は猫である。"
    notebook, explorer = start(page, lab, "model", ARRAYS, MODEL, f"e = explore_model(model, tokenizer, {first!r}); e")
    model, tokenizer = here(MODEL)["model"], load("japanese-8k")
    field = explorer.get_by_role("textbox")
    assert field.input_value() == first

    def expect_maps(text: str) -> None:
        maps = maps_of(model, tokenizer, text).crop(0, 0, 64)
        expect(explorer.locator(".ae-queries [data-query]")).to_have_count(len(maps.queries))
        settle(explorer)
        assert_map(explorer, maps, 0, 0)
        last = len(maps.queries) - 1
        explorer.locator(f".ae-queries [data-query='{last}']").hover()
        assert_lines(explorer, maps, 0, [0], last)

    expect_maps(first)
    field.fill("名前はまだ無い。どこで生れたか")
    expect_maps("名前はまだ無い。どこで生れたか")
    page.screenshot(path=shots / "explorer-typed.png")

    field.fill("")
    error = explorer.get_by_role("alert")
    expect(error).to_contain_text("The text is empty")
    expect_maps("名前はまだ無い。どこで生れたか")
    page.screenshot(path=shots / "explorer-refused.png")
    for text in ("🎉👩‍👩‍👧", "שלום عالم", "<b>$x$</b>\nline"):
        field.fill(text)
        expect(error).to_be_empty()
        expect_maps(text)
    long = "名前はまだ無い。" * 1250
    field.fill(long)
    expect_maps(long)
    expect(explorer.locator(".ae-note")).to_contain_text("Only the first 256 of")
    expect(explorer.locator(".ae-pagers")).to_contain_text("queries 1–64 of 256")
    page.screenshot(path=shots / "explorer-long.png")

    field.fill("")
    field.press_sequentially("猫である", delay=20)  # sent once, not at each letter
    expect_maps("猫である")
    assert python(page, "e.text") == "猫である"
    press(field, "ArrowLeft", "ArrowLeft")  # neither JupyterLab nor the explorer takes them
    assert field.evaluate("field => field.selectionStart") == 2
    assert not errors(notebook)


def test_a_large_one_is_fast_and_not_saved(page: Page, lab: Lab, shots: Path) -> None:
    words = [f"▁tok{i}" for i in range(128)]
    notebook, explorer = start(page, lab, "large", ARRAYS, f"e = AttentionExplorer(causal_maps({words!r}, 8, 8)); e")
    maps = here(ARRAYS)["causal_maps"](words, 8, 8)
    grid, times = explorer.locator(".ae-grid"), [float(explorer.get_attribute("data-redraw-ms"))]
    assert explorer.locator(".ae-grid canvas").count() == 64
    for number, key in enumerate("][][", start=2):
        press(grid, key)
        expect(explorer).to_have_attribute("data-count", re.compile(f"[{2 * number - 2}{2 * number - 1}]"))
        settle(explorer)
        times.append(float(explorer.get_attribute("data-redraw-ms")))
    to_frame = explorer.evaluate("""async explorer => {
        const frame = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
        const times = [];
        for (const thumb of [...explorer.querySelectorAll("canvas[data-layer]")].slice(0, 8)) {
            await frame();
            const start = performance.now();
            thumb.click();
            await frame();
            times.push(performance.now() - start);
        }
        return times;
    }""")
    print(f"64 x 8 x 8: new maps {times} ms, another head to the next frame {[round(t) for t in to_frame]} ms")
    assert min(times) < 150  # the fastest tells what the code needs; others also wait for what else the machine does
    assert min(to_frame) < 150

    press(grid, "]")
    expect(explorer.locator(".ae-pagers")).to_contain_text("queries 33–96 of 128")
    settle(explorer)
    assert_map(explorer, maps.crop(32, 32, 64), 0, 7)
    explorer.get_by_label("later queries").click()
    expect(explorer.locator(".ae-pagers")).to_contain_text("queries 65–128 of 128")
    assert python(page, "(e.query_start, e.key_start)") == (64, 32)
    explorer.locator(".ae-queries [data-query='3']").click()
    assert python(page, "e.query") == 67
    expect(explorer.locator(".ae-readout")).to_contain_text("The keys in the window hold")
    page.screenshot(path=shots / "explorer-large.png")
    explorer.get_by_text("show small weights").click()
    opacity = {key: value[1] ** 2 - value[0] for key, value in lines(explorer).items()}
    assert opacity
    assert max(map(abs, opacity.values())) < 1e-5

    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    saved = lab.root / "large.ipynb"
    page.wait_for_function("!window.jupyterapp.shell.currentWidget.context.model.dirty")
    print(f"saved: {saved.stat().st_size:,} bytes")
    assert saved.stat().st_size < 100_000
    document = nbformat.read(saved, 4)
    clean(document)
    assert "widget" not in nbformat.writes(document)
    assert not errors(notebook)


PICTURE = """
T = 17
weights = np.random.default_rng(3).dirichlet(np.ones(T), (2, 2, T)).astype(np.float32)
pixels = np.random.default_rng(4).integers(0, 255, (32, 32, 3)).astype(np.uint8)
maps = AttentionMaps(weights, ["[CLS]", *(f"patch {i}" for i in range(16))], image=PatchImage(pixels, 4, 4))
"""
COLORS = """
kinds = np.random.default_rng(5).integers(0, 8, (2, 17))
colored = AttentionMaps(weights, maps.queries, colors=kinds, color_names=[f"expert {i}" for i in range(8)])
"""


def test_a_picture_and_coloured_tokens(page: Page, lab: Lab, shots: Path) -> None:
    source = ARRAYS + PICTURE + COLORS
    notebook, explorer = start(
        page, lab, "picture", source, "e = AttentionExplorer(maps); e", "c = AttentionExplorer(colored); c"
    )
    maps, colored = (here(source)[name] for name in ("maps", "colored"))

    def patches() -> list[float]:
        return explorer.locator(".ae-keys [data-key]").evaluate_all("all => all.map(patch => +patch.dataset.weight)")

    np.testing.assert_allclose(patches(), maps.weights[0, 0].mean(0), atol=1e-5)
    explorer.locator(".ae-queries .ae-patch").nth(5).click()
    np.testing.assert_allclose(patches(), maps.weights[0, 0, 6], atol=1e-5)
    press(explorer.locator(".ae-queries"), "ArrowDown", "ArrowRight")
    np.testing.assert_allclose(patches(), maps.weights[0, 0, 11], atol=1e-5)
    assert python(page, CHOSEN) == (0, 0, 11, [])
    page.screenshot(path=shots / "explorer-picture.png")

    second = notebook.locator(".course-attention").nth(1)
    second.locator("[data-layer='1'][data-head='0']").click()
    kinds = second.locator(".ae-queries [data-query]").evaluate_all("all => all.map(token => +token.dataset.category)")
    assert kinds == colored.colors[1].tolist()
    second.screenshot(path=shots / "explorer-colors.png")
    assert not errors(notebook)
