"""Triton kernels of the exact renderer; see ``cpp_source`` for the same in
plain loops.

A block of BLOCK rays walks in step, one crossing each at a time. R rays, V
voxels, C channels.
"""
import triton
import triton.language as tl

# Those of functional.py.
MIN_HIT = tl.constexpr(1e-7)
MAX_OPTICAL_DEPTH = tl.constexpr(1e4)
INFINITY = tl.constexpr(float('inf'))


@triton.jit
def _axis(origin, direction, minimum, maximum):
    """Where the ray parameter is inside the grid on one axis."""
    low = minimum - origin
    high = maximum - origin
    still = direction == 0
    safe = tl.where(still, 1.0, direction)
    t0 = low / safe
    t1 = high / safe
    outside = still & ((low > 0) | (high <= 0))
    near = tl.where(still, 0.0, tl.minimum(t0, t1))
    far = tl.where(still, INFINITY, tl.maximum(t0, t1))
    return near, tl.where(outside, -1.0, far)


@triton.jit
def _planes(origin, direction, near, minimum, maximum, cells):
    """First cell, and the arithmetic sequence of crossings, of one axis."""
    size = (maximum - minimum) / cells
    at = (origin + direction * near - minimum) / size
    backward = direction < 0
    cell = tl.where(backward, tl.ceil(at) - 1, tl.floor(at))
    cell = tl.minimum(tl.maximum(cell, 0.0), cells - 1.0)
    still = direction == 0
    safe = tl.where(still, 1.0, direction)
    plane = tl.where(backward, cell, cell + 1)
    first = (minimum + plane * size - origin) / safe
    period = size / tl.abs(safe)
    count = tl.where(backward, cell, cells - 1.0 - cell)
    step = tl.where(backward, -1, 1)
    return cell.to(tl.int64), first, period, tl.where(still, 0.0, count), step


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
def _advance(next_x, next_y, following, kx, ky, kz, voxel, step_x, step_y,
             step_z):
    """Crosses one plane: crossings so far on each axis, and the voxel."""
    is_x = next_x == following
    is_y = (next_y == following) & (is_x == 0)
    is_z = (is_x == 0) & (is_y == 0)
    voxel += tl.where(is_x, step_x, tl.where(is_y, step_y, step_z))
    return (kx + is_x.to(tl.float32), ky + is_y.to(tl.float32),
            kz + is_z.to(tl.float32), voxel)


@triton.jit
def _rays(order, number, BLOCK: tl.constexpr):
    """Rays of this program, which are neighbours, and which of them exist."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = place < number
    return tl.load(order + place, mask=valid, other=0), valid


@triton.jit
def _start(origins, directions, volumes, ray, valid, x0, y0, z0, x1, y1, z1,
           nx, ny, nz):
    """State of the walk at the grid's entry."""
    ox = tl.load(origins + 3 * ray, mask=valid, other=0.0)
    oy = tl.load(origins + 3 * ray + 1, mask=valid, other=0.0)
    oz = tl.load(origins + 3 * ray + 2, mask=valid, other=0.0)
    dx = tl.load(directions + 3 * ray, mask=valid, other=1.0)
    dy = tl.load(directions + 3 * ray + 1, mask=valid, other=1.0)
    dz = tl.load(directions + 3 * ray + 2, mask=valid, other=1.0)
    volume = tl.load(volumes + ray, mask=valid, other=0)
    near_x, far_x = _axis(ox, dx, x0, x1)
    near_y, far_y = _axis(oy, dy, y0, y1)
    near_z, far_z = _axis(oz, dz, z0, z1)
    near = tl.maximum(tl.maximum(near_x, near_y), tl.maximum(near_z, 0.0))
    end = tl.minimum(far_x, tl.minimum(far_y, far_z))
    ix, fx, px, cx, tx = _planes(ox, dx, near, x0, x1, nx)
    iy, fy, py, cy, ty = _planes(oy, dy, near, y0, y1, ny)
    iz, fz, pz, cz, tz = _planes(oz, dz, near, z0, z1, nz)
    voxel = ((volume * nx + ix) * ny + iy) * nz + iz
    speed = tl.sqrt(dx * dx + dy * dy + dz * dz)
    return (near, end, voxel, speed, fx, px, cx, tx * ny * nz, fy, py, cy,
            ty * nz, fz, pz, cz, tz)


@triton.jit
def _depth(density, length):
    """Optical depth of a crossing."""
    tau = density * length
    return tl.where(tau > MAX_OPTICAL_DEPTH, MAX_OPTICAL_DEPTH, tau)


@triton.jit
def _hit(tau):
    """1 - exp(-tau), by its series where it would cancel."""
    series = tau * (1 - tau / 2 * (1 - tau / 3 * (1 - tau / 4 *
                                                  (1 - tau / 5))))
    return tl.where(tau > 0.1, 1 - tl.exp(-tau), series)


