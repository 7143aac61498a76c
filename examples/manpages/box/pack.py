"""A trained checkpoint -> DATA/box, the folder that can go into the package: Hugging Face's layout, half precision.

python -m examples.manpages.box.pack --model CHECKPOINT --tokenizer DIR [--data manpages-run]

`examples.manpages.evaluation.results --model DATA/box` then says what exactly this folder is worth.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from examples.manpages.box.spacing import write_tokenizer
from examples.manpages.evaluation.variants import GENERATION
from lsg_fairseq.checkpoints.export import export_checkpoint
from lsg_fairseq.commands.running import run_command
from lsg_fairseq.data.output_folder import written_aside
from lsg_fairseq.tokenizers.base import WORDPIECE_FILE

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
    with written_aside(box, stale=["*"]) as aside:
        export_checkpoint(model, aside, tokenizer=tokenizer, half=True)
        if (aside / WORDPIECE_FILE).is_file():
            write_tokenizer(aside)
        config = json.loads((aside / "config.json").read_text(encoding="utf-8"))
        settings = {name: config[name] for name in TOKEN_IDS} | SETTINGS
        (aside / "generation_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {box}: {sum(path.stat().st_size for path in box.iterdir()):,} bytes")


if __name__ == "__main__":
    sys.exit(main())
