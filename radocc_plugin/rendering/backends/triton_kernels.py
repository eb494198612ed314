"""Triton kernels of the exact renderer; see ``cpp_source`` for the same in
plain loops.

A program walks BLOCK rays in step, one crossing each at a time. The grid is
part of what is compiled. R rays, V voxels, C channels.
"""

import triton
import triton.language as tl

# Those of functional.py.
MIN_HIT = tl.constexpr(1e-7)
MAX_OPTICAL_DEPTH = tl.constexpr(1e4)
INFINITY = tl.constexpr(float('inf'))
# Light is summed in these units, as integers: sums of integers do not depend
# on their order.
LIGHT_UNITS = tl.constexpr(2.0**32)


@triton.jit
def _axis(origin, direction, LOW: tl.constexpr, HIGH: tl.constexpr):
    """Where the ray parameter is inside the grid on one axis."""
    low = LOW - origin
    high = HIGH - origin
    still = direction == 0
    safe = tl.where(still, 1.0, direction)
    t0 = low / safe
    t1 = high / safe
    outside = still & ((low > 0) | (high <= 0))
    near = tl.where(still, 0.0, tl.minimum(t0, t1))
    far = tl.where(still, INFINITY, tl.maximum(t0, t1))
    return near, tl.where(outside, -1.0, far)


@triton.jit
def _planes(origin, direction, near, LOW: tl.constexpr, HIGH: tl.constexpr, CELLS: tl.constexpr):
    """First cell, and the arithmetic sequence of crossings, of one axis."""
    SIZE: tl.constexpr = (HIGH - LOW) / CELLS
    at = (origin + direction * near - LOW) / SIZE
    backward = direction < 0
    cell = tl.where(backward, tl.ceil(at) - 1, tl.floor(at))
    cell = tl.minimum(tl.maximum(cell, 0.0), CELLS - 1.0)
    still = direction == 0
    safe = tl.where(still, 1.0, direction)
    plane = tl.where(backward, cell, cell + 1)
    first = (plane * SIZE + LOW - origin) / safe
    period = SIZE / tl.abs(safe)
    count = tl.where(backward, cell, CELLS - 1.0 - cell)
    step = tl.where(backward, -1, 1)
    return (
        cell.to(tl.int64),
        first.to(tl.float32),
        period.to(tl.float32),
        tl.where(still, 0.0, count).to(tl.float32),
        step,
    )


@triton.jit
def _next(first, period, count, crossed):
    return tl.where(crossed < count, first + period * crossed, INFINITY)


@triton.jit
def _following(fx, px, cx, kx, fy, py, cy, ky, fz, pz, cz, kz):
    """Ray parameter of the next crossing: of x, of y, and of any axis."""
    next_x = _next(fx, px, cx, kx)
    next_y = _next(fy, py, cy, ky)
    next_z = _next(fz, pz, cz, kz)
    return next_x, next_y, tl.minimum(next_x, tl.minimum(next_y, next_z))


@triton.jit
def _advance(next_x, next_y, following, kx, ky, kz, voxel, step_x, step_y, step_z):
    """Crosses one plane: crossings so far on each axis, and the voxel."""
    is_x = next_x == following
    is_y = (next_y == following) & (is_x == 0)
    is_z = (is_x == 0) & (is_y == 0)
    voxel += tl.where(is_x, step_x, tl.where(is_y, step_y, step_z))
    return (kx + is_x.to(tl.float32), ky + is_y.to(tl.float32), kz + is_z.to(tl.float32), voxel)


