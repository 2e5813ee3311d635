"""Training a BPE on a megabyte: kept counts against counting again, and against two libraries in C++ and Rust."""

import io
from collections.abc import Mapping, Sequence
from functools import partial

import sentencepiece
import torch
from torch import Tensor

from benchmarks.case import Case, Race, Run, Setting
from course_lib import corpora
from course_lib.tokenization.bpe import count_words, train_plain
from course_lib.tokenization.bpe_fast import train_bpe

ALIKE = 0.02  # tokenizers breaks ties by the numbers of pieces: its pieces are other ones, as long on average


def first_sentences(language: str, most: int) -> list[str]:
    """The first training sentences, up to `most` bytes of them."""
    texts, size = [], 0
    for text in corpora.sentence_pairs("train")[language]:
        size += len(text.encode())
        if size > most:
            break
        texts.append(text)
    return texts


def as_tensor(merges: Sequence[str]) -> Mapping[str, Tensor]:
    """The pieces in the order learned, as the code points of all of them."""
    return {"merges": torch.tensor([ord(character) for piece in merges for character in f"{piece}\0"])}


def mean_length(merges: Sequence[str]) -> Mapping[str, Tensor]:
    """Characters of a piece, on average."""
    return {"length": torch.tensor([len("".join(merges)) / len(merges)])}


def by_sentencepiece(texts: Sequence[str], n_merges: int, prefix: bool) -> list[str]:
    """SentencePiece's merges, on one thread, told to leave the text as it is."""
    alphabet = {character for word in count_words(texts, prefix) for character in word}
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=file, model_type="bpe", vocab_size=3 + n_merges + len(alphabet),
        split_by_unicode_script=False, split_by_number=False, normalization_rule_name="identity", num_threads=1,
        remove_extra_whitespaces=False, character_coverage=1.0, max_sentencepiece_length=512, minloglevel=2,
        add_dummy_prefix=prefix,
    )  # fmt: skip
    model = sentencepiece.SentencePieceProcessor(model_proto=file.getvalue())
    return [model.id_to_piece(3 + i) for i in range(n_merges)]


def by_tokenizers(texts: Sequence[str], n_merges: int, prefix: bool) -> list[str]:
    """The merges of Hugging Face's `tokenizers`, on its own number of threads."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    alphabet = {character for word in count_words(texts, prefix) for character in word}
    tokenizer = Tokenizer(models.BPE())
    scheme = "always" if prefix else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    trainer = trainers.BpeTrainer(vocab_size=n_merges + len(alphabet), show_progress=False, special_tokens=[])
    tokenizer.train_from_iterator(texts, trainer)
    numbered = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return [piece for piece, _ in numbered[len(alphabet) :]]


def run_of(train: str, texts: Sequence[str], n_merges: int, prefix: bool, shape: str) -> Mapping[str, Tensor]:
    """Train by the name of a side, and return what is compared."""
    ways = {"train_bpe": train_bpe, "train_plain": train_plain}
    libraries = {"sentencepiece": by_sentencepiece, "tokenizers": by_tokenizers}
    merges = ways[train](texts, n_merges, prefix).merges if train in ways else libraries[train](texts, n_merges, prefix)
    return as_tensor(merges) if shape == "merges" else mean_length(merges)


def race(setting: Setting, device: torch.device) -> Race:
    """`setting`: rival ("train_plain", "sentencepiece", "tokenizers"), language ("en", "ja"), bytes, merges."""
    shape = "length" if setting["rival"] == "tokenizers" else "merges"
    texts = first_sentences(setting["language"], setting["bytes"])
    rest = (texts, setting["merges"], setting["language"] == "en", shape)
    ours: dict[str, Run] = {"train_bpe": partial(run_of, "train_bpe", *rest)}
    return Race(
        ours=ours, rivals={setting["rival"]: partial(run_of, setting["rival"], *rest)}, dtype=torch.float32,
        tolerance=ALIKE if shape == "length" else 0.0, model_flops=None,
    )  # fmt: skip


CASE = Case(
    name="bpe",
    question="How long does a BPE train on a megabyte of text: ours, counting again each time, and two libraries?",
    settings=[
        {"rival": "train_plain", "language": "en", "bytes": 1_000_000, "merges": 200},
        *(
            {"rival": rival, "language": language, "bytes": 1_000_000, "merges": 4000}
            for rival in ("sentencepiece", "tokenizers")
            for language in ("en", "ja")
        ),
    ],
    race=race,
)
