"""The lessons of the course: number, title, the question each answers, and what it builds on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Lesson:
    """One notebook; `ready` says whether it is in the repository yet."""

    number: int
    name: str
    title: str
    question: str
    after: tuple[int, ...] = ()
    ready: bool = False

    @property
    def notebook(self) -> str:
        """File name of the notebook, without its folder."""
        return f"{self.number:02d}_{self.name}.ipynb"


PARTS = {
    "The block": (1, 2, 3),
    "Reach, order, pieces": (4, 5, 6),
    "Whole models": (7, 8, 9, 10),
    "Build, look, adapt": (11, 12, 13),
}

LESSONS = (
    Lesson(
        1, "layernorm_dynamics", "LayerNorm dynamics", "Why does a deep network need a norm, and where?", ready=True
    ),
    Lesson(2, "attention_scoring", "Attention scoring", "Why divide by √d?", (1,), ready=True),
    Lesson(
        3, "multi_head_attention", "Multi-head attention", "What do the heads of a trained GPT-2 do?", (2,), ready=True
    ),
    Lesson(4, "local_and_global_attention", "Local and global attention", "Can attention cost O(T)?", (3,), ready=True),
    Lesson(
        5,
        "positional_encodings",
        "Positional encodings",
        "How does a model know the order of its tokens?",
        (3,),
        ready=True,
    ),
    Lesson(6, "tokenizer_training", "Tokenizer training", "How is Japanese cut into pieces?"),
    Lesson(7, "vision_transformer", "Vision transformer", "What does a picture look like as tokens?", (3,)),
    Lesson(8, "modernbert_mlm", "ModernBERT MLM", "What does filling gaps teach the attention?", (4, 5, 6)),
    Lesson(9, "moe_vs_dense", "MoE against dense", "What do experts buy at equal compute?", (3,)),
    Lesson(10, "mla_and_alibi", "MLA and ALiBi", "How small can the KV cache be?", (5,)),
    Lesson(11, "hybrid_sparse_encoder", "Hybrid sparse encoder", "Which design is best, at equal budget?", (8,)),
    Lesson(12, "inner_features", "Inner features", "What is in the hidden states, layer by layer?", (7, 8)),
    Lesson(13, "fine_tuning", "Fine-tuning", "Full, frozen or LoRA: what does each cost?", (8,)),
)
