"""lsg-plan from a checkout, installed or not."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lsg_fairseq.commands.plan import main

sys.exit(main())
