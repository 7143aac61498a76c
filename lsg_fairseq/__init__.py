"""LSG attention for fairseq: BART and Pegasus that read 4,096 to 16,384 tokens and more.

Importing this package, or naming it as --user-dir, registers its models, task, bpe and scorer with fairseq.
"""

from lsg_fairseq import compat

# fairseq has to be mended before anything of it is built.
compat.apply_fixes()

from lsg_fairseq import models, scoring, tasks  # noqa: E402, F401
from lsg_fairseq.tokenizers import fairseq_bpe  # noqa: E402, F401

__version__ = "0.1.0"
