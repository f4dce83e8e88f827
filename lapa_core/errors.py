# SPDX-License-Identifier: Apache-2.0
"""Every error that a user can meet. A message says what was given, what is allowed and what to do."""


class LapaError(Exception):
    """Root of all errors raised on purpose by this project."""


class ContractError(LapaError, ValueError):
    """A robot contract, configuration or parameter is wrong."""


class ActionError(LapaError, ValueError):
    """An action is not finite, out of range, of the wrong shape, or cannot be reached."""


class DataError(LapaError, ValueError):
    """A data set, recording or video cannot be used as it is."""


class CheckpointError(LapaError, ValueError):
    """A checkpoint is damaged, incomplete or of another kind."""


class SetupError(LapaError, RuntimeError):
    """Something that the machine needs is not installed or cannot start."""


class ServerError(LapaError, ConnectionError):
    """A policy server cannot be reached, does not answer in time, or refuses."""
