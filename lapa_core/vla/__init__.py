# SPDX-License-Identifier: Apache-2.0
"""The policy models: a small trunk, LWM, and backbones of transformers, behind the one interface of `base`."""

import logging

# bitsandbytes, where it is installed, misses a faster kernel that PyPI does not have, and says so to everybody who
# imports diffusers or peft; its own kernel serves.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: "gemm_4bit_forward" not in record.getMessage()
)
