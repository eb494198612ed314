"""All outputs and gradients of a backend, for comparisons."""
import torch

from radocc_plugin.rendering import ray_kl, render

EXACT = dict(min_transmittance=0.)


def everything(geometry, density, values, student, **options):
    """Outputs and gradients of a loss that needs all outputs."""
    leaves = [x.clone().requires_grad_() for x in (density, values, student)]
    outputs = [
        *render(leaves[0], leaves[1], geometry, **options),
        ray_kl(density, leaves[2], geometry, **options)
    ]
    generator = torch.Generator().manual_seed(9)
    loss = sum((x.double() * torch.randn(
        x.shape, generator=generator, dtype=torch.float64)).sum()
               for x in outputs)
    return [x.detach().double() for x in outputs] + [
        x.double() for x in torch.autograd.grad(loss, leaves)
    ]
