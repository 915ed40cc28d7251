"""`python -m tasks.demo`, which is what `celery -A tasks demo` runs."""

import sys

from tasks.demo.command import main

if __name__ == "__main__":
    sys.exit(main())
