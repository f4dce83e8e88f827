# SPDX-License-Identifier: Apache-2.0
"""LAPA: latent action pretraining from videos, as a robotics stack. Import from the module that owns a name."""

__version__ = "0.1.0"
