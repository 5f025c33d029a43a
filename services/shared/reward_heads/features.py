"""What the reward model looks at: means over an answer's tokens, taken from the adapter-off pass.

The pass is made anyway for the reference log-probs, so features cost nothing extra. In this order, each of the
model's hidden size: the mean token embedding, then the mean hidden state after each of two middle layers.
"""

from typing import Final

PARTS: Final = 3


def middle_layers(layers: int) -> tuple[int, int]:
    """After how many of a model's layers the two hidden states are taken: a third and two thirds of them."""
    return layers // 3, 2 * layers // 3


def feature_layout(hidden_size: int, layers: int) -> str:
    """Name of the features of a model, by which heads and features must agree: "means-emb-l10-l20/576x3"."""
    low, high = middle_layers(layers)
    return f"means-emb-l{low}-l{high}/{hidden_size}x{PARTS}"


def feature_count(hidden_size: int) -> int:
    """F, the number of features of a model with this hidden size (1,728 for a hidden size of 576)."""
    return PARTS * hidden_size
