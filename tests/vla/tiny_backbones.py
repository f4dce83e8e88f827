# SPDX-License-Identifier: Apache-2.0
"""The toy backbones under the name that the tests know them by."""

from lapa_core.vla.hf.toy import FAMILIES, IMAGE_PX, save, tokenizer

__all__ = ["FAMILIES", "IMAGE_PX", "save", "tokenizer"]
