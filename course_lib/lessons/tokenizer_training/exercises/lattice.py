"""Checks of the exercises on the unigram model: the best cut, and the chances of a sample."""

import math
from collections.abc import Callable, Mapping, Sequence

from course_lib.exercises import Wrong, checker
from course_lib.exercises.mistakes import Mistakes
from course_lib.lessons.tokenizer_training.exercises.answers import call_for_list, judge
from course_lib.lessons.tokenizer_training.exercises.merges import longest_first
from course_lib.tokenization import Tokenizer
from course_lib.tokenization.unigram import Edge, Lattice, Unigram


def _search(text: str, scores: Mapping[str, float], better: Callable[[float, int], float]) -> list[str]:
    """Viterbi by `better(sum of scores, pieces)`: the largest wins."""
    best: list[tuple[float, list[str]]] = [(0.0, [])]
    for end in range(1, len(text) + 1):
        ways = [
            (best[s][0] + scores[text[s:end]], [*best[s][1], text[s:end]])
            for s in range(end) if text[s:end] in scores
        ]  # fmt: skip
        best.append(max(ways, key=lambda way: better(way[0], len(way[1]))))
    return best[-1][1]


def _cheapest_first(text: str, scores: Mapping[str, float]) -> list[str]:
    pieces, at = [], 0
    while at < len(text):
        fitting = [text[at:end] for end in range(at + 1, len(text) + 1) if text[at:end] in scores]
        pieces.append(max(fitting, key=scores.__getitem__))
        at += len(pieces[-1])
    return pieces


VITERBI: Mistakes = {
    "You take the longest piece first, from left to right. A long piece now may cost more later.":
        lambda text, scores: longest_first(text, list(scores)),
    "You want the fewest pieces. What counts is the sum of their scores.":
        lambda text, scores: _search(text, scores, lambda score, n: -n),
    "That is the worst cut. Scores are log probabilities, all negative: the largest sum is the best.":
        lambda text, scores: _search(text, scores, lambda score, n: -score),
    "You take at each place the piece with the highest score. A cheap piece now may cost more later.": _cheapest_first,
    "You take the longest piece first, from right to left. A long piece now may cost more later.":
        lambda text, scores: [p[::-1] for p in longest_first(text[::-1], [q[::-1] for q in scores])][::-1],
    "You divide the sum by the number of pieces. The probability of a cut is the product over its pieces: a plain sum.":
        lambda text, scores: _search(text, scores, lambda score, n: score / n),
    "The pieces come in reverse order: they were collected from the end.":
        lambda text, scores: _search(text, scores, lambda score, n: score)[::-1],
}  # fmt: skip
SCORES = {"a": -2.0, "b": -2.5, "c": -3.0, "d": -2.2, "ab": -4.6, "abc": -9.0, "bcd": -4.0, "cd": -5.0, "bc": -5.2}
TEXTS_TO_CUT = (
    ("abcd", SCORES), ("abab", SCORES | {"ba": -1.0}), ("abc", SCORES), ("ddab", SCORES), ("cdd", SCORES),
    ("abcda", SCORES | {"bc": -2.4}), ("dabcd", SCORES | {"dab": -7.0}),
    ("dabcdb", {"a": -1.6, "b": -3.5, "c": -2.8, "d": -1.2, "abc": -3.3, "da": -2.3, "cd": -8.9, "bc": -3.9}),
)  # fmt: skip


@checker
def viterbi(fn: Callable[[str, Mapping[str, float]], list[str]]) -> str:
    """Check `fn(text, scores)`: the cut with the largest sum of scores."""
    cases = []
    for text, scores in TEXTS_TO_CUT:
        cases.append(((text, scores), call_for_list(fn, text, scores), repr(text)))
    judge(cases, lambda text, scores: _search(text, scores, lambda score, n: score), VITERBI)
    return "Right: the best cut, with one look at each pair of start and end."


