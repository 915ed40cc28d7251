"""`python -m bridge.local`: the embedded stack without Celery."""

import sys

from bridge.local.cli import main

if __name__ == "__main__":
    sys.exit(main())
