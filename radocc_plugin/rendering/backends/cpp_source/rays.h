// Rays, the walk through the grid, and how gradients are gathered.
#pragma once
#include <ATen/Parallel.h>
#include <torch/extension.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace {

using torch::Tensor;

constexpr double kMinLength = 1e-9;  // geometry.traversal
constexpr int64_t kBlock = 64;       // rays whose items are listed at once
constexpr int64_t kAhead = 8;        // items

struct Grid {
  double minimum[3], maximum[3], size[3];
  int64_t shape[3];
  int64_t voxels() const { return shape[0] * shape[1] * shape[2]; }
};

Grid make_grid(const std::vector<double>& range,
               const std::vector<int64_t>& shape) {
  Grid grid;
  for (int a = 0; a < 3; ++a) {
    grid.minimum[a] = range[a];
    grid.maximum[a] = range[a + 3];
    grid.size[a] = (range[a + 3] - range[a]) / shape[a];
    grid.shape[a] = shape[a];
  }
  return grid;
}

// The planes that a ray crosses inside the grid on one axis: an arithmetic
// sequence, so that no error adds up along the ray. `next` and the one behind
// it are kept, so that a step of the walk waits for no arithmetic.
struct Planes {
  double first = 0, period = 0, count = 0, crossed = 0;
  double next = std::numeric_limits<double>::infinity(), after = next;
  int64_t stride = 0;

  double at(double index) const {
    return index < count ? first + period * index
                         : std::numeric_limits<double>::infinity();
  }
  void start() {
    next = at(0);
    after = at(1);
  }
  void cross(bool crosses) {
    next = crosses ? after : next;
    crossed += crosses;
    after = at(crossed + 1);
  }
};

// Calls visit(voxel, near, far) for each crossed voxel, nearest first, until
// it returns false (Amanatides and Woo 1987). The same formulas as
// geometry.traversal.
template <typename Visit>
inline void walk(const Grid& grid, const float* origin, const float* direction,
                 int64_t volume, Visit&& visit) {
  double near = 0, end = std::numeric_limits<double>::infinity();
  for (int a = 0; a < 3; ++a) {
    const double low = grid.minimum[a] - origin[a];
    const double high = grid.maximum[a] - origin[a];
    if (direction[a] == 0) {
      if (low > 0 || high <= 0) return;
      continue;
    }
    const double t0 = low / direction[a], t1 = high / direction[a];
    near = std::max(near, std::min(t0, t1));
    end = std::min(end, std::max(t0, t1));
  }
  if (!(end > near)) return;

  Planes planes[3];
  int64_t voxel = volume, stride = grid.voxels();
  for (int a = 0; a < 3; ++a) {
    const int64_t last = grid.shape[a] - 1;
    const double at =
        (origin[a] + direction[a] * near - grid.minimum[a]) / grid.size[a];
    const bool backward = direction[a] < 0;
    const int64_t cell = std::min(
        std::max<int64_t>((int64_t)(backward ? std::ceil(at) - 1
                                             : std::floor(at)), 0), last);
    stride /= grid.shape[a];
    voxel = voxel * grid.shape[a] + cell;
    if (direction[a] == 0) continue;
    const int64_t plane = backward ? cell : cell + 1;
    planes[a].first =
        (grid.minimum[a] + plane * grid.size[a] - origin[a]) / direction[a];
    planes[a].period = grid.size[a] / std::abs((double)direction[a]);
    planes[a].count = backward ? cell : last - cell;
    planes[a].stride = backward ? -stride : stride;
    planes[a].start();
  }
  Planes x = planes[0], y = planes[1], z = planes[2];
  while (true) {
    const double next = std::min(std::min(x.next, y.next), z.next);
    const double far = std::min(next, end);
    if (far - near > kMinLength) {
      if (!visit(voxel, near, far)) return;
      near = far;
    }
    if (!(next < end)) return;
    // No branches: which plane comes next is hard to predict.
    const bool is_x = x.next == next, is_y = !is_x & (y.next == next);
    const bool is_z = !is_x & !is_y;
    voxel += is_x * x.stride + is_y * y.stride + is_z * z.stride;
    x.cross(is_x);
    y.cross(is_y);
    z.cross(is_z);
  }
}

// functional.MAX_OPTICAL_DEPTH; not a number stays one.
template <typename T>
inline T optical_depth(T density, double length) {
  const T tau = density * T(length);
  return tau > T(1e4) ? T(1e4) : tau;
}

