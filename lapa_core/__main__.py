# SPDX-License-Identifier: Apache-2.0
"""`python -m lapa_core` is the `lapa` command."""

from lapa_core.cli import main

if __name__ == "__main__":
    main()
