"""The attention explorer without a browser: data format, figure, selection, and the texts that it is asked for."""

import itertools
import json
import re

import ipywidgets
import numpy as np
import pytest
import torch
import traitlets
from ipywidgets.embed import dependency_state

from course_lib.attention.masks import causal, window
from course_lib.features import record
from course_lib.models.gpt2 import GPT2, GPT2Config
from course_lib.tokenization import load
from course_lib.viz import plots
from course_lib.viz.animate import png
from course_lib.viz.attention_maps import AttentionMaps, PatchImage, Selection
from course_lib.viz.attention_plot import plot_maps
from course_lib.viz.explorer import FULL, MASKED, AttentionExplorer, explore, explore_model
from course_lib.viz.model_maps import maps_of


@pytest.fixture(autouse=True)
def _style():
    plots.use_house_style()


def random_maps(layers=2, heads=3, queries=5, keys=7, seed=0, **fields):
    weights = np.random.default_rng(seed).dirichlet(np.ones(keys), (layers, heads, queries)).astype(np.float32)
    return AttentionMaps(weights, [f"q{i}" for i in range(queries)], [f"k{i}" for i in range(keys)], **fields)


def causal_maps(tokens=5, layers=2, heads=3):
    allowed = np.tril(np.ones((tokens, tokens), bool))
    weights = np.random.default_rng(1).random((layers, heads, tokens, tokens)) * allowed
    return AttentionMaps(weights / weights.sum(-1, keepdims=True), [f"t{i}" for i in range(tokens)], allowed=allowed)


def sent(explorer):
    """The weights that the browser gets, decoded; NaN where masked."""
    numbers = np.frombuffer(explorer._shown["weights"], "<u2").reshape(explorer._shown["shape"])
    return np.where(numbers == MASKED, np.nan, numbers / FULL)


# --- the format -------------------------------------------------------------------------------------------------------


def test_arrays_and_tensors_of_all_widths_are_taken():
    weights = np.full((1, 1, 2, 2), 0.5)
    for given in (weights, weights.astype(np.float16), *(torch.tensor(weights, dtype=d) for d in (torch.bfloat16,))):
        maps = AttentionMaps(given, ["a", "b"])
        assert maps.weights.dtype == np.float32
        assert maps.queries == maps.keys == ("a", "b")
        assert maps.layer_names == ("0",)
    attended = torch.ones(1, 1, 2, 2, requires_grad=True).softmax(-1)
    assert AttentionMaps(attended, ["a", "b"], allowed=torch.ones(2, 2, dtype=torch.bool)).allowed.shape == (1, 2, 2)
    assert AttentionMaps(np.zeros((1, 1, 2, 2)), ["a", "b"]).weights.max() == 0  # a padded query attends to nothing


HALF = np.full((1, 1, 2, 2), 0.5, np.float32)
NOT_FINITE, NEGATIVE = HALF.copy(), HALF.copy()
NOT_FINITE[0, 0, 1, 0], NEGATIVE[0, 0, 0, 1] = np.nan, -0.1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weights": HALF.tolist()}, "weights is a list; needed is an array of floats"),
        ({"weights": HALF[0]}, r"weights is float32 \(1, 2, 2\)"),
        ({"weights": HALF.astype(int)}, "weights is int64"),
        ({"weights": HALF[:, :0]}, r"\(1, 0, 2, 2\); .* not empty"),
        ({"weights": NOT_FINITE}, "weights has nan at layer 0, head 0, query 1, key 0; allowed are finite"),
        ({"weights": NEGATIVE}, "weights has -0.1.* at layer 0, head 0, query 0, key 1; allowed are 0 to 1"),
        ({"weights": HALF * 3}, "sums to 3 over the keys at layer 0, head 0, query 0; .* before the softmax"),
        ({"queries": ["a"]}, "queries has 1 entries; weights needs 2"),
        ({"queries": "ab"}, "queries='ab'; needed are 2 strings"),
        ({"queries": ["a", 1]}, "queries=.*strings"),
        ({"keys": ["a"]}, "keys has 1 entries; weights needs 2"),
        ({"layer_names": ["x", "y"]}, "layer_names has 2 entries; weights needs 1"),
        (
            {"allowed": np.ones((2, 3), bool)},
            r"allowed is bool \(2, 3\); needed is a bool array \(2, 2\) or \(1, 2, 2\)",
        ),
        ({"allowed": np.ones((2, 2))}, "allowed is float64"),
        ({"allowed": [[True, False]]}, "allowed is a list"),
        ({"allowed": np.tril(np.ones((2, 2), bool))}, "allowed is False for query 0 and key 1, but .* is 0.5"),
        ({"colors": np.array([0, 2]), "color_names": ["x", "y"]}, "colors has 0 to 2 for 2 color_names"),
        ({"colors": np.array([0]), "color_names": ["x"]}, r"colors is int64 \(1,\); needed is a integer array \(2,\)"),
        ({"colors": np.array([0, 1]), "color_names": [str(i) for i in range(13)]}, "at most 12 names"),
        ({"image": PatchImage(np.zeros((4, 4, 3), np.uint8), 2, 2)}, "2 x 2 patches for 2 queries and 2 keys"),
    ],
)
def test_bad_maps_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        AttentionMaps(**({"weights": HALF, "queries": ["a", "b"]} | fields))


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), [[1]], np.zeros((0, 4, 3), np.uint8)]
)
def test_bad_pictures_are_refused(pixels):
    with pytest.raises(ValueError, match="pixels is"):
        PatchImage(pixels, 2, 2)
    with pytest.raises(ValueError, match="rows=0"):
        PatchImage(np.zeros((4, 4, 3), np.uint8), 0, 2)


