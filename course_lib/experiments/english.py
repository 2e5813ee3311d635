"""What the studies of language models share: a decoder on shipped English, trained and judged on held-out documents."""

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from course_lib import corpora, heads, tokenization
from course_lib.evaluation import next_token_losses
from course_lib.experiments.study import Outcome, ending, mean_losses, outcome_of, shared_fields
from course_lib.models.bigram import KneserNeyBigram, count_bigrams
from course_lib.models.gpt2 import GPT2, GPT2Config
from course_lib.models.pythia import Pythia, PythiaConfig
from course_lib.training import History, by_recipe, next_token_loss, windows
from course_lib.training.recipes import SOURCES, Recipe, with_repeats


@dataclass(frozen=True)
class Config(Recipe):
    """One arm: a decoder, its text, and the recipe. T tokens a window are its `max_positions`."""

    data: tuple[str, ...] = tuple(SOURCES)
    tokenizer: str = "prose-4k"
    repeats: float = 0.0  # share of the windows that repeat a span of theirs
    max_positions: int = 128
    d_model: int = 256
    n_heads: int = 8
    n_kv_heads: int | None = None
    n_layers: int = 4
    d_ff: int | None = None
    dropout: float = 0.0
    placement: str = "pre"
    position: str = "learned"
    tied: bool = True  # GPT2; False: Pythia, whose unembedding is a matrix of its own


def model_of(config: Config, seed: int) -> GPT2 | Pythia:
    """The network of an arm, with the weights of `seed`."""
    sizes: dict[str, Any] = {"vocab_size": tokenization.load(config.tokenizer).vocab_size, "seed": seed}
    if not config.tied:
        return Pythia(PythiaConfig(**shared_fields(config, PythiaConfig), **sizes, rotary_pct=1.0))
    if config.position != "learned":
        raise ValueError(f"position={config.position!r} with tied=True; a GPT-2 has learned positions")
    return GPT2(GPT2Config(**shared_fields(config, GPT2Config), **sizes))


def fit(model: nn.Module, config: Config, seed: int, stop_at: int | None = None, **options: Any) -> History:
    """Train on the windows of an arm, as `by_recipe` says."""
    data = windows(tuple(config.data), "train", config.max_positions, config.tokenizer, start=True)
    batches = with_repeats(corpora.shuffled_batches((data,), config.batch_size, seed), config.repeats, seed)
    return by_recipe(model, batches, next_token_loss, config, seed, stop_at, **options)


def table_of_pairs(config: Config) -> KneserNeyBigram:
    """The bigram table counted on an arm's training text: what its loss has to beat."""
    data = windows(tuple(config.data), "train", config.max_positions, config.tokenizer, start=True)
    counts = count_bigrams(data.flatten(), tokenization.load(config.tokenizer).vocab_size)
    counts[:, tokenization.START] = 0  # <s> follows nothing: it begins windows
    return KneserNeyBigram(counts)


def held_out(name: str, length: int, tokenizer: str, every: int = 1, split: str = "validation") -> Tensor:
    """Every `every`-th window of one source that is not for training, (N, length + 1), each after <s>."""
    return windows((name,), split, length, tokenizer, start=True)[::every]


@torch.no_grad()
def losses_by_source(model: nn.Module, config: Config, every: int = 1) -> dict[str, Tensor]:
    """Loss of each held-out token of each source, in nats."""
    device = next(iter(model.state_dict().values())).device  # a table of counts has buffers alone
    return {
        name: next_token_losses(model, held_out(name, config.max_positions, config.tokenizer, every).to(device)).cpu()
        for name in SOURCES
    }


def bits_per_character(losses: dict[str, Tensor], tokenizer: str) -> float:
    """What the mean loss of `losses_by_source` is in bits a character, which does not depend on the vocabulary."""
    tokens, characters = 0, 0
    encode = tokenization.load(tokenizer).encode
    for name in losses:
        texts = getattr(corpora, name)("validation")[SOURCES[name]]
        tokens += sum(len(encode(text)) + 1 for text in texts)  # the token that ends a document is foretold too
        characters += sum(map(len, texts))
    mean = torch.cat([part.flatten() for part in losses.values()]).mean().item()
    return mean / math.log(2) * tokens / characters


def head_scores(model: nn.Module, config: Config, n_windows: int = 64) -> dict[str, float]:
    """The highest score of any head: on held-out windows of all sources, and on random tokens that come twice."""
    text = torch.cat([held_out(name, config.max_positions, config.tokenizer) for name in SOURCES])
    maps = heads.attention_maps(model, text[:: len(text) // n_windows, :-1])
    length = min(40, (config.max_positions - 1) // 2)
    tokens = range(len(tokenization.SPECIAL) + 256, tokenization.load(config.tokenizer).vocab_size)  # no bytes
    repeated = heads.attention_maps(model, heads.repeated(length, 32, tokens, 0, tokenization.START))
    return {
        "previous_token": heads.previous_token(maps).max().item(),
        "first_token": heads.first_token(maps).max().item(),
        "induction": heads.induction(repeated, length).max().item(),
    }


def train_arm(
    config: dict[str, Any], seed: int, stop_at: int | None, every: int = 1, **options: Any
) -> tuple[nn.Module, Outcome]:
    """Train one arm: the model, and the outcome with its losses, each source's too, and its heads' scores.

    `every` judges it on that part of the held-out windows. A run that is stopped early is not judged.
    """
    arm = Config(**config)
    model = model_of(arm, seed)
    begin = time.perf_counter()
    history = fit(model, arm, seed, stop_at, progress=False, **options)
    metrics = {"train_seconds": time.perf_counter() - begin} | ending(history)
    if stop_at is None and not history.diverged:
        losses = losses_by_source(model, arm, every)
        metrics |= mean_losses(losses, "loss")
        metrics |= {"bits_per_character": bits_per_character(losses, arm.tokenizer)} | head_scores(model, arm)
    return model, outcome_of(model, history, metrics)


def run(config: dict[str, Any], seed: int, stop_at: int | None) -> Outcome:
    """`train_arm`, without the model."""
    return train_arm(config, seed, stop_at)[1]


def arm(**changes: Any) -> dict[str, Any]:
    """An arm's whole config as JSON values."""
    values = asdict(Config(**changes))
    return values | {"data": list(values["data"])}
