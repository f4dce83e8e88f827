# SPDX-License-Identifier: Apache-2.0
"""What the training loops share: sampling, schedules, augmentation, and the resumable run."""