def test_a_crop_has_the_same_numbers():
    maps = causal_maps(9)
    part = maps.crop(3, 1, 4)
    assert (part.queries, part.keys) == (maps.queries[3:7], maps.keys[1:5])
    np.testing.assert_array_equal(part.weights, maps.weights[:, :, 3:7, 1:5])
    np.testing.assert_array_equal(part.allowed, maps.allowed[:, 3:7, 1:5])
    assert maps.crop(0, 0, 9) is maps


# --- a model ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    return load("mixture-4k")


@pytest.fixture(scope="module")
def model(tokenizer):
    return GPT2(GPT2Config(tokenizer.vocab_size, max_positions=48, d_model=16, n_heads=2, n_layers=3, dropout=0.3))


def test_maps_of_a_model_are_its_softmax_of_scores(model, tokenizer):
    model.train()
    maps = maps_of(model, tokenizer, "To be, or\nnot")
    ids = tokenizer.encode("To be, or\nnot")
    assert maps.queries == tuple(map(tokenizer.piece, ids))
    assert maps.weights.shape == (3, 2, len(ids), len(ids))
    assert model.training  # as it was; meanwhile there was no dropout
    model.eval()
    triangle = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
    np.testing.assert_array_equal(maps.allowed, triangle.expand(3, -1, -1))  # the model's own pattern
    with torch.no_grad(), record(model, "blocks.*.attention", inputs=True) as seen:
        model(torch.tensor([ids]))
        for i, (name, x) in enumerate(seen.items()):
            module = model.get_submodule(name)
            q, k = (p(x)[0].view(len(ids), 2, 8).transpose(0, 1) for p in (module.q_proj, module.k_proj))
            scores = (q @ k.mT / 8**0.5).masked_fill(~triangle, -torch.inf)
            np.testing.assert_allclose(maps.weights[i], scores.softmax(-1), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["🎉👩‍👩‍👧", "שלום عالم", " ", "\n\n", "吾輩は猫である", "a\tb", "$x_1$ <b>"])
def test_any_text_can_be_explored_and_drawn(model, tokenizer, text):
    explorer = explore_model(model, tokenizer, text)
    assert not explorer.error
    assert len(explorer._shown["queries"]) == len(tokenizer.encode(text))
    assert not {"\n", "\t", ""} & set(explorer._shown["queries"])
    png(explorer.figure())


def test_a_long_text_is_cut_with_a_note(model, tokenizer):
    with pytest.raises(ValueError, match="max_tokens=0"):
        maps_of(model, tokenizer, "word", max_tokens=0)
    longest = maps_of(model, tokenizer, "word " * 2000)
    assert len(longest.queries) == model.config.max_positions
    maps = maps_of(model, tokenizer, "word " * 2000, max_tokens=40)
    assert len(maps.queries) == 40
    assert "first 40 of 2,00" in maps.note
    with pytest.raises(ValueError, match="The text is empty"):
        maps_of(model, tokenizer, "")
    with pytest.raises(ValueError, match="The text is empty"):
        maps_of(model, tokenizer, "", start=True)


