# SPDX-License-Identifier: Apache-2.0
"""Set-up of a bare machine: `python3 -m setup`. Standard library only, because nothing else is installed yet."""
