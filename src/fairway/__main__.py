"""
``python -m fairway module:app``.
"""

from __future__ import annotations

import sys

from fairway.cli import main

if __name__ == "__main__":
    sys.exit(main())
