"""A deep residual MLP: a transformer's residual stream without the attention."""

from dataclasses import dataclass

from torch import Tensor, nn

from course_lib.checks import check_above, check_at_least, check_choice, check_not_negative
from course_lib.init import init_weights
from course_lib.mlp import MLP
from course_lib.norms import NORMS, make_norm

PLACEMENTS = ("pre", "post")


@dataclass(frozen=True)
class ResidualMLPConfig:
    """Sizes of a ResidualMLP and where its norms stand; __post_init__ raises ValueError on what cannot be."""

    d_in: int = 784
    d_model: int = 128
    d_ff: int = 128
    n_layers: int = 24
    n_classes: int = 10
    norm: str = "layernorm"  # "layernorm", "rmsnorm", "none"
    placement: str = "pre"  # "pre": x + f(norm(x));  "post": norm(x + f(x))
    skip_scale: float = 1.0  # what the x in "x +" is multiplied by; 0 gives a plain stack, without residual
    init_gain: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("d_in", "d_model", "d_ff", "n_layers", "n_classes"):
            check_at_least(name, getattr(self, name), 1)
        check_choice("norm", self.norm, NORMS)
        check_choice("placement", self.placement, PLACEMENTS)
        check_not_negative("skip_scale", self.skip_scale)
        check_above("init_gain", self.init_gain, 0)


class ResidualBlock(nn.Module):
    """One layer of the stream: a x + f(norm(x)) for "pre", norm(a x + f(x)) for "post", with a = skip_scale.

    x (..., C) -> (..., C). Sources: Xiong et al. 2020, "On Layer Normalization in the Transformer Architecture",
    figure 1; for a above 1 with post-norm, Wang et al. 2022, "DeepNet", section 3.
    """

    def __init__(self, config: ResidualMLPConfig) -> None:
        super().__init__()
        self.placement, self.skip_scale = config.placement, config.skip_scale
        self.norm = make_norm(config.norm, config.d_model)
        self.mlp = MLP(config.d_model, config.d_ff)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., C) -> (..., C)."""
        y = self.mlp(self.norm(x) if self.placement == "pre" else x)
        y = self.skip_scale * x + y
        return self.norm(y) if self.placement == "post" else y


class ResidualMLP(nn.Module):
    """Embed a flat picture, pass `n_layers` residual blocks, classify.

    images (B, d_in) -> logits (B, n_classes). A pre-norm stream ends in one more norm, as in GPT-2; a post-norm stream
    is normalised already. Raises ValueError for images of another width.
    """

    def __init__(self, config: ResidualMLPConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Linear(config.d_in, config.d_model)
        self.blocks = nn.ModuleList(ResidualBlock(config) for _ in range(config.n_layers))
        self.final_norm = make_norm(config.norm if config.placement == "pre" else "none", config.d_model)
        self.head = nn.Linear(config.d_model, config.n_classes)
        init_weights(self, config.seed, config.init_gain)

    def forward(self, images: Tensor) -> Tensor:
        """images (B, d_in) -> logits (B, n_classes)."""
        if images.ndim != 2 or images.shape[1] != self.config.d_in:
            raise ValueError(f"images has shape {tuple(images.shape)}; needed is (B, {self.config.d_in})")
        x = self.embed(images)  # (B, C)
        for block in self.blocks:
            x = block(x)
        return self.head(self.final_norm(x))  # (B, n_classes)