@triton.jit
def _mean(tau, hit):
    """h = (1 - (1 + tau) e^-tau) / tau, and dh / dtau."""
    safe = tl.maximum(tau, 0.1)
    mean = (hit - safe * (1 - hit)) / safe
    slope = 1 - hit - mean / safe
    mean_series = tau * (1 / 2 - tau * (1 / 3 - tau * (1 / 8 - tau / 30)))
    slope_series = 1 / 2 - tau * (2 / 3 - tau * (3 / 8 - tau * (2 / 15)))
    return (tl.where(tau > 0.1, mean, mean_series),
            tl.where(tau > 0.1, slope, slope_series))


@triton.jit
def voxel_light(density, entered, ended, order, origins, directions, volumes,
                number, x0, y0, z0, x1, y1, z1, nx, ny, nz, stop,
                BLOCK: tl.constexpr):
    ray, valid = _rays(order, number, BLOCK)
    (near, end, voxel, speed, fx, px, cx, step_x, fy, py, cy, step_y, fz, pz,
     cz, step_z) = _start(origins, directions, volumes, ray, valid, x0, y0,
                          z0, x1, y1, z1, nx, ny, nz)
    kx = tl.zeros((BLOCK, ), tl.float32)
    ky = tl.zeros((BLOCK, ), tl.float32)
    kz = tl.zeros((BLOCK, ), tl.float32)
    left = tl.full((BLOCK, ), 1.0, tl.float32)
    alive = valid & (end > near)
    while tl.max(alive.to(tl.int32), axis=0) > 0:
        next_x, next_y, following = _following(fx, px, cx, kx, fy, py, cy, ky,
                                               fz, pz, cz, kz)
        far = tl.minimum(following, end)
        inside = alive & (far > near)
        sigma = tl.load(density + voxel, mask=inside, other=0.0)
        hit = _hit(_depth(sigma, tl.where(inside, (far - near) * speed, 0.0)))
        tl.atomic_add(entered + voxel, left, mask=inside, sem='relaxed')
        tl.atomic_add(ended + voxel, left * hit, mask=inside & (hit != 0),
                      sem='relaxed')
        left *= 1 - hit
        near = tl.where(inside, far, near)
        alive = alive & (following < end) & ((left <= stop) == 0)
        kx, ky, kz, voxel = _advance(next_x, next_y, following, kx, ky, kz,
                                     voxel, step_x, step_y, step_z)


@triton.jit
def render(density, values, depth, rendered, no_hit, order, origins,
           directions, volumes, number, x0, y0, z0, x1, y1, z1, nx, ny, nz,
           stop, cut, C: tl.constexpr, C_PADDED: tl.constexpr,
           BLOCK: tl.constexpr):
    ray, valid = _rays(order, number, BLOCK)
    (near, end, voxel, speed, fx, px, cx, step_x, fy, py, cy, step_y, fz, pz,
     cz, step_z) = _start(origins, directions, volumes, ray, valid, x0, y0,
                          z0, x1, y1, z1, nx, ny, nz)
    channel = tl.arange(0, C_PADDED)
    is_channel = channel < C
    kx = tl.zeros((BLOCK, ), tl.float32)
    ky = tl.zeros((BLOCK, ), tl.float32)
    kz = tl.zeros((BLOCK, ), tl.float32)
    left = tl.full((BLOCK, ), 1.0, tl.float32)
    where = tl.zeros((BLOCK, ), tl.float32)
    total = tl.zeros((BLOCK, C_PADDED), tl.float32)
    alive = valid & (end > near)
    while tl.max(alive.to(tl.int32), axis=0) > 0:
        next_x, next_y, following = _following(fx, px, cx, kx, fy, py, cy, ky,
                                               fz, pz, cz, kz)
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
            mask=(weight > cut)[:, None] & is_channel[None, :],
            other=0.0)
        total += weight[:, None] * row
        left *= 1 - hit
        near = tl.where(inside, far, near)
        alive = alive & (following < end) & (left > stop)
        kx, ky, kz, voxel = _advance(next_x, next_y, following, kx, ky, kz,
                                     voxel, step_x, step_y, step_z)
    tl.store(depth + ray, where, mask=valid)
    tl.store(no_hit + ray, left, mask=valid)
    tl.store(
        rendered + ray[:, None] * C + channel[None, :],
        total,
        mask=valid[:, None] & is_channel[None, :])


