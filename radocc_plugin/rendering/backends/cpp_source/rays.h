// Rays, the walk through the grid, and how gradients are gathered.
#pragma once
#include <ATen/Parallel.h>
#include <ATen/cpu/vec/functional.h>
#include <torch/extension.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace {

using torch::Tensor;


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

// Below it, series replace closed forms.
template <typename T>
constexpr T limit_of() {
  return sizeof(T) == 4 ? T(0.1) : T(0.01);
}

template <typename T>
inline T small_hit(T tau) {
  return tau * (1 - tau * (T(1. / 2) - tau * (T(1. / 6) - tau * (T(1. / 24) -
         tau * (T(1. / 120) - tau * T(1. / 720))))));
}

// 1 - e^-tau without cancellation, and far cheaper than expm1 where tau is
// small, as it is in most of the free space.
template <typename T>
inline T hit_of(T tau) {
  return tau > limit_of<T>() ? 1 - std::exp(-tau) : small_hit(tau);
}

// Calls run with the channel count as a constant where it is Occ3D's, so that
// the loops over channels unroll.
template <typename Run>
void with_channels(int64_t channels, Run&& run) {
  if (channels == 18)
    run(std::integral_constant<int64_t, 18>());
  else if (channels == 0)
    run(std::integral_constant<int64_t, 0>());
  else
    run(channels);
}

template <typename T, typename Channels>
inline T dot(const T* a, const T* b, Channels channels) {
  using Vector = at::vec::Vectorized<T>;
  int64_t c = 0;
  T sum = 0;
  if (channels >= Vector::size()) {
    Vector product = Vector::loadu(a) * Vector::loadu(b);
    for (c = Vector::size(); c + Vector::size() <= channels;
         c += Vector::size())
      product =
          at::vec::fmadd(Vector::loadu(a + c), Vector::loadu(b + c), product);
    sum = at::vec::vec_reduce_all<T>(
        [](const Vector& x, const Vector& y) { return x + y; }, product);
  }
  for (; c < channels; ++c) sum += a[c] * b[c];
  return sum;
}

// Zeros of a large tensor's size. On Linux fresh pages, which the kernel has
// filled with zeros already, so that they are not written twice.
inline Tensor fresh_zeros(const Tensor& like) {
#ifdef __linux__
  const size_t bytes = like.numel() * like.element_size();
  void* pages = bytes < (1 << 22) ? MAP_FAILED :
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages != MAP_FAILED) {
    madvise(pages, bytes, MADV_HUGEPAGE);
    return torch::from_blob(
        pages, like.sizes(), [bytes](void* data) { munmap(data, bytes); },
        like.options());
  }
#endif
  return torch::zeros_like(like);
}

inline void prefetch(const void* row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64)
    __builtin_prefetch(static_cast<const char*>(row) + i);
}

// Runs walk(unit, add) for all units, rays or packets of rays, which calls
// add(item) for what they add to the gradients, and add(item, mine) for all
// items, in the order of the units. One thread adds at once. More walk the
// units of a block in parallel and list the items; then every thread adds, in
// order, what falls on the voxels for which mine(voxel) is true. No atomics,
// and the same sums, bit by bit, for any number of threads.
template <typename Item, int64_t kBlock, typename Walk, typename Add>
void gather(int64_t units, Walk&& walk, Add&& add) {
  const int64_t threads = at::get_num_threads();
  if (threads == 1) {
    for (int64_t unit = 0; unit < units; ++unit)
      walk(unit, [&](const Item& item) {
        add(item, [](int64_t) { return true; });
      });
    return;
  }
  const int64_t slices = 4 * threads;
  std::vector<std::vector<Item>> lists(slices);
  for (int64_t first = 0; first < units; first += slices * kBlock) {
    const int64_t size = std::min(slices * kBlock, units - first);
    at::parallel_for(0, slices, 1, [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s) {
        lists[s].clear();
        for (int64_t i = size * s / slices; i < size * (s + 1) / slices; ++i)
          walk(first + i, [&](const Item& item) { lists[s].push_back(item); });
      }
    });
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
  const int64_t *volume, *order;  // order: so that neighbours cross the same
  int64_t count;
  Grid grid;

  Rays(const Tensor& origins_, const Tensor& directions_,
       const Tensor& volume_, const Tensor& order_,
       const std::vector<double>& range, const std::vector<int64_t>& shape)
      : origins(origins_.data_ptr<float>()),
        directions(directions_.data_ptr<float>()),
        volume(volume_.data_ptr<int64_t>()),
        order(order_.data_ptr<int64_t>()),
        count(origins_.size(0)),
        grid(make_grid(range, shape)) {}
};

}  // namespace
