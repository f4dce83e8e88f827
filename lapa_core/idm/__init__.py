# SPDX-License-Identifier: Apache-2.0
"""Inverse dynamics model: which action lies between two frames. Learnt from labelled episodes; VPT and UniPi use it."""
