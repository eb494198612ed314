"""All outputs and gradients of a backend, for comparisons."""

import torch

from radocc_plugin.rendering import ray_kl, render, render_logits_pair, voxel_light

EXACT = dict(min_transmittance=0.0)


def everything(geometry, density, values, student, **options):
    """Outputs and gradients of a loss that needs all outputs: of a render, of
    a divergence, and of a teacher's and a student's logits together; the light
    of the voxels."""
    logits = values.flip(0)
    leaves = [x.clone().requires_grad_() for x in (density, values, student, logits)]
    teacher, own, divergence = render_logits_pair(
        values, leaves[3], geometry, density='softplus', **options
    )
    outputs = [
        *render(leaves[0], leaves[1], geometry, **options),
        ray_kl(density, leaves[2], geometry, **options),
        *own,
        divergence,
        *teacher,
    ]
    # By the other density, with some gradients that nothing asks for.
    _, seen, divergence = render_logits_pair(values, leaves[3], geometry, **options)
    outputs += [seen[1], divergence]
    generator = torch.Generator().manual_seed(9)
    loss = sum(
        (
            x.double() * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.device)
        ).sum()
        for x in outputs
    )
    return (
        [x.detach().double() for x in outputs]
        + [x.double() for x in torch.autograd.grad(loss, leaves)]
        + [x.double() for x in voxel_light(density, geometry, **options)]
    )
