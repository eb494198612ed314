import pytest
import torch
import torch.nn.functional as F

from radocc_plugin.losses import masked_cross_entropy


def volume(seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(
        2, 4, 3, 2, 5, generator=generator, requires_grad=True)
    labels = torch.randint(0, 5, (2, 4, 3, 2), generator=generator)
    mask = torch.rand(2, 4, 3, 2, generator=generator) < 0.5
    return logits, labels.to(torch.uint8), mask


@pytest.mark.parametrize('weighted', [False, True])
def test_equals_the_weighted_sum_over_visible_voxels(weighted):
    logits, labels, mask = volume()
    weight = torch.rand(5) if weighted else None
    each = F.cross_entropy(
        logits.flatten(0, -2),
        labels.flatten().long(),
        weight=weight,
        reduction='none')
    counted = torch.ones(5) if weight is None else weight
    divisor = counted[labels[mask].long()].sum()
    expected = (each * mask.flatten()).sum() / divisor
    loss = masked_cross_entropy(logits, labels, mask, weight)
    torch.testing.assert_close(loss, expected)


def test_hidden_voxels_get_no_gradient():
    logits, labels, mask = volume()
    masked_cross_entropy(logits, labels, mask).backward()
    assert bool((logits.grad[~mask] == 0).all())
    assert bool((logits.grad[mask] != 0).any(-1).all())


def test_empty_mask_is_a_connected_zero():
    logits, labels, mask = volume()
    loss = masked_cross_entropy(logits, labels, torch.zeros_like(mask))
    loss.backward()
    assert float(loss) == 0 and bool((logits.grad == 0).all())


@pytest.mark.parametrize('field', ['labels', 'mask'])
def test_wrong_shapes_are_named(field):
    logits, labels, mask = volume()
    arguments = dict(labels=labels, mask=mask)
    arguments[field] = arguments[field][:1]
    with pytest.raises(ValueError, match=field):
        masked_cross_entropy(logits, **arguments)
