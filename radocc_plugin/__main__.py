"""``python -m radocc_plugin`` is the command ``radocc``."""

import sys

from radocc_plugin.cli import main

sys.exit(main())
