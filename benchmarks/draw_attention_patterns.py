"""Draw what each query sees, for every sparsity type: docs/attention_patterns.png.

Nothing here knows the formulas. The values are one-hot, so an output row of the real lsg_attention is that query's row
of attention probabilities over the original tokens. All scores are equal, so that a token's weight says how it is seen.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import torch

from lsg_fairseq.modules.lsg_attention import lsg_attention
from lsg_fairseq.modules.lsg_config import LSGConfig

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

BLOCK, GLOBALS, TOKENS = 8, 2, 80
HEAD, HEADS = 1, 2
GLOBAL_COLOUR, LOCAL_COLOUR, SPARSE_COLOUR, NOTHING = "#c8553d", "#2f6690", "#e0a100", "#f4f4f2"

CONFIG = LSGConfig(block_size=BLOCK, sparse_block_size=BLOCK, sparsity_factor=2, num_global_tokens=GLOBALS)
PANELS = {
    "full attention": "every token sees every token",
    "none": "global + local blocks only",
    "norm": "the keys of largest norm",
    "pooling": "means of neighbours",
    "bos_pooling": "means weighted by token 0",
    "lsh": "means of similar keys (hashing)",
    "stride": "every 2nd token; heads differ",
    "block_stride": "half of each block; heads differ",
}


def attention_weights(config: LSGConfig) -> np.ndarray:
    """(G+T, G+T) attention probabilities of one head over the original tokens, relative to a plainly seen key."""
    length = GLOBALS + TOKENS
    generator = torch.Generator().manual_seed(4)
    key = torch.randn(1, HEADS, length, length, generator=generator)
    query = torch.zeros(1, HEADS, length, length)
    # bos_pooling weighs its tokens by the query of the first regular token; all others stay neutral.
    query[:, :, GLOBALS] = 2 * torch.randn(length, generator=generator)
    value = torch.eye(length).expand(1, HEADS, length, length)
    weights = lsg_attention(query, key, value, config, generator=generator)[0, HEAD]
    # Its own row would show scores, not the pattern: its neighbour in the block sees the same keys.
    weights[GLOBALS] = weights[GLOBALS + 1]
    return (weights / weights[:, :1]).clamp(max=1).numpy()


def full_attention_weights() -> np.ndarray:
    """Two blocks or less are dense: one block as long as the text."""
    return attention_weights(replace(CONFIG, block_size=TOKENS, sparsity_type="none"))


def colour_cells(weights: np.ndarray, plainly_seen: np.ndarray) -> np.ndarray:
    """(G+T, G+T, 3) colours: what is seen by or as a global token, plainly, or through a sparse token."""
    seen = weights > 1e-6
    involves_global = np.zeros_like(seen)
    involves_global[:GLOBALS] = involves_global[:, :GLOBALS] = True
    image = np.empty((*weights.shape, 3))
    image[:] = to_rgb(NOTHING)
    image[seen & (plainly_seen > 0)] = to_rgb(LOCAL_COLOUR)
    image[seen & involves_global] = to_rgb(GLOBAL_COLOUR)
    through_sparse = seen & (plainly_seen == 0)
    # The root keeps a weight of a tenth visible.
    strength = np.sqrt(weights[through_sparse])[:, None]
    image[through_sparse] = strength * np.array(to_rgb(SPARSE_COLOUR)) + (1 - strength) * np.array(to_rgb(NOTHING))
    return image


def draw_panel(axes: Axes, name: str, image: np.ndarray) -> None:
    axes.imshow(image, interpolation="nearest")
    ticks = np.arange(0, TOKENS + 1, 2 * BLOCK)
    axes.set_xticks(GLOBALS + ticks - 0.5, [str(t) for t in ticks], fontsize=9)
    axes.set_yticks(GLOBALS + ticks - 0.5, [str(t) for t in ticks], fontsize=9)
    axes.set_title(name, fontsize=12, fontweight="bold", pad=20)
    axes.text(0.5, 1.03, PANELS[name], transform=axes.transAxes, ha="center", fontsize=10, color="#444444")
    for spine in axes.spines.values():
        spine.set_color("#999999")


def draw_figure(output: Path) -> None:
    """Eight panels, two rows of four, with one legend."""
    plainly_seen = attention_weights(replace(CONFIG, sparsity_type="none"))
    figure, grid = plt.subplots(2, 4, figsize=(12.5, 7.6), layout="constrained")
    for axes, name in zip(grid.flat, PANELS, strict=True):
        if name == "full attention":
            weights = full_attention_weights()
            image = colour_cells(weights, weights)
        else:
            image = colour_cells(attention_weights(replace(CONFIG, sparsity_type=name)), plainly_seen)
        draw_panel(axes, name, image)
    for axes in grid[:, 0]:
        axes.set_ylabel("query: token that looks", fontsize=10)
    for axes in grid[1]:
        axes.set_xlabel("key: token that is seen", fontsize=10)
    figure.suptitle(
        f"What each token of a text sees, by sparsity type (one head; {TOKENS} tokens in blocks of {BLOCK}, "
        f"{GLOBALS} global tokens in front, 2 tokens make 1 sparse token)",
        fontsize=12,
    )
    labels = {
        GLOBAL_COLOUR: "global tokens: see all, seen by all",
        LOCAL_COLOUR: "local: own block and its neighbours",
        SPARSE_COLOUR: "through a sparse token (paler: smaller share)",
        NOTHING: "not seen",
    }
    patches = [Patch(facecolor=colour, edgecolor="#999999", label=text) for colour, text in labels.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=4, fontsize=11, frameon=False)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=140)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "docs" / "attention_patterns.png")
    arguments = parser.parse_args()
    draw_figure(arguments.output)
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
