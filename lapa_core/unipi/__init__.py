# SPDX-License-Identifier: Apache-2.0
"""UniPi (Du et al., 2023): a video diffusion model plans the next frames, inverse dynamics turns them into actions."""
