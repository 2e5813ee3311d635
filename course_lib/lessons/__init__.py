"""The lessons of the course, in one table: `make lessons` writes it into README, notebook 00 and the map."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Lesson:
    """One notebook: its question, the lessons it builds on, and the minutes it takes to read (None: it is planned)."""

    number: int
    name: str
    title: str
    question: str
    after: tuple[int, ...] = ()
    minutes: int | None = None

    @property
    def ready(self) -> bool:
        """Whether it is in the repository yet."""
        return self.minutes is not None

    @property
    def part(self) -> str:
        """The part of the course that it belongs to."""
        return [part for part, first in PARTS.items() if first <= self.number][-1]

    @property
    def notebook(self) -> str:
        """File name of the notebook, without its folder."""
        return f"{self.number:02d}_{self.name}.ipynb"


PARTS = {"The block": 1, "Reach, order, pieces": 4, "Whole models": 7, "Build, look, adapt": 11}  # name: first lesson
LESSONS = (  # number, name, title, question, after, minutes
    Lesson(1, "layernorm_dynamics", "LayerNorm dynamics", "Why does a deep network need a norm, and where?", (), 50),
    Lesson(2, "attention_scoring", "Attention scoring", "Why divide by √d?", (1,), 50),
    Lesson(
        3, "multi_head_attention", "Multi-head attention", "Why several heads, and what do they do together?", (2,), 45
    ),
    Lesson(4, "local_and_global_attention", "Local and global attention", "Can attention cost O(T)?", (3,), 60),
    Lesson(
        5, "positional_encodings", "Positional encodings", "How does a model know the order of its tokens?", (3,), 60
    ),
    Lesson(6, "tokenizer_training", "Tokenizer training", "How is Japanese cut into pieces?", minutes=45),
    Lesson(7, "vision_transformer", "Vision transformer", "What does a picture look like as tokens?", (3,)),
    Lesson(8, "modernbert_mlm", "ModernBERT MLM", "What does filling gaps teach the attention?", (4, 5, 6), minutes=45),
    Lesson(9, "moe_vs_dense", "MoE against dense", "What do experts buy at equal compute?", (3,)),
    Lesson(10, "mla_and_alibi", "MLA and ALiBi", "How small can the KV cache be?", (5,)),
    Lesson(11, "hybrid_sparse_encoder", "Hybrid sparse encoder", "Which design is best, at equal budget?", (8,)),
    Lesson(12, "inner_features", "Inner features", "What is in the hidden states, layer by layer?", (7, 8)),
    Lesson(13, "fine_tuning", "Fine-tuning", "Full, frozen or LoRA: what does each cost?", (8,)),
)


def lesson_table(folder: str = "") -> str:
    """LESSONS as a table of Markdown; `folder` leads from where it stands to the notebooks, such as "notebooks/"."""
    rows = ["| no | lesson | the question it answers | minutes to read |", "|---|---|---|---|"]
    for lesson in LESSONS:
        title = f"[{lesson.title}]({folder}{lesson.notebook})" if lesson.ready else f"{lesson.title} (planned)"
        rows.append(f"| {lesson.number:02d} | {title} | {lesson.question} | {lesson.minutes or ''} |")
    return "\n".join(rows)
