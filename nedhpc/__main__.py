"""python -P -m nedhpc. Without -P, Python puts the current folder before all other folders."""

import sys

if not sys.flags.safe_path:
    # The current folder may belong to somebody else and hold, for example, another random.py.
    sys.path.pop(0)

from nedhpc.cli.main import main  # noqa: E402

raise SystemExit(main())
