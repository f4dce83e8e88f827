# SPDX-License-Identifier: Apache-2.0
"""The authors' LAPA-7B: a Llama that reads text, one VQGAN-coded frame, and latent or action tokens."""
