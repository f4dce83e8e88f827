# SPDX-License-Identifier: Apache-2.0
"""Latent action quantisation: what happened between two frames, as a few discrete codes. Sees only frames."""
