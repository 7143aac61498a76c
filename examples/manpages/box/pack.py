"""A trained checkpoint -> DATA/box, the folder that can go into the package: Hugging Face's layout, half precision.

python -m examples.manpages.box.pack --model CHECKPOINT --tokenizer DIR [--data manpages-run]

`examples.manpages.evaluation.results --model DATA/box` then says what exactly this folder is worth.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Regex, decoders, processors

from examples.manpages.evaluation.scores import GENERATION
from examples.manpages.training.warm_start import FIRST
from lsg_fairseq.checkpoints.export import export_checkpoint
from lsg_fairseq.commands.running import run_command
from lsg_fairseq.data.output_folder import staged_output
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.base import JSON_FILE, WORDPIECE_FILE
from lsg_fairseq.tokenizers.fairseq_bpe import load_tokenizer
from lsg_fairseq.tokenizers.load import CONTINUATION
from recipes.files import sha256_of

# --- what a box is made of, so that results and package can be told to be of the same ---------------------------------

CARD, LICENCE = "README.md", "LICENSE"


def hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a box; card and licence are added in the package."""
    return {path.name: sha256_of([path]) for path in sorted(folder.iterdir()) if path.name not in (CARD, LICENCE)}


@dataclass(frozen=True)
class SeenBox:
    """A box and what was in it before anybody read its weights."""

    folder: Path
    hashes: Mapping[str, str]

    @classmethod
    def at(cls, folder: Path) -> SeenBox:
        """The box as it is now."""
        return cls(folder, hashes(folder))

    def check_unchanged(self) -> None:
        """Refuse a box that is another one by now.

        Raises:
            LSGError: it was packed again.
        """
        if hashes(self.folder) != self.hashes:
            raise LSGError(f"{self.folder} was packed again meanwhile, so these results are of no use: run this again")


# --- the tokenizer ----------------------------------------------------------------------------------------------------
# WordPiece forgets which punctuation stood without spaces, and its decoder gives "object - oriented c + +". What is
# usual in descriptions of programs is written into the decoder of a tokenizer.json, which every reader of it follows.

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


# --- the command ------------------------------------------------------------------------------------------------------

PROGRAM = "examples.manpages.box.pack"
BOX = "box"
# How `summarize` writes unless told otherwise: as in the results. transformers counts the decoder's start and </s> in
# a length, fairseq neither.
SETTINGS = {
    "num_beams": GENERATION["--beam"],
    "min_length": GENERATION["--min-len"] + 1,
    "max_length": GENERATION["--max-len-b"] + 2,
    "no_repeat_ngram_size": GENERATION["--no-repeat-ngram-size"],
    "early_stopping": True,
}
# transformers reads no other file for these once there is a generation_config.json.
TOKEN_IDS = ("bos_token_id", "pad_token_id", "eos_token_id", "decoder_start_token_id", "forced_eos_token_id")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 1 after one sentence on standard error."""
    parser = argparse.ArgumentParser(PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, metavar="CHECKPOINT", help="of the last stage")
    parser.add_argument("--tokenizer", required=True, type=Path, metavar="DIR", help="the start's")
    parser.add_argument("--data", type=Path, default=Path("manpages-run"), metavar="DIR", help="default: %(default)s")
    args = parser.parse_args(argv)
    return run_command(PROGRAM, lambda: pack(args.model, args.tokenizer, args.data / BOX))


def pack(model: Path, tokenizer: Path, box: Path) -> None:
    """Write the folder; one of an earlier run is replaced.

    Raises:
        LSGError: the checkpoint cannot be exported; as export_checkpoint.
    """
    with staged_output(box, stale=["*"]) as aside:
        export_checkpoint(model, aside, tokenizer=tokenizer, half=True)
        if (aside / WORDPIECE_FILE).is_file():
            write_tokenizer(aside)
        config = json.loads((aside / "config.json").read_text(encoding="utf-8"))
        settings = {name: config[name] for name in TOKEN_IDS} | SETTINGS
        (aside / "generation_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {box}: {sum(path.stat().st_size for path in box.iterdir()):,} bytes")


if __name__ == "__main__":
    sys.exit(main())