// Below it, series replace closed forms.
template <typename T>
constexpr T limit_of() {
  return sizeof(T) == 4 ? T(0.1) : T(0.01);
}

// 1 - e^-tau without cancellation, and far cheaper than expm1 where tau is
// small, as it is in most of the free space.
template <typename T>
inline T hit_of(T tau) {
  if (tau > limit_of<T>()) return 1 - std::exp(-tau);
  return tau * (1 - tau * (T(1. / 2) - tau * (T(1. / 6) - tau * (T(1. / 24) -
         tau * (T(1. / 120) - tau * T(1. / 720))))));
}

// Calls run with the channel count as a constant where it is Occ3D's, so that
// the loops over channels unroll.
template <typename Run>
void with_channels(int64_t channels, Run&& run) {
  if (channels == 18)
    run(std::integral_constant<int64_t, 18>());
  else
    run(channels);
}

// Sum of products in eight lanes: one accumulator would wait for each addition.
template <typename T, typename Channels>
inline T dot(const T* a, const T* b, Channels channels) {
  T lane[8] = {};
  int64_t c = 0;
  for (; c + 8 <= channels; c += 8)
    for (int k = 0; k < 8; ++k) lane[k] += a[c + k] * b[c + k];
  T rest = 0;
  for (; c < channels; ++c) rest += a[c] * b[c];
  for (int k = 0; k < 4; ++k) lane[k] += lane[k + 4];
  return (lane[0] + lane[2]) + (lane[1] + lane[3]) + rest;
}

inline void prefetch(const void* row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64)
    __builtin_prefetch(static_cast<const char*>(row) + i);
}

// Runs walk_ray(ray, list) for all rays and add(item, mine) for all items that
// they list. The rays of a block are walked in parallel and list what they add
// to which voxel; then every thread adds, in ray order, what falls on the
// voxels for which mine(voxel) is true. No atomics, and the same sums, bit by
// bit, for any number of threads. fetch(item) prefetches what add will touch.
template <typename Item, typename WalkRay, typename Fetch, typename Add>
void gather(int64_t num_rays, WalkRay&& walk_ray, Fetch&& fetch, Add&& add) {
  const int64_t threads = at::get_num_threads();
  const int64_t slices = threads == 1 ? 1 : 4 * threads;
  std::vector<std::vector<Item>> lists(slices);
  for (int64_t first = 0; first < num_rays; first += kBlock) {
    const int64_t size = std::min(kBlock, num_rays - first);
    at::parallel_for(0, slices, 1, [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s) {
        lists[s].clear();
        for (int64_t i = size * s / slices; i < size * (s + 1) / slices; ++i)
          walk_ray(first + i, lists[s]);
      }
    });
    if (threads == 1) {
      const auto& list = lists[0];
      for (size_t i = 0; i < list.size(); ++i) {
        if (i + kAhead < list.size()) fetch(list[i + kAhead]);
        add(list[i], [](int64_t) { return true; });
      }
      continue;
    }
    at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t owner = begin; owner < end; ++owner)
        for (const auto& list : lists)
          for (const auto& item : list)
            add(item, [&](int64_t voxel) {
              return (voxel >> 5) % threads == owner;
            });
    });
  }
}

struct Rays {
  const float *origins, *directions;
  const int64_t* volume;
  int64_t count;
  Grid grid;

  Rays(const Tensor& origins_, const Tensor& directions_,
       const Tensor& volume_, const std::vector<double>& range,
       const std::vector<int64_t>& shape)
      : origins(origins_.data_ptr<float>()),
        directions(directions_.data_ptr<float>()),
        volume(volume_.data_ptr<int64_t>()),
        count(origins_.size(0)),
        grid(make_grid(range, shape)) {}

  template <typename Visit>
  void each_crossing(int64_t ray, Visit&& visit) const {
    const float* direction = directions + 3 * ray;
    const double speed = std::sqrt((double)direction[0] * direction[0] +
                                   (double)direction[1] * direction[1] +
                                   (double)direction[2] * direction[2]);
    walk(grid, origins + 3 * ray, direction, volume[ray],
         [&](int64_t voxel, double near, double far) {
           return visit(voxel, near, far, (far - near) * speed);
         });
  }
};

}  // namespace