def test_special_tokens_and_one_pattern_for_each_layer(model, tokenizer):
    maps = maps_of(model, tokenizer, "To be", start=True, end=True, mask=[causal, causal, causal])
    assert (maps.queries[0], maps.queries[-1]) == ("<s>", "</s>")
    with pytest.raises(ValueError, match="allowed is False for query"):  # not the pattern of this model
        maps_of(model, tokenizer, "To be or not to be", mask=[causal, causal, causal & window(1)])
    with pytest.raises(ValueError, match="allowed is bool"):
        maps_of(model, tokenizer, "To be", mask=[causal, causal])


# --- the figure -------------------------------------------------------------------------------------------------------


def test_the_figure_shows_the_selected_map_and_all_small_ones():
    maps = causal_maps()
    figure = plot_maps(maps, Selection(1, 2, query=3))
    assert figure.get_size_inches()[0] <= plots.MAX_WIDTH
    shown = [image.get_array() for ax in figure.axes for image in ax.images]
    np.testing.assert_array_equal(shown[0].data, maps.weights[1, 2])
    np.testing.assert_array_equal(shown[0].mask, ~maps.allowed[1])
    for small, (layer, head) in zip(shown[1:], itertools.product(range(2), range(3)), strict=True):
        np.testing.assert_array_equal(small.data, maps.weights[layer, head])
    main = figure.axes[0]
    assert [t.get_text() for t in main.get_xticklabels()] == list(maps.keys)
    assert [t.get_text() for t in main.get_yticklabels()] == list(maps.queries)
    assert main.images[0].get_clim() == (0, 1)
    assert main.get_title(loc="left") == maps.text(Selection(1, 2, query=3))
    hatched = sum(patch.get_width() for patch in main.patches if patch.get_hatch())
    assert hatched == (~maps.allowed[1]).sum()
    assert "layer 1, head 2: strongest is" in main.get_title(loc="left")
    with pytest.raises(ValueError, match="layer=2; allowed is 0 to 1"):
        plot_maps(maps, Selection(layer=2))


def test_labels_are_text_not_formulas():
    maps = AttentionMaps(HALF, [r"$\frac{$", "$$"], layer_names=["$_$"])
    for query in (None, 0):
        png(plot_maps(maps, Selection(query=query)))
    maps = AttentionMaps(HALF, ["$$", "b"], image=PatchImage(np.zeros((4, 4, 3), np.uint8), 1, 1))
    png(plot_maps(maps))


def test_the_figure_of_colours_and_of_a_picture():
    maps = random_maps(queries=5, keys=5, colors=np.array([0, 1, -1, 7, 0]), color_names=[f"e{i}" for i in range(8)])
    labels = plot_maps(maps).axes[0].get_yticklabels()
    assert [labels[i].get_color() for i in (0, 1, 3)] == [plots.OKABE_ITO[i] for i in (0, 1, 1)]
    assert labels[3].get_style() == "italic"  # the second six
    picture = PatchImage(np.arange(48, dtype=np.uint8).reshape(4, 4, 3), 2, 2)
    maps = random_maps(queries=5, keys=5, image=picture)
    figure = plot_maps(maps, Selection(query=2))
    np.testing.assert_allclose(figure.axes[0].images[1].get_array().ravel(), maps.weights[0, 0, 2, 1:])
    assert "query q2, k0" in figure.axes[0].get_xlabel()
    png(figure)


# --- the widget -------------------------------------------------------------------------------------------------------


def test_what_is_sent_is_the_array():
    maps = causal_maps()
    explorer = AttentionExplorer(maps)
    np.testing.assert_allclose(sent(explorer), np.where(maps.allowed[:, None], maps.weights, np.nan), atol=1e-5)
    assert (sent(explorer)[maps.weights == 1] == 1).all()
    assert isinstance(explorer, ipywidgets.DOMWidget)  # which 7.7 and 8 both display
    with pytest.raises(ValueError, match="maps is a ndarray"):
        AttentionExplorer(maps.weights)
    with pytest.raises(ValueError, match="window=0"):
        AttentionExplorer(maps, window=0)


