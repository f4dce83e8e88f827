# SPDX-License-Identifier: Apache-2.0
"""Data sets: import, recording export, verification, and frames for training. No torch."""
