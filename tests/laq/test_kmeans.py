# Copyright 2026 the LAPA for ROS 2 authors. SPDX-License-Identifier: Apache-2.0
"""k-means++ on points with copies."""

import torch

from lapa_core.laq.kmeans import kmeans


def test_copies_of_a_point_do_not_become_centres_of_their_own() -> None:
    generator = torch.Generator().manual_seed(0)
    distinct_5D = 10 * torch.randn(5, 32, generator=generator)
    points_BD = distinct_5D[torch.randint(5, (400,), generator=generator)]

    centres_ND = kmeans(points_BD, 16, seed=0)

    assert len(centres_ND) == 5
    torch.testing.assert_close(
        centres_ND[centres_ND[:, 0].argsort()], distinct_5D[distinct_5D[:, 0].argsort()]
    )