def test_selection_from_python():
    explorer = AttentionExplorer(random_maps())
    assert explorer.selection == Selection(0, 0, None, ())
    explorer.layer, explorer.head, explorer.query, explorer.heads = 1, 2, 4, [0, 2]
    assert explorer.selection == Selection(1, 2, 4, (0, 2))
    explorer.selection = Selection(0, 1, None, (1,))
    assert (explorer.layer, explorer.head, explorer.query, explorer.heads) == (0, 1, None, [1])
    for name, value in (("layer", 2), ("head", -1), ("query", 5), ("heads", [0, 3]), ("query_start", 1)):
        with pytest.raises(ValueError, match=rf"{name}.*={str(value).strip('[]').split(', ')[-1]}; allowed is 0 to"):
            setattr(explorer, name, value)
    with pytest.raises(ValueError, match="query=5"):
        explorer.selection = Selection(query=5)
    with pytest.raises(traitlets.TraitError):
        explorer.layer = "first"
    assert explorer.selection == Selection(0, 1, None, (1,))


def test_a_long_input_is_seen_through_a_window():
    maps = causal_maps(20)
    explorer = AttentionExplorer(maps, window=8)
    assert explorer._shown["shape"] == [2, 3, 8, 8]
    assert explorer._shown["totals"] == [20, 20]
    explorer.query_start, explorer.key_start, explorer.query = 12, 4, 15
    assert explorer._shown["starts"] == [12, 4]
    assert explorer._shown["queries"] == list(maps.queries[12:])
    expected = np.where(maps.allowed[:, None], maps.weights, np.nan)[:, :, 12:20, 4:12]
    np.testing.assert_allclose(sent(explorer), expected, atol=1e-5)
    with pytest.raises(ValueError, match="key_start=13; allowed is 0 to 12"):
        explorer.key_start = 13
    figure = explorer.figure()
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array().data, maps.weights[0, 0, 12:20, 4:12])
    assert "queries 13 to 20 of 20, keys 5 to 12 of 20" in figure.get_supxlabel()
    explorer.query = 0  # outside
    png(explorer.figure())


def numbered(text):
    """Maps that say which text they belong to."""
    if not text:
        raise ValueError("Type at least one character.")
    if text == "bug":
        raise KeyError("inside")
    if text == "wrong":
        return None
    return random_maps(layers=2 if "small" in text else 4, queries=len(text), keys=len(text), seed=len(text))


def test_a_new_text_is_computed_and_an_error_is_a_sentence():
    explorer = explore(numbered, "first text")
    explorer.selection = Selection(3, 1, 9, (2,))
    explorer.text = "second"
    np.testing.assert_allclose(sent(explorer), numbered("second").weights, atol=1e-5)
    assert explorer.selection == Selection(3, 1, None, (2,))  # there is no query 9 any more
    explorer.text = "small one"
    assert explorer.layer == 1
    before = explorer.maps
    for text, said in (("", "Type at least one character."), ("bug", "KeyError: 'inside'"), ("wrong", "NoneType")):
        explorer.text = text
        assert said in explorer.error
        assert explorer._answer["text"] == text
        assert explorer.maps is before
        assert said in explorer.figure().get_supxlabel()
    explorer.text = "small one again"
    assert explorer.error == ""
    with pytest.raises(ValueError, match="Type at least"):
        explore(numbered, "")


def test_a_new_text_begins_at_its_first_token():
    explorer = explore(numbered, "x" * 30, window=8)
    explorer.query_start = 20
    explorer.text = "y" * 10
    assert (explorer.query_start, explorer._shown["starts"]) == (0, [0, 0])


def test_without_a_model_there_is_no_text():
    explorer = AttentionExplorer(random_maps())
    explorer.text = "anything"
    assert explorer._answer == {}
    assert explorer.error == ""


def test_the_state_of_a_large_explorer_is_under_a_megabyte():
    """Were a notebook saved with the widget's state (the course's are not), in base64 as Jupyter does it."""
    explorer = AttentionExplorer(random_maps(8, 8, 64, 64))
    document = dependency_state([explorer], drop_defaults=False)
    assert len(json.dumps(document)) < 1e6, len(json.dumps(document))


def test_the_browser_is_asked_to_fetch_nothing():
    script, style = AttentionExplorer._esm, AttentionExplorer._css
    assert len(script) + len(style) < 60_000
    assert not [line for line in script.splitlines() if line.startswith("import ")]
    addresses = set(re.findall(r"""https?://[^"'\s)]+""", script + style))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not a place
