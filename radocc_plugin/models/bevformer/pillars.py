"""Reference points of BEV queries, and where cameras see them.

B batch, N cameras, H W BEV grid (row y, column x), Q = H * W queries,
D points of a pillar.
"""

from typing import NamedTuple, Sequence, Tuple

import torch
from torch import Tensor

from radocc_plugin.geometry import transform_points

# Points nearer than this to the image plane are in no image.
MIN_DEPTH = 1e-5


class SeenQueries(NamedTuple):
    """Which queries each camera sees, and where.

    Cameras see different numbers of queries; V is the largest, and the lists
    of the others are filled up with queries they do not see.

    Args:
        index: Queries of each camera of each sample, shape (B, N, V).
        valid: False for the filled-up ones, shape (B, N, V).
        points: Their pillars as fractions (u, v) of the image's width and
            height, shape (B, N, V, D, 2).
        cameras: How many cameras see a query, shape (B, Q).
    """

    index: Tensor
    valid: Tensor
    points: Tensor
    cameras: Tensor


def cell_centres(bev_shape: Tuple[int, int], device=None) -> Tensor:
    """Centres (x, y) of BEV cells as fractions of the grid, (Q, 2)."""
    rows, columns = ((torch.arange(size, device=device) + 0.5) / size for size in bev_shape)
    y, x = torch.meshgrid(rows, columns, indexing='ij')
    return torch.stack((x, y), -1).flatten(0, 1)


def pillar_points(
    bev_shape: Tuple[int, int],
    points_in_pillar: int,
    point_cloud_range: Sequence[float],
    device=None,
) -> Tensor:
    """Points above each BEV cell as fractions of the range.

    They are evenly spread from half a metre above the lower bound to half a
    metre below the upper one.

    Returns:
        (x, y, z) in [0, 1], shape (D, Q, 3), float32.

    BEVFormer, arXiv 2203.17270, section 3.3; CVPR2023-Occ @4781df9.
    """
    height = point_cloud_range[5] - point_cloud_range[2]
    z = torch.linspace(0.5, height - 0.5, points_in_pillar, device=device) / height
    xy = cell_centres(bev_shape, device)
    return torch.cat(
        [xy.expand(points_in_pillar, -1, -1), z[:, None, None].expand(-1, len(xy), 1)], -1
    )


def project_pillars(
    points: Tensor,
    point_cloud_range: Sequence[float],
    ego2img: Tensor,
    image_shape: Tuple[int, int],
) -> Tuple[Tensor, Tensor]:
    """Points in the cameras, in float64, which autocast leaves alone.

    Args:
        points: Of :func:`pillar_points`, shape (D, Q, 3).
        point_cloud_range: Lower and upper bounds, metres.
        ego2img: (Augmented) ego frame to network input: top three rows take
            a point to (u * depth, v * depth, depth), pixels and metres, shape
            (B, N, 4, 4).
        image_shape: Height and width of the network input, padding included.

    Returns:
        Fractions (u, v) of the image's width and height, shape (B, N, Q, D,
        2), float32; and whether a point is in front of the camera and in its
        image, bool, shape (B, N, Q, D).
    """
    bounds = torch.tensor(point_cloud_range, dtype=torch.double, device=points.device)
    metres = points.double() * (bounds[3:] - bounds[:3]) + bounds[:3]
    ego2img = ego2img.to(points.device)
    projected = transform_points(ego2img, metres.transpose(0, 1).reshape(1, 1, -1, 3)).unflatten(
        2, (points.shape[1], len(points))
    )
    depth = projected[..., 2]
    size = projected.new_tensor(image_shape[::-1])
    uv = projected[..., :2] / depth[..., None].clamp(min=MIN_DEPTH) / size
    inside = ((uv > 0) & (uv < 1)).all(-1) & (depth > MIN_DEPTH)
    return uv.float(), inside


def list_seen_queries(uv: Tensor, inside: Tensor) -> SeenQueries:
    """Lists for every camera of every sample the queries that it sees.

    A camera sees a query if any point of its pillar is in the image; then all
    its points count. Published code takes the lists of the batch's first
    sample for all.

    Args:
        uv: Of :func:`project_pillars`, shape (B, N, Q, D, 2).
        inside: The same, shape (B, N, Q, D).
    """
    seen = inside.any(-1)
    counts = seen.sum(-1)
    longest = max(1, int(counts.max()))
    # those seen come first, in their order
    index = seen.byte().sort(dim=-1, descending=True, stable=True).indices[..., :longest]
    valid = torch.arange(longest, device=uv.device) < counts[..., None]
    points = uv.gather(2, index[..., None, None].expand(-1, -1, -1, *uv.shape[3:]))
    return SeenQueries(index, valid, points, seen.sum(1))
