"""The settings of the task `lsg_summarization`."""

from dataclasses import dataclass, field
from typing import Optional

from fairseq.tasks.translation import TranslationConfig

from lsg_fairseq.data.kept_part import PARTS_HELP


# fairseq reads these annotations itself and knows Optional[...] alone.
@dataclass
class LSGSummarizationConfig(TranslationConfig):
    """fairseq's translation settings with defaults for long documents, and ROUGE in validation."""

    left_pad_source: bool = field(default=False, metadata={"help": "pad the source on the left"})
    max_source_positions: Optional[int] = field(
        default=None, metadata={"help": "cut sources to this many tokens, <s> and </s> included (default: the model's)"}
    )
    max_target_positions: Optional[int] = field(
        default=None, metadata={"help": "cut targets to this many tokens, <s> and </s> included (default: the model's)"}
    )
    keep_part: Optional[str] = field(
        default=None,
        metadata={
            "help": f"{PARTS_HELP} (default: what lsg-preprocess --keep-part said, else the checkpoint's, else head); "
            "of a target the head is kept"
        },
    )
    source_lang_token: Optional[str] = field(
        default=None,
        metadata={
            "help": "language code of the sources, such as en_XX (default: --source-lang where that is one, else what "
            "sequence_format.json beside the data says)"
        },
    )
    target_lang_token: Optional[str] = field(
        default=None, metadata={"help": "the same of the targets; an output begins with it or is started from it"}
    )
    forced_first_token: Optional[str] = field(
        default=None, metadata={"help": "symbol that every output begins with; it counts nothing in the score"}
    )
    forced_eos: bool = field(
        default=False,
        metadata={"help": "an output cut at the maximum length ends with </s> at no cost to its score"},
    )
    freeze_encoder: bool = field(
        default=False,
        metadata={
            "help": "train the decoder alone, and token embeddings that it shares: an update costs less; for the first "
            "steps of a decoder that is new"
        },
    )
    freeze_embeddings: bool = field(
        default=False, metadata={"help": "leave the token embeddings, and an output projection that shares them, as is"}
    )
    eval_rouge: bool = field(default=False, metadata={"help": "validate with ROUGE of generated summaries"})
    eval_rouge_args: str = field(
        default="{}",
        metadata={"help": 'generation settings for --eval-rouge as JSON, e.g. \'{"beam": 4, "max_len_b": 200}\''},
    )