@checker
def cuts_like(fn: Callable[[str, Mapping[str, float]], list[str]], tokenizer: Tokenizer, texts: Sequence[str]) -> str:
    """Cut real sentences by the learner's search and the scores of a trained vocabulary; compare with SentencePiece."""
    unigram, compared = Unigram(tokenizer), 0
    for text in texts:
        normal = unigram.normalised(text)
        if not set(normal) <= set(unigram.scores):
            continue  # a character without a piece is another exercise
        got, want = call_for_list(fn, normal, unigram.scores), tokenizer.pieces(text)
        if unknown := [piece for piece in got if not isinstance(piece, str) or piece not in unigram.scores]:
            raise Wrong(f"{text!r} becomes {got}; {unknown[0]!r} is no piece.")
        total = sum(unigram.scores[piece] for piece in got)
        if "".join(got) != normal or total < sum(unigram.scores[piece] for piece in want) - 1e-4:
            raise Wrong(f"{text!r} becomes {got}; SentencePiece cuts {want}.")
        compared += 1
    if not compared:
        raise ValueError("texts has none whose characters are all pieces; needed is at least one")
    return f"Your search cuts {compared} held-out sentences as SentencePiece does."


def _weights(
    sums: Sequence[float], edges: Sequence[Edge], alpha: float, *, score: bool = True, before: bool = True,
    at: Callable[[Edge], int] = lambda e: e.start,
) -> list[float]:  # fmt: skip
    logs = [before * sums[at(e)] + score * alpha * e.score for e in edges]
    total = sum(math.exp(x) for x in logs)
    return [math.exp(x) / total for x in logs]


WEIGHTS: Mistakes = {
    "The score of the piece alone is not enough: all the ways to cut what is before it count too, `sums[e.start]`.":
        lambda sums, edges, alpha: _weights(sums, edges, alpha, before=False),
    "You leave out the score of the piece itself.":
        lambda sums, edges, alpha: _weights(sums, edges, alpha, score=False),
    "alpha is not used.": lambda sums, edges, alpha: _weights(sums, edges, 1.0),
    "alpha multiplies the sums too. They were made with it: it belongs to the score alone.":
        lambda sums, edges, alpha: _weights([alpha * s for s in sums], edges, alpha),
    "You take the sum one character too late: the text before a piece ends where it starts, `sums[e.start]`.":
        lambda sums, edges, alpha: _weights(sums, edges, alpha, at=lambda e: e.start + 1),
    "They do not sum to 1: divide by their sum.":
        lambda sums, edges, alpha: [math.exp(sums[e.start] + alpha * e.score) for e in edges],
    "These are logarithms. Take exp.": lambda sums, edges, alpha: [sums[e.start] + alpha * e.score for e in edges],
    "All pieces have the same chance. A frequent piece should be drawn more often.":
        lambda sums, edges, alpha: [1 / len(edges)] * len(edges),
}  # fmt: skip


def _small_lattice() -> Lattice:
    text, scores = "abcd", SCORES
    ending = [
        tuple(Edge(s, e, text[s:e], scores[text[s:e]]) for s in range(e) if text[s:e] in scores)
        for e in range(len(text) + 1)
    ]
    return Lattice(text, tuple(ending))


@checker
def weights(fn: Callable[[Sequence[float], Sequence[Edge], float], list[float]]) -> str:
    """Check `fn(sums, edges, alpha)`: the chance of each edge that ends at one place, for backward sampling."""
    lattice, cases = _small_lattice(), []
    for alpha in (0.5, 1.0):
        sums = lattice.forward(alpha)
        for edges in lattice.ending[2:]:
            got = call_for_list(fn, sums, edges, alpha, of="probabilities")
            names = [edge.piece for edge in edges]
            cases.append(((sums, edges, alpha), got, f"the pieces {names} at alpha {alpha}"))
    judge(cases, _weights, WEIGHTS)
    return "Right: these are the shares of a draw, from the end backward."
