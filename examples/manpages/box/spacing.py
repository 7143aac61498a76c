"""Text from WordPiece tokens as people write it: the spaces go that BERT's tokenizer puts around punctuation.

WordPiece forgets which punctuation stood without spaces, and its decoder gives "object - oriented c + +". What is
usual in descriptions of programs is written into the decoder of a tokenizer.json, which every reader of it follows.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Regex, decoders, processors

from examples.manpages.training.vocabulary import FIRST
from lsg_fairseq.tokenizers.base import JSON_FILE
from lsg_fairseq.tokenizers.fairseq_bpe import load_tokenizer
from lsg_fairseq.tokenizers.wordpiece import CONTINUATION

SETTINGS_FILE = "tokenizer_config.json"
SPACES = (
    r"(?<=\w) (?=[-/_])",  # object -oriented
    r"(?<=[-/_]) (?=\w)",
    r" (?=:)",  # Net ::
    r"(?<=: :) (?=\w)",
    r"(?<=\() ",  # ( 3 )
    r" (?=\))",
    r"(?<=\w) (?=\+ ?\+)",  # c + +
    r"(?<=\+) (?=\+)",
    r"(?<=\d[.,]) (?=\d)",  # 7. 2
    r"(?<=\w) (?=' \w)",  # don ' t
    r"(?<=\w ') (?=\w)",
)


def write_tokenizer(folder: Path) -> None:
    """Write tokenizer.json of the WordPiece vocabulary that is in the folder, with such a decoder."""
    backend = load_tokenizer(folder).backend
    start, _, end, _ = FIRST
    # Fused first: a replacement looks at a whole text, not at each token.
    tidy = decoders.Replace(Regex("|".join(SPACES)), "")
    backend.decoder = decoders.Sequence([decoders.WordPiece(prefix=CONTINUATION), decoders.Fuse(), tidy])
    backend.post_processor = processors.BertProcessing(*((name, backend.token_to_id(name)) for name in (end, start)))
    backend.save(str(folder / JSON_FILE))
    # transformers' BertTokenizer brings a decoder of its own; this class takes what tokenizer.json says.
    settings = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
