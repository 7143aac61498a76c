"""Manual pages and their one-line descriptions as training data; see examples/manpages/README.md."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples.manpages.corpus.prepare import main

sys.exit(main())