@triton.jit
def _start(
    origins,
    directions,
    volumes,
    number,
    X0: tl.constexpr,
    Y0: tl.constexpr,
    Z0: tl.constexpr,
    X1: tl.constexpr,
    Y1: tl.constexpr,
    Z1: tl.constexpr,
    NX: tl.constexpr,
    NY: tl.constexpr,
    NZ: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Rays of a program and the state of their walk at the grid's entry.

    In float64, once a ray: where a ray is almost parallel to a plane, float32
    misses their crossing by a tenth of a millimetre.
    """
    ray = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = ray < number
    at = origins + 3 * ray
    ox = tl.load(at, mask=valid, other=0.0).to(tl.float64)
    oy = tl.load(at + 1, mask=valid, other=0.0).to(tl.float64)
    oz = tl.load(at + 2, mask=valid, other=0.0).to(tl.float64)
    at = directions + 3 * ray
    dx = tl.load(at, mask=valid, other=1.0).to(tl.float64)
    dy = tl.load(at + 1, mask=valid, other=1.0).to(tl.float64)
    dz = tl.load(at + 2, mask=valid, other=1.0).to(tl.float64)
    near_x, far_x = _axis(ox, dx, X0, X1)
    near_y, far_y = _axis(oy, dy, Y0, Y1)
    near_z, far_z = _axis(oz, dz, Z0, Z1)
    near = tl.maximum(tl.maximum(near_x, near_y), tl.maximum(near_z, 0.0))
    end = tl.minimum(far_x, tl.minimum(far_y, far_z))
    ix, fx, px, cx, tx = _planes(ox, dx, near, X0, X1, NX)
    iy, fy, py, cy, ty = _planes(oy, dy, near, Y0, Y1, NY)
    iz, fz, pz, cz, tz = _planes(oz, dz, near, Z0, Z1, NZ)
    volume = tl.load(volumes + ray, mask=valid, other=0)
    voxel = ((volume * NX + ix) * NY + iy) * NZ + iz
    speed = tl.sqrt(dx * dx + dy * dy + dz * dz).to(tl.float32)
    near = near.to(tl.float32)
    end = end.to(tl.float32)
    return (
        ray,
        valid,
        valid & (end > near),
        near,
        end,
        voxel,
        speed,
        fx,
        px,
        cx,
        tx * (NY * NZ),
        fy,
        py,
        cy,
        ty * NZ,
        fz,
        pz,
        cz,
        tz,
    )


@triton.jit
def _depth(density, length):
    """Optical depth of a crossing."""
    tau = density * length
    return tl.where(tau > MAX_OPTICAL_DEPTH, MAX_OPTICAL_DEPTH, tau)


@triton.jit
def _hit(tau):
    """1 - exp(-tau), by its series where it would cancel."""
    series = tau * (1 - tau / 2 * (1 - tau / 3 * (1 - tau / 4 * (1 - tau / 5))))
    return tl.where(tau > 0.1, 1 - tl.exp(-tau), series)


@triton.jit
def _mean(tau, hit):
    """h = (1 - (1 + tau) e^-tau) / tau, and dh / dtau."""
    safe = tl.maximum(tau, 0.1)
    mean = (hit - safe * (1 - hit)) / safe
    slope = 1 - hit - mean / safe
    mean_series = tau * (1 / 2 - tau * (1 / 3 - tau * (1 / 8 - tau / 30)))
    slope_series = 1 / 2 - tau * (2 / 3 - tau * (3 / 8 - tau * (2 / 15)))
    return (tl.where(tau > 0.1, mean, mean_series), tl.where(tau > 0.1, slope, slope_series))


@triton.jit
def voxel_light(
    density,
    entered,
    ended,
    origins,
    directions,
    volumes,
    number,
    stop,
    X0: tl.constexpr,
    Y0: tl.constexpr,
    Z0: tl.constexpr,
    X1: tl.constexpr,
    Y1: tl.constexpr,
    Z1: tl.constexpr,
    NX: tl.constexpr,
    NY: tl.constexpr,
    NZ: tl.constexpr,
    BLOCK: tl.constexpr,
):
    (
        ray,
        valid,
        alive,
        near,
        end,
        voxel,
        speed,
        fx,
        px,
        cx,
        step_x,
        fy,
        py,
        cy,
        step_y,
        fz,
        pz,
        cz,
        step_z,
    ) = _start(origins, directions, volumes, number, X0, Y0, Z0, X1, Y1, Z1, NX, NY, NZ, BLOCK)
    kx = tl.zeros((BLOCK,), tl.float32)
    ky = tl.zeros((BLOCK,), tl.float32)
    kz = tl.zeros((BLOCK,), tl.float32)
    left = tl.full((BLOCK,), 1.0, tl.float32)
    while tl.max(alive.to(tl.int32), axis=0) > 0:
        next_x, next_y, following = _following(fx, px, cx, kx, fy, py, cy, ky, fz, pz, cz, kz)
        far = tl.minimum(following, end)
        inside = alive & (far > near)
        sigma = tl.load(density + voxel, mask=inside, other=0.0)
        hit = _hit(_depth(sigma, tl.where(inside, (far - near) * speed, 0.0)))
        tl.atomic_add(
            entered + voxel, (left * LIGHT_UNITS).to(tl.int64), mask=inside, sem='relaxed'
        )
        tl.atomic_add(
            ended + voxel,
            (left * hit * LIGHT_UNITS).to(tl.int64),
            mask=inside & (hit > 0),
            sem='relaxed',
        )
        left *= 1 - hit
        near = tl.where(inside, far, near)
        alive = alive & (following < end) & (left > stop)
        kx, ky, kz, voxel = _advance(
            next_x, next_y, following, kx, ky, kz, voxel, step_x, step_y, step_z
        )


@triton.jit
def render(
    density,
    values,
    depth,
    rendered,
    no_hit,
    origins,
    directions,
    volumes,
    number,
    stop,
    X0: tl.constexpr,
    Y0: tl.constexpr,
    Z0: tl.constexpr,
    X1: tl.constexpr,
    Y1: tl.constexpr,
    Z1: tl.constexpr,
    NX: tl.constexpr,
    NY: tl.constexpr,
    NZ: tl.constexpr,
    BLOCK: tl.constexpr,
    C: tl.constexpr,
    C_PADDED: tl.constexpr,
):
    (
        ray,
        valid,
        alive,
        near,
        end,
        voxel,
        speed,
        fx,
        px,
        cx,
        step_x,
        fy,
        py,
        cy,
        step_y,
        fz,
        pz,
        cz,
        step_z,
    ) = _start(origins, directions, volumes, number, X0, Y0, Z0, X1, Y1, Z1, NX, NY, NZ, BLOCK)
    channel = tl.arange(0, C_PADDED)
    is_channel = channel < C
    kx = tl.zeros((BLOCK,), tl.float32)
    ky = tl.zeros((BLOCK,), tl.float32)
    kz = tl.zeros((BLOCK,), tl.float32)
    left = tl.full((BLOCK,), 1.0, tl.float32)
    where = tl.zeros((BLOCK,), tl.float32)
    total = tl.zeros((BLOCK, C_PADDED), tl.float32)
    while tl.max(alive.to(tl.int32), axis=0) > 0:
        next_x, next_y, following = _following(fx, px, cx, kx, fy, py, cy, ky, fz, pz, cz, kz)
        far = tl.minimum(following, end)
        inside = alive & (far > near)
        sigma = tl.load(density + voxel, mask=inside, other=0.0)
        tau = _depth(sigma, tl.where(inside, (far - near) * speed, 0.0))
        hit = _hit(tau)
        mean, _ = _mean(tau, hit)
        where += left * tl.where(inside, near * hit + (far - near) * mean, 0.0)
        weight = left * hit
        row = tl.load(
            values + voxel[:, None] * C + channel[None, :],
            mask=(weight > 0)[:, None] & is_channel[None, :],
            other=0.0,
        )
        total += weight[:, None] * row
        left *= 1 - hit
        near = tl.where(inside, far, near)
        alive = alive & (following < end) & (left > stop)
        kx, ky, kz, voxel = _advance(
            next_x, next_y, following, kx, ky, kz, voxel, step_x, step_y, step_z
        )
    tl.store(depth + ray, where, mask=valid)
    tl.store(no_hit + ray, left, mask=valid)
    tl.store(
        rendered + ray[:, None] * C + channel[None, :],
        total,
        mask=valid[:, None] & is_channel[None, :],
    )


@triton.jit
def render_backward(
    density,
    values,
    grad_depth,
    grad_rendered,
    total,
    grad_density,
    grad_values,
    origins,
    directions,
    volumes,
    number,
    stop,
    X0: tl.constexpr,
    Y0: tl.constexpr,
    Z0: tl.constexpr,
    X1: tl.constexpr,
    Y1: tl.constexpr,
    Z1: tl.constexpr,
    NX: tl.constexpr,
    NY: tl.constexpr,
    NZ: tl.constexpr,
    BLOCK: tl.constexpr,
    C: tl.constexpr,
    C_PADDED: tl.constexpr,
):
    (
        ray,
        valid,
        alive,
        near,
        end,
        voxel,
        speed,
        fx,
        px,
        cx,
        step_x,
        fy,
        py,
        cy,
        step_y,
        fz,
        pz,
        cz,
        step_z,
    ) = _start(origins, directions, volumes, number, X0, Y0, Z0, X1, Y1, Z1, NX, NY, NZ, BLOCK)
    channel = tl.arange(0, C_PADDED)
    is_channel = channel < C
    g_depth = tl.load(grad_depth + ray, mask=valid, other=0.0)
    grad = tl.load(
        grad_rendered + ray[:, None] * C + channel[None, :],
        mask=valid[:, None] & is_channel[None, :],
        other=0.0,
    )
    # What lies at or behind the crossing is worth to the loss.
    behind = tl.load(total + ray, mask=valid, other=0.0)
    kx = tl.zeros((BLOCK,), tl.float32)
    ky = tl.zeros((BLOCK,), tl.float32)
    kz = tl.zeros((BLOCK,), tl.float32)
    left = tl.full((BLOCK,), 1.0, tl.float32)
    while tl.max(alive.to(tl.int32), axis=0) > 0:
        next_x, next_y, following = _following(fx, px, cx, kx, fy, py, cy, ky, fz, pz, cz, kz)
        far = tl.minimum(following, end)
        inside = alive & (far > near)
        length = (far - near) * speed
        sigma = tl.load(density + voxel, mask=inside, other=0.0)
        tau = _depth(sigma, tl.where(inside, length, 0.0))
        hit = _hit(tau)
        mean, slope = _mean(tau, hit)
        row = tl.load(
            values + voxel[:, None] * C + channel[None, :],
            mask=inside[:, None] & is_channel[None, :],
            other=0.0,
        )
        worth = tl.sum(grad * row, axis=1)
        weight = left * hit
        extent = tl.where(inside, far - near, 0.0)
        behind -= weight * worth + g_depth * left * (
            tl.where(inside, near, 0.0) * hit + extent * mean
        )
        grad_tau = (
            left * ((1 - hit) * worth + g_depth * (near * (1 - hit) + extent * slope)) - behind
        )
        tl.atomic_add(grad_density + voxel, grad_tau * length, mask=inside, sem='relaxed')
        tl.atomic_add(
            grad_values + voxel[:, None] * C + channel[None, :],
            weight[:, None] * grad,
            mask=(inside & (weight > 0))[:, None] & is_channel[None, :],
            sem='relaxed',
        )
        left *= 1 - hit
        near = tl.where(inside, far, near)
        alive = alive & (following < end) & (left > stop)
        kx, ky, kz, voxel = _advance(
            next_x, next_y, following, kx, ky, kz, voxel, step_x, step_y, step_z
        )


@triton.jit
def ray_kl(
    teacher,
    student,
    divergence,
    origins,
    directions,
    volumes,
    number,
    stop,
    X0: tl.constexpr,
    Y0: tl.constexpr,
    Z0: tl.constexpr,
    X1: tl.constexpr,
    Y1: tl.constexpr,
    Z1: tl.constexpr,
    NX: tl.constexpr,
    NY: tl.constexpr,
    NZ: tl.constexpr,
    BLOCK: tl.constexpr,
):
    (
        ray,
        valid,
        alive,
        near,
        end,
        voxel,
        speed,
        fx,
        px,
        cx,
        step_x,
        fy,
        py,
        cy,
        step_y,
        fz,
        pz,
        cz,
        step_z,
    ) = _start(origins, directions, volumes, number, X0, Y0, Z0, X1, Y1, Z1, NX, NY, NZ, BLOCK)
    kx = tl.zeros((BLOCK,), tl.float32)
    ky = tl.zeros((BLOCK,), tl.float32)
    kz = tl.zeros((BLOCK,), tl.float32)
    left = tl.full((BLOCK,), 1.0, tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    while tl.max(alive.to(tl.int32), axis=0) > 0:
        next_x, next_y, following = _following(fx, px, cx, kx, fy, py, cy, ky, fz, pz, cz, kz)
        far = tl.minimum(following, end)
        inside = alive & (far > near)
        length = tl.where(inside, (far - near) * speed, 0.0)
        tau = _depth(tl.load(teacher + voxel, mask=inside, other=0.0), length)
        own = _depth(tl.load(student + voxel, mask=inside, other=0.0), length)
        hit = _hit(tau)
        target = tl.maximum(hit, MIN_HIT)
        ratio = target / tl.maximum(_hit(own), MIN_HIT)
        total += left * (target * tl.log(ratio) + (1 - hit) * (own - tau))
        left *= 1 - hit
        near = tl.where(inside, far, near)
        alive = alive & (following < end) & (left > stop)
        kx, ky, kz, voxel = _advance(
            next_x, next_y, following, kx, ky, kz, voxel, step_x, step_y, step_z
        )
    tl.store(divergence + ray, total, mask=valid)


@triton.jit
def ray_kl_backward(
    teacher,
    student,
    grad,
    grad_density,
    origins,
    directions,
    volumes,
    number,
    stop,
    X0: tl.constexpr,
    Y0: tl.constexpr,
    Z0: tl.constexpr,
    X1: tl.constexpr,
    Y1: tl.constexpr,
    Z1: tl.constexpr,
    NX: tl.constexpr,
    NY: tl.constexpr,
    NZ: tl.constexpr,
    BLOCK: tl.constexpr,
):
    (
        ray,
        valid,
        alive,
        near,
        end,
        voxel,
        speed,
        fx,
        px,
        cx,
        step_x,
        fy,
        py,
        cy,
        step_y,
        fz,
        pz,
        cz,
        step_z,
    ) = _start(origins, directions, volumes, number, X0, Y0, Z0, X1, Y1, Z1, NX, NY, NZ, BLOCK)
    scale = tl.load(grad + ray, mask=valid, other=0.0)
    kx = tl.zeros((BLOCK,), tl.float32)
    ky = tl.zeros((BLOCK,), tl.float32)
    kz = tl.zeros((BLOCK,), tl.float32)
    left = tl.full((BLOCK,), 1.0, tl.float32)
    while tl.max(alive.to(tl.int32), axis=0) > 0:
        next_x, next_y, following = _following(fx, px, cx, kx, fy, py, cy, ky, fz, pz, cz, kz)
        far = tl.minimum(following, end)
        inside = alive & (far > near)
        length = tl.where(inside, (far - near) * speed, 0.0)
        tau = _depth(tl.load(teacher + voxel, mask=inside, other=0.0), length)
        own = _depth(tl.load(student + voxel, mask=inside, other=0.0), length)
        hit = _hit(tau)
        target = tl.maximum(hit, MIN_HIT)
        own_hit = _hit(own)
        pull = target * (1 - own_hit) / tl.maximum(own_hit, MIN_HIT)
        tl.atomic_add(
            grad_density + voxel,
            left * (1 - hit - pull) * length * scale,
            mask=inside,
            sem='relaxed',
        )
        left *= 1 - hit
        near = tl.where(inside, far, near)
        alive = alive & (following < end) & (left > stop)
        kx, ky, kz, voxel = _advance(
            next_x, next_y, following, kx, ky, kz, voxel, step_x, step_y, step_z
        )


@triton.jit
def _log1p(x):
    """log(1 + x) for x >= 0, by its series where it would cancel."""
    series = x * (1 - x * (1 / 2 - x * (1 / 3 - x * (1 / 4 - x * (1 / 5 - x / 6)))))
    return tl.where(x > 0.1, tl.log(1 + x), series)


@triton.jit
def _classes(logits, voxel, valid, FREE: tl.constexpr, C: tl.constexpr, C_PADDED: tl.constexpr):
    """Logits of voxels, where they are and which of them exist, which is the
    free one, it, and the log of the sum of the others' exponentials."""
    channel = tl.arange(0, C_PADDED)
    place = voxel[:, None] * C + channel[None, :]
    known = valid[:, None] & (channel < C)[None, :]
    row = tl.load(logits + place, mask=known, other=-INFINITY)
    is_free = (channel == FREE)[None, :]
    free = tl.load(logits + voxel * C + FREE, mask=valid, other=0.0)
    others = tl.where(is_free, -INFINITY, row)
    top = tl.max(others, axis=1)
    top = tl.where(top > -INFINITY, top, 0.0)
    occupied = tl.log(tl.sum(tl.exp(others - top[:, None]), axis=1)) + top
    return row, place, known, is_free, free, occupied


@triton.jit
def free_density(
    logits,
    density,
    number,
    scale,
    FREE: tl.constexpr,
    C: tl.constexpr,
    C_PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """-log p(free) * scale."""
    voxel = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    valid = voxel < number
    _, _, _, _, free, occupied = _classes(logits, voxel, valid, FREE, C, C_PADDED)
    odds = occupied - free
    nats = tl.maximum(odds, 0.0) + _log1p(tl.exp(-tl.abs(odds)))
    tl.store(density + voxel, nats * scale, mask=valid)


@triton.jit
def add_free_density_gradient(
    grad_logits,
    grad_density,
    logits,
    number,
    scale,
    FREE: tl.constexpr,
    C: tl.constexpr,
    C_PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Adds what the gradient of the density means for the logits; those of
    voxels that have none are not even read."""
    voxel = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    grad = tl.load(grad_density + voxel, mask=voxel < number, other=0.0)
    grad *= scale
    row, place, known, is_free, free, occupied = _classes(
        logits, voxel, grad != 0, FREE, C, C_PADDED
    )
    total = tl.maximum(occupied, free) + _log1p(tl.exp(-tl.abs(occupied - free)))
    # of the free class minus the sum of the others, which cancels less
    slope = tl.where(is_free, -tl.exp(occupied - total)[:, None], tl.exp(row - total[:, None]))
    own = tl.load(grad_logits + place, mask=known, other=0.0)
    tl.store(grad_logits + place, own + grad[:, None] * slope, mask=known)


@triton.jit
def light_of_units(units, density, entered, ended, number, BLOCK: tl.constexpr):
    """Float light of integer sums (2, V); not a number where density is."""
    voxel = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    valid = voxel < number
    sigma = tl.load(density + voxel, mask=valid, other=0.0)
    known = sigma == sigma
    for part in tl.static_range(2):
        light = tl.load(units + part * number + voxel, mask=valid, other=0)
        light = (light.to(tl.float64) / LIGHT_UNITS).to(tl.float32)
        tl.store(
            (entered if part == 0 else ended) + voxel, tl.where(known, light, sigma), mask=valid
        )
