"""Affinity of rendered semantics, grouped by image segments.

R rays, S groups (segments of all images of a batch), P pairs, C classes.
"""

from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from radocc_plugin.geometry import Rays
from radocc_plugin.losses.common import check_shape, connected_zero, distance, full_precision

# Rendered logits shorter than this saw next to nothing and have no direction;
# dividing by their length would blow up their gradient.
MIN_NORM = 1e-2
# Labels of an image that have a number: a stride that asks no map.
MAX_LABELS = 1 << 32


def group_rays(rays: Rays, segments: Tensor) -> Tuple[Tensor, Tensor]:
    """Segment and image of each ray, numbered over the whole batch.

    Args:
        rays: The rays.
        segments: Label maps of the raw images at any resolution, 0 = no
            segment, (B, N, h, w).

    Returns:
        Group, int64, -1 for rays without a segment, (R,); image, int64, (R,).

    Raises:
        ValueError: If ``segments`` has another shape.
    """
    label = rays.gather_maps(segments).long()
    image = rays.sample * segments.shape[1] + rays.camera
    group = image * MAX_LABELS + label
    return group.where(label > 0, -1), image


def sort_by_group(group: Tensor, min_rays: int) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rays segment by segment; the host waits once, for the number of segments.

    Args:
        group: Group of each ray, int64, negative for rays without one, (R,).
        min_rays: Groups with fewer rays are dropped.

    Returns:
        Rays by ascending group, (R,); row of the segment of each of these,
        S where it was dropped, (R,); place of the first ray of each segment
        among them, (S,); and the rays of each segment, (S,).
    """
    ordered, order = group.sort(stable=True)
    begins = torch.ones_like(ordered, dtype=torch.bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    number = begins.cumsum(0) - 1
    count = torch.zeros_like(group).index_add(0, number, torch.ones_like(group))[number]
    kept = (ordered >= 0) & (count >= min_rays)
    first = (begins & kept).nonzero().squeeze(1)
    row = ((begins & kept).cumsum(0) - 1).where(kept, len(first))
    return order, row, first, count[first]


def segment_means(features: Tensor, group: Tensor, min_rays: int = 1) -> Tuple[Tensor, Tensor]:
    """Mean feature of each group of rays.

    Args:
        features: Rendered semantics, (R, C).
        group: Group of each ray, int64, negative for rays without one, (R,).
        min_rays: Groups with fewer rays are dropped.

    Returns:
        Means, by ascending group, (S, C), and a ray of each, (S,).
    """
    order, row, first, count = sort_by_group(group, min_rays)
    total = features.new_zeros(len(first) + 1, features.shape[1])
    total = total.index_add(0, row, features.index_select(0, order))
    return total[: len(first)] / count[:, None], order[first]


def affinity(features: Tensor) -> Tensor:
    """Cosine similarity between all pairs of rows: (S, C) -> (S, S)."""
    normalised = F.normalize(features, dim=-1, eps=MIN_NORM)
    return normalised @ normalised.t()


def _check(student: Tensor, teacher: Tensor, group: Tensor) -> None:
    check_shape('teacher', teacher, student.shape, 'student')
    check_shape('group', group, student.shape[:1], 'student')


@full_precision
def segment_affinity_distance(
    student: Tensor,
    teacher: Tensor,
    group: Tensor,
    image: Tensor,
    min_rays: int = 2,
    kind: str = 'l1',
) -> Tensor:
    """Mean distance between the segment affinities of student and teacher.

    Rays are averaged over each segment; segments of one image are compared
    with each other.

    Args:
        student: Rendered semantics, (R, C).
        teacher: The same of the teacher, (R, C); detached.
        group: Segment of each ray, unique over images, negative for rays
            without a segment, (R,).
        image: Image of each ray, int64, (R,).
        min_rays: Segments with fewer rays are dropped.
        kind: ``'l1'`` or ``'l2'`` (squared).

    Returns:
        Scalar, mean over the pairs of segments; a connected zero where no
        image has two segments.

    Raises:
        ValueError: If shapes disagree or ``kind`` is unknown.

    RadOcc section 3.4 (segment-guided affinity distillation). The paper's
    norm is not known; L1 over the pairs of an image is our reading.
    """
    _check(student, teacher, group)
    check_shape('image', image, group.shape, 'group')
    both = torch.cat((student, teacher.detach().to(student.dtype)), dim=1)
    means, ray = segment_means(both, group, min_rays)
    if len(ray) < 2:
        return connected_zero(student)
    student_means, teacher_means = means.chunk(2, dim=1)
    image_of = image[ray]
    pair = image_of[:, None] == image_of[None]
    pair = pair & ~torch.eye(len(ray), dtype=torch.bool, device=pair.device)
    difference = affinity(student_means) - affinity(teacher_means)
    return (distance(difference, kind) * pair).sum() / pair.sum().clamp_min(1)


def draw_pairs(
    group: Tensor, min_rays: int, max_pairs: int, generator: torch.Generator
) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs of different rays inside each segment.

    A segment gives all its pairs if they are at most ``max_pairs``, else
    ``max_pairs`` drawn uniformly with replacement.

    Args:
        group: Segment of each ray, negative for rays without one, (R,).
        min_rays: Segments with fewer rays are dropped.
        max_pairs: Cap of the pairs of a segment.
        generator: CPU generator of the draw.

    Returns:
        Both rays of each pair, (P,) each; row of its segment, (P,); and the
        number of pairs of each segment, (S,).
    """
    order, _, first, count = sort_by_group(group, max(min_rays, 2))
    total = count * (count - 1) // 2
    pairs = total.clamp_max(max_pairs)
    row = torch.repeat_interleave(torch.arange(len(pairs), device=group.device), pairs)
    rank = torch.arange(len(row), device=group.device)
    rank = rank - (pairs.cumsum(0) - pairs)[row]
    drawn = torch.rand(len(row), generator=generator, dtype=torch.double)
    drawn = (drawn.to(group.device) * total[row]).long()
    rank = torch.where(total[row] > max_pairs, drawn, rank)
    # The rank counts (1,0), (2,0), (2,1), (3,0) ...; the root may round to
    # the neighbour.
    high = ((1 + (1 + 8 * rank.double()).sqrt()) / 2).long()
    high = high - (high * (high - 1) // 2 > rank).long()
    high = high + (high * (high + 1) // 2 <= rank).long()
    low = rank - high * (high - 1) // 2
    return order[first[row] + high], order[first[row] + low], row, pairs


@full_precision
def pixel_affinity_distance(
    student: Tensor,
    teacher: Tensor,
    group: Tensor,
    generator: torch.Generator,
    min_rays: int = 2,
    max_pairs: int = 256,
    kind: str = 'l1',
) -> Tensor:
    """Mean distance between the affinities of pixels inside a segment.

    Args:
        student: Rendered semantics, (R, C).
        teacher: The same of the teacher, (R, C); detached.
        group: Segment of each ray, unique over images, negative for rays
            without a segment, (R,).
        generator: CPU generator of the pairs of large segments.
        min_rays: Segments with fewer rays are dropped.
        max_pairs: Cap of the pairs of a segment.
        kind: ``'l1'`` or ``'l2'`` (squared).

    Returns:
        Scalar: mean over the pairs of a segment, then over segments; a
        connected zero where no segment has two rays.

    Raises:
        ValueError: If shapes disagree or ``kind`` is unknown.

    The abstract's "intra-segment similarity" read as between pixels.
    """
    _check(student, teacher, group)
    one, other, row, pairs = draw_pairs(group, min_rays, max_pairs, generator)
    if not len(pairs):
        return connected_zero(student)

    def cosine(features: Tensor) -> Tensor:
        features = F.normalize(features, dim=-1, eps=MIN_NORM)
        return (features.index_select(0, one) * features.index_select(0, other)).sum(-1)

    each = distance(cosine(student) - cosine(teacher.detach()), kind)
    return (each.new_zeros(len(pairs)).index_add(0, row, each) / pairs).mean()
