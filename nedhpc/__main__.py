"""python -m nedhpc."""

from nedhpc.cli.main import main

raise SystemExit(main())
