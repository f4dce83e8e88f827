# SPDX-License-Identifier: Apache-2.0
"""What `lapa demo` refuses before it starts anything; a whole run is in tests/end_to_end."""

import pytest
from lapa_ros.demo import DemoConfig

from lapa_core.errors import ContractError


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"episodes": 0}, "episodes is 0; allowed is 1 to 10000"),
        ({"episodes": 10001}, "allowed is 1 to 10000"),
        ({"seed": -1}, "seed is -1; allowed is 0 and more"),
    ],
)
def test_what_the_evaluation_cannot_do_is_refused_before_it_starts(given, reason):
    with pytest.raises(ContractError, match=reason):
        DemoConfig(**given)
