"""Which pixels get a ray.

B batch, N cameras, h w render size, R rays, P points.
"""

from typing import Optional, Sequence, Tuple

import torch
from torch import Tensor

from radocc_plugin.geometry.cameras import Cameras
from radocc_plugin.geometry.frames import upload
from radocc_plugin.geometry.rays import Rays, rays_of_pixels

RAY_SAMPLERS = ('random', 'grid', 'lidar', 'segments')
# Depths of the LiDAR returns that get a ray, metres (nerf_head.py @5b4538f7).
LIDAR_DEPTHS = (1.0, 45.0)


def draw_rays(
    cameras: Cameras,
    render_size: Tuple[int, int],
    sampler: str = 'random',
    *,
    max_rays: Optional[int] = None,
    generator: Optional[torch.Generator] = None,
    points: Optional[Sequence[Tensor]] = None,
    segments: Optional[Tensor] = None,
) -> Rays:
    """Rays through pixel centres of a render of every camera.

    - ``random``: pixels drawn uniformly without replacement.
    - ``grid``: all pixels; a cap keeps an evenly spaced subset whose start
      is drawn.
    - ``lidar``: pixels with a LiDAR return between 1 and 45 m, as in the
      author's training; a cap draws among them.
    - ``segments``: pixels drawn such that every segment of every image has
      the same chance, whatever its size; pixels without a segment get none.

    Args:
        cameras: Cameras of the batch.
        render_size: Height and width of the render in pixels; it covers the
            raw image.
        sampler: One of ``RAY_SAMPLERS``.
        max_rays: At most this many rays of the whole batch; None for all
            that the sampler knows. The author draws 80,000 a step.
        generator: CPU generator of the draw.
        points: LiDAR points in the augmented ego frame, B of (P, 3 or more),
            metres; for ``lidar``.
        segments: Segment ids, 0 for none, at any resolution, (B, N, H, W);
            for ``segments``.

    Returns:
        Rays in float32, by sample, camera, row and column: neighbours read
        the same voxels. None where no pixel qualifies.

    Raises:
        ValueError: If an option is unknown or an input is missing.
    """
    batch, num_cameras = cameras.cam2img.shape[:2]
    total = batch * num_cameras * render_size[0] * render_size[1]
    cap = total if max_rays is None else min(max_rays, total)
    if sampler == 'random':
        index = _draw_of(total, cap, generator)
    elif sampler == 'grid':
        index = _evenly(total, cap, generator)
    elif sampler == 'lidar':
        if points is None:
            raise ValueError(
                "ray_sampler 'lidar' needs the batch's LiDAR "
                'points; load them in the training pipeline'
            )
        hits = lidar_pixels(cameras, render_size, points).cpu()
        index = hits[_draw_of(len(hits), min(cap, len(hits)), generator)]
    elif sampler == 'segments':
        if segments is None:
            raise ValueError(
                "ray_sampler 'segments' needs segment maps; add "
                'LoadSegments to the training pipeline'
            )
        if segments.dim() != 4 or segments.shape[:2] != (batch, num_cameras):
            raise ValueError(
                f'segments take shape ({batch}, {num_cameras}, H, W), got {tuple(segments.shape)}'
            )
        index = _segment_balanced(segments, render_size, cap, generator)
    else:
        raise ValueError(f'ray_sampler takes one of {RAY_SAMPLERS}, got {sampler!r}')
    return rays_of_pixels(cameras, render_size, upload(index, cameras.cam2img.device))


def lidar_pixels(
    cameras: Cameras, render_size: Tuple[int, int], points: Sequence[Tensor]
) -> Tensor:
    """Pixels of the render that a LiDAR return falls into.

    Args:
        cameras: Cameras of the batch.
        render_size: Height and width of the render.
        points: B of (P, 3 or more) in the augmented ego frame, metres.

    Returns:
        Flat indices (batch, camera, row, column), ascending, int64.
    """
    if len(points) != len(cameras.cam2img):
        raise ValueError(
            f'points take one cloud for each of the '
            f'{len(cameras.cam2img)} samples, got {len(points)}'
        )
    size = cameras.image_sizes.new_tensor(render_size)
    found = []
    for i, cloud in enumerate(points):
        uv, depth = cameras.select(i).project(cloud[None, :, :3].to(cameras.cam2img))
        image_size = cameras.image_sizes[i][:, None]
        cell = (uv[0].flip(-1) * size / image_size).floor()  # row, column
        seen = (
            (depth[0] >= LIDAR_DEPTHS[0])
            & (depth[0] <= LIDAR_DEPTHS[1])
            & ((cell >= 0) & (cell < size)).all(-1)
        )
        camera = seen.nonzero()[:, 0]
        cell = cell[seen].long()
        found.append(
            ((i * len(seen) + camera) * render_size[0] + cell[:, 0]) * render_size[1] + cell[:, 1]
        )
    return torch.cat(found).unique()


def _draw_of(total: int, number: int, generator: Optional[torch.Generator]) -> Tensor:
    """``number`` of ``range(total)``, ascending."""
    if number >= total:
        return torch.arange(total)
    if number > total // 4:
        drawn = torch.randperm(total, generator=generator)[:number]
        return drawn.sort().values
    # Without a permutation of all pixels: draw until enough differ.
    drawn = torch.empty(0, dtype=torch.long)
    while len(drawn) < number:
        more = torch.randint(total, (number + number // 4 + 8,), generator=generator)
        drawn = torch.cat((drawn, more)).unique()
    spare = torch.randperm(len(drawn), generator=generator)[:number]
    return drawn[spare].sort().values


def _evenly(total: int, number: int, generator: Optional[torch.Generator]) -> Tensor:
    if number >= total:
        return torch.arange(total)
    start = torch.rand((), generator=generator, dtype=torch.float64)
    place = (torch.arange(number, dtype=torch.float64) + start) / number
    return (place * total).long().clamp_max(total - 1)


def _segment_balanced(
    segments: Tensor,
    render_size: Tuple[int, int],
    number: int,
    generator: Optional[torch.Generator],
) -> Tensor:
    batch, num_cameras = segments.shape[:2]
    row, column = (
        upload(((torch.arange(n) + 0.5) * size / n).long(), segments.device)
        for n, size in zip(render_size, segments.shape[2:])
    )
    # the one copy to the host: of the render's pixels, not of the maps
    ids = segments[:, :, row][..., column].cpu().long()
    image = torch.arange(batch * num_cameras).view(batch, num_cameras, 1, 1)
    group = ids + image * (int(ids.max()) + 1 if ids.numel() else 1)
    candidates = (ids > 0).flatten().nonzero().squeeze(1)
    group = group.flatten()[candidates]
    _, inverse, count = group.unique(return_inverse=True, return_counts=True)
    number = min(number, len(candidates))
    # Weighted draw without replacement (Efraimidis and Spirakis 2006): the
    # smallest of exponential numbers whose rate is the weight 1 / size.
    draw = torch.rand(len(candidates), generator=generator).clamp_min(1e-12)
    arrival = -draw.log() * count[inverse]
    chosen = arrival.topk(number, largest=False).indices
    return candidates[chosen].sort().values
