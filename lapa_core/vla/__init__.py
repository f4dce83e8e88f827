# SPDX-License-Identifier: Apache-2.0
"""The policy model: a small vision-language trunk, a latent head for pretraining, an action head for finetuning."""
