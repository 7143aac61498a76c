"""The ways in which a model answers: the same weights and pages, other attention or less to read."""

from __future__ import annotations

from dataclasses import dataclass

SHORT, LONG = 512, 4096  # source tokens, <s> and </s> included
AS_TRAINED, CUT = "as_trained", "cut_to_512"
STAGE_BEFORE = "stage_before_cut_to_512"
CUT_FLAGS = ("--max-source-positions", str(SHORT))

# The same for all variants. A batch is bounded by the memory of full attention over LONG tokens.
GENERATION: dict[str, int] = {
    "--beam": 4,
    "--min-len": 1,
    "--max-len-b": 48,
    "--no-repeat-ngram-size": 3,
    "--batch-size": 32,
    "--max-tokens": 4 * LONG,
}


@dataclass(frozen=True)
class Variant:
    """What is added to the command line, and what that means."""

    flags: tuple[str, ...]
    meaning: str


def variants_of(positions: int) -> dict[str, Variant]:
    """The ways in which a checkpoint of so many source positions answers."""
    whole = ("--max-source-positions", str(positions))
    return {
        AS_TRAINED: Variant(
            whole,
            f"the checkpoint's own attention settings, pages cut to its {positions:,} positions",
        ),
        CUT: Variant(CUT_FLAGS, f"the same, but pages cut to {SHORT} tokens, `<s>` and `</s>` included"),
        "sparsity_none": Variant(
            (*whole, "--model-overrides", "{'lsg_sparsity_type': 'none'}"),
            "no sparse tokens: a token sees its own block, both neighbours and the global tokens",
        ),
        "full_attention": Variant(
            (*whole, "--model-overrides", "{'lsg_attention': 'full'}"),
            "every token sees every token; the learned global tokens stay in front, as the decoder was trained so",
        ),
    }


def short_variant() -> dict[str, Variant]:
    """The way in which the checkpoint of the stage before answers."""
    meaning = "the checkpoint of the stage before (`--short-model`), which read openings of pages"
    return {STAGE_BEFORE: Variant(CUT_FLAGS, meaning)}
