"""python -m nedhpc."""

from nedhpc.cli import main

raise SystemExit(main())