@triton.jit
def render_backward(density, values, grad_depth, grad_rendered, total,
                    grad_density, grad_values, order, origins, directions,
                    volumes, number, x0, y0, z0, x1, y1, z1, nx, ny, nz, stop,
                    cut, C: tl.constexpr, C_PADDED: tl.constexpr,
                    BLOCK: tl.constexpr):
    ray, valid = _rays(order, number, BLOCK)
    (near, end, voxel, speed, fx, px, cx, step_x, fy, py, cy, step_y, fz, pz,
     cz, step_z) = _start(origins, directions, volumes, ray, valid, x0, y0,
                          z0, x1, y1, z1, nx, ny, nz)
    channel = tl.arange(0, C_PADDED)
    is_channel = channel < C
    g_depth = tl.load(grad_depth + ray, mask=valid, other=0.0)
    grad = tl.load(
        grad_rendered + ray[:, None] * C + channel[None, :],
        mask=valid[:, None] & is_channel[None, :],
        other=0.0)
    # What lies at or behind the crossing is worth to the loss.
    behind = tl.load(total + ray, mask=valid, other=0.0)
    kx = tl.zeros((BLOCK, ), tl.float32)
    ky = tl.zeros((BLOCK, ), tl.float32)
    kz = tl.zeros((BLOCK, ), tl.float32)
    left = tl.full((BLOCK, ), 1.0, tl.float32)
    alive = valid & (end > near)
    while tl.max(alive.to(tl.int32), axis=0) > 0:
        next_x, next_y, following = _following(fx, px, cx, kx, fy, py, cy, ky,
                                               fz, pz, cz, kz)
        far = tl.minimum(following, end)
        inside = alive & (far > near)
        length = (far - near) * speed
        sigma = tl.load(density + voxel, mask=inside, other=0.0)
        tau = _depth(sigma, tl.where(inside, length, 0.0))
        hit = _hit(tau)
        mean, slope = _mean(tau, hit)
        weight = left * hit
        row = tl.load(
            values + voxel[:, None] * C + channel[None, :],
            mask=inside[:, None] & is_channel[None, :],
            other=0.0)
        worth = tl.sum(grad * row, axis=1)
        extent = tl.where(inside, far - near, 0.0)
        behind -= weight * worth + g_depth * left * (
            tl.where(inside, near, 0.0) * hit + extent * mean)
        grad_tau = left * ((1 - hit) * worth + g_depth *
                           (near * (1 - hit) + extent * slope)) - behind
        tl.atomic_add(grad_density + voxel, grad_tau * length, mask=inside,
                      sem='relaxed')
        tl.atomic_add(
            grad_values + voxel[:, None] * C + channel[None, :],
            weight[:, None] * grad,
            mask=(inside & (weight > cut))[:, None] & is_channel[None, :],
            sem='relaxed')
        left *= 1 - hit
        near = tl.where(inside, far, near)
        alive = alive & (following < end) & (left > stop)
        kx, ky, kz, voxel = _advance(next_x, next_y, following, kx, ky, kz,
                                     voxel, step_x, step_y, step_z)


@triton.jit
def ray_kl(teacher, student, divergence, order, origins, directions, volumes,
           number, x0, y0, z0, x1, y1, z1, nx, ny, nz, stop,
           BLOCK: tl.constexpr):
    ray, valid = _rays(order, number, BLOCK)
    (near, end, voxel, speed, fx, px, cx, step_x, fy, py, cy, step_y, fz, pz,
     cz, step_z) = _start(origins, directions, volumes, ray, valid, x0, y0,
                          z0, x1, y1, z1, nx, ny, nz)
    kx = tl.zeros((BLOCK, ), tl.float32)
    ky = tl.zeros((BLOCK, ), tl.float32)
    kz = tl.zeros((BLOCK, ), tl.float32)
    left = tl.full((BLOCK, ), 1.0, tl.float32)
    total = tl.zeros((BLOCK, ), tl.float32)
    alive = valid & (end > near)
    while tl.max(alive.to(tl.int32), axis=0) > 0:
        next_x, next_y, following = _following(fx, px, cx, kx, fy, py, cy, ky,
                                               fz, pz, cz, kz)
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
        kx, ky, kz, voxel = _advance(next_x, next_y, following, kx, ky, kz,
                                     voxel, step_x, step_y, step_z)
    tl.store(divergence + ray, total, mask=valid)


@triton.jit
def ray_kl_backward(teacher, student, grad, grad_density, order, origins,
                    directions, volumes, number, x0, y0, z0, x1, y1, z1, nx,
                    ny, nz, stop, BLOCK: tl.constexpr):
    ray, valid = _rays(order, number, BLOCK)
    (near, end, voxel, speed, fx, px, cx, step_x, fy, py, cy, step_y, fz, pz,
     cz, step_z) = _start(origins, directions, volumes, ray, valid, x0, y0,
                          z0, x1, y1, z1, nx, ny, nz)
    scale = tl.load(grad + ray, mask=valid, other=0.0)
    kx = tl.zeros((BLOCK, ), tl.float32)
    ky = tl.zeros((BLOCK, ), tl.float32)
    kz = tl.zeros((BLOCK, ), tl.float32)
    left = tl.full((BLOCK, ), 1.0, tl.float32)
    alive = valid & (end > near)
    while tl.max(alive.to(tl.int32), axis=0) > 0:
        next_x, next_y, following = _following(fx, px, cx, kx, fy, py, cy, ky,
                                               fz, pz, cz, kz)
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
            sem='relaxed')
        left *= 1 - hit
        near = tl.where(inside, far, near)
        alive = alive & (following < end) & (left > stop)
        kx, ky, kz, voxel = _advance(next_x, next_y, following, kx, ky, kz,
                                     voxel, step_x, step_y, step_z)
