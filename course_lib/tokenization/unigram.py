"""The unigram model's own lattice: all ways to cut a text into pieces, the best ones, and samples.

A text's cut has the log probability that its pieces' scores sum to; the vocabulary is trained elsewhere
(`tokenization.train`). Source: Kudo 2018, "Subword Regularization", sections 3.2 and 3.3.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sentencepiece

from course_lib.checks import check_at_least, check_not_negative
from course_lib.tokenization.tokenizer import SPACE, Tokenizer, check_text

UNKNOWN_PENALTY = 10.0  # SentencePiece: a character without a piece costs so many nats more than the rarest piece


@dataclass(frozen=True)
class Edge:
    """A piece that could stand from character `start` to `end`, and its log probability in nats."""

    start: int
    end: int
    piece: str
    score: float


@dataclass(frozen=True)
class Cut:
    """One way to cut a text: its edges from left to right, and the sum of their scores."""

    edges: tuple[Edge, ...]
    score: float

    @property
    def pieces(self) -> list[str]:
        """The pieces alone."""
        return [edge.piece for edge in self.edges]


@dataclass(frozen=True)
class Lattice:
    """All pieces that could stand in a text: `ending[i]` are those that end after i of its characters."""

    text: str
    ending: tuple[tuple[Edge, ...], ...]  # of places 0 to length; the first is empty

    def best(self) -> Cut:
        """The most probable cut (Viterbi 1967): at each place, the best way to come there is kept."""
        return self.n_best(1)[0]

    def n_best(self, n: int) -> list[Cut]:
        """The n most probable cuts, the best first; fewer where there are no more. Raises ValueError for n below 1."""
        check_at_least("n", n, 1)
        ways: list[list[Cut]] = [[Cut((), 0.0)]]  # the n best cuts of the text before each place
        for edges in self.ending[1:]:
            found = [Cut((*way.edges, e), way.score + e.score) for e in edges for way in ways[e.start]]
            ways.append(sorted(found, key=lambda cut: -cut.score)[:n])
        return ways[-1]

    def forward(self, alpha: float = 1.0) -> list[float]:
        """Log of the sum over all cuts of the text before each place of exp(alpha · score): Kudo 2018, section 3.2.

        At alpha = 1 the last is the log probability of the text, however it is cut. Raises ValueError for alpha < 0.
        """
        check_not_negative("alpha", alpha)
        sums = [0.0]
        for edges in self.ending[1:]:
            sums.append(_log_sum([sums[e.start] + alpha * e.score for e in edges]))
        return sums

    def marginals(self, alpha: float = 1.0) -> dict[Edge, float]:
        """The probability that a cut, drawn as `sample` draws it, has each edge: sums forward times sums backward.

        Over many texts they are the expected counts from which the training estimates new scores (EM). Raises
        ValueError as `forward`.
        """
        sums, after = self.forward(alpha), [-math.inf] * len(self.text) + [0.0]
        found = {}
        for place in range(len(self.text), 0, -1):
            for e in self.ending[place]:
                found[e] = math.exp(sums[e.start] + alpha * e.score + after[place] - sums[-1])
                after[e.start] = _log_sum([after[e.start], alpha * e.score + after[place]])
        return found

    def sample(self, generator: random.Random, alpha: float = 1.0) -> Cut:
        """A cut with a probability in proportion to exp(alpha · score): sums forward, then a piece at a time backward.

        alpha 1 draws by the model, 0 draws all cuts alike, a large one the best. Raises ValueError as `forward`.
        """
        sums, edges = self.forward(alpha), []
        place = len(self.text)
        while place > 0:
            weights = [math.exp(sums[e.start] + alpha * e.score - sums[place]) for e in self.ending[place]]
            (edge,) = generator.choices(self.ending[place], weights)
            edges.append(edge)
            place = edge.start
        return Cut(tuple(reversed(edges)), sum(edge.score for edge in edges))

    def count(self) -> int:
        """How many cuts there are."""
        ways = [1]
        for edges in self.ending[1:]:
            ways.append(sum(ways[e.start] for e in edges))
        return ways[-1]


def _log_sum(logs: Sequence[float]) -> float:
    top = max(logs, default=-math.inf)
    if top == -math.inf:  # a place that no cut passes
        return top
    return top + math.log(sum(math.exp(x - top) for x in logs))


class Unigram:
    """The pieces of a trained unigram vocabulary, with their scores, in place of SentencePiece's own search.

    Raises ValueError for a vocabulary of another type.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._processor = p = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)
        ids = [i for i in range(p.get_piece_size()) if not (p.is_control(i) or p.is_byte(i) or p.is_unknown(i))]
        scores = {p.id_to_piece(i): p.get_score(i) for i in ids}
        learned = [score for score in scores.values() if score != 0.0]  # 0 is that of a symbol that the user defined
        if not learned or all(score == int(score) for score in learned):
            raise ValueError("tokenizer: its scores are ranks, not log probabilities; needed is model_type='unigram'")
        own = {piece: len(piece) * max(learned) - 0.1 for piece, score in scores.items() if score == 0.0}
        self.scores: Mapping[str, float] = scores | own
        self.unknown = min(learned) - UNKNOWN_PENALTY
        self.longest = max(map(len, scores))

    def normalised(self, text: str) -> str:
        """`text` as the vocabulary sees it: normalised, "▁" for each space. Raises ValueError as `Tokenizer.encode`."""
        check_text(text)
        return self._processor.normalize(text).replace(" ", SPACE)

    def lattice(self, text: str) -> Lattice:
        """The lattice of `text`. A character without a piece of its own has an edge at the price of an unknown one."""
        text = self.normalised(text)
        ending: list[list[Edge]] = [[] for _ in range(len(text) + 1)]
        for start in range(len(text)):
            for end in range(start + 1, min(len(text), start + self.longest) + 1):
                piece = text[start:end]
                if piece in self.scores:
                    ending[end].append(Edge(start, end, piece, self.scores[piece]))
                elif end == start + 1:
                    ending[end].append(Edge(start, end, piece, self.unknown))
        return Lattice(text, tuple(map(tuple, ending)))

    def spelled(self, cut: Cut) -> list[str]:
        """The pieces of `cut` as they stand in the vocabulary: an unknown character is spelled in bytes, <0xE2> …"""
        known = self.scores
        return [p for piece in cut.pieces for p in ([piece] if piece in known else map(_byte, piece.encode()))]


def _byte(value: int) -> str:
    return f"<0x{value:02X}>"
