// Density of the voxels from their logits; see density.py.
#pragma once
#include "rays.h"

namespace {

// The logits of as many voxels as a vector holds, class by class, and of
// their softmax what is needed.
template <typename T>
struct Classes {
  using Vector = at::vec::Vectorized<T>;
  static constexpr int64_t kSize = Vector::size();
  std::vector<T> columns;  // of each class: logits, then e^(logit - top)
  std::vector<T> rows;     // the same, voxel by voxel, see transpose_back
  Vector top, sum;         // largest logit; sum of the exponentials

  explicit Classes(int64_t channels)
      : columns(channels * kSize), rows(channels * kSize) {}

  template <typename Channels>
  void load(const T* logits, int64_t count, Channels channels) {
    if (count < kSize) {  // the last row fills the rest
      for (int64_t i = 0; i < kSize; ++i)
        std::copy_n(logits + std::min(i, count - 1) * channels,
                    (int64_t)channels, rows.data() + i * channels);
      logits = rows.data();
    }
    int64_t c = 0;
    for (; c + kSize <= channels; c += kSize)
      at::vec::transpose_mxn<T, kSize, kSize>(
          logits + c, channels, columns.data() + c * kSize, kSize);
    for (; c < channels; ++c)
      for (int64_t i = 0; i < kSize; ++i)
        columns[c * kSize + i] = logits[i * channels + c];
  }

  template <typename Channels>
  void transpose_back(Channels channels) {
    int64_t c = 0;
    for (; c + kSize <= channels; c += kSize)
      at::vec::transpose_mxn<T, kSize, kSize>(
          columns.data() + c * kSize, kSize, rows.data() + c, channels);
    for (; c < channels; ++c)
      for (int64_t i = 0; i < kSize; ++i)
        rows[i * channels + c] = columns[c * kSize + i];
  }

  Vector column(int64_t c) const {
    return Vector::loadu(columns.data() + c * kSize);
  }

  template <typename Channels>
  void exponentiate(Channels channels) {
    top = column(0);
    for (int64_t c = 1; c < channels; ++c)
      top = at::vec::maximum(top, column(c));
    sum = Vector(T(0));
    for (int64_t c = 0; c < channels; ++c) {
      const Vector e = (column(c) - top).exp();
      e.store(columns.data() + c * kSize);
      sum = sum + e;
    }
  }
};

// Calls run(first, count) for all voxels, a vector at a time, in parallel.
template <typename T, typename Make>
void each_vector(int64_t voxels, Make&& make) {
  constexpr int64_t size = at::vec::Vectorized<T>::size();
  at::parallel_for(
      0, (voxels + size - 1) / size, 1024, [&](int64_t begin, int64_t end) {
        auto run = make();
        for (int64_t i = begin; i < end; ++i)
          run(i * size, std::min(size, voxels - i * size));
      });
}

}  // namespace

// -log p(free) / voxel size of logits (V, C), (V,).
Tensor free_density(Tensor logits, int64_t free, double voxel_size) {
  Tensor out = torch::empty({logits.size(0)}, logits.options());
  AT_DISPATCH_FLOATING_TYPES(logits.scalar_type(), "free_density", [&] {
    using Vector = at::vec::Vectorized<scalar_t>;
    const scalar_t* rows = logits.data_ptr<scalar_t>();
    scalar_t* density = out.data_ptr<scalar_t>();
    with_channels(logits.size(1), [&](auto channels) {
      each_vector<scalar_t>(logits.size(0), [&] {
        return [&, classes = Classes<scalar_t>(channels)](
                   int64_t first, int64_t count) mutable {
          classes.load(rows + first * channels, count, channels);
          const Vector own = classes.column(free);
          classes.exponentiate(channels);
          const Vector result = (classes.sum.log() + (classes.top - own)) /
                                Vector(scalar_t(voxel_size));
          result.store(density + first, count);
        };
      });
    });
  });
  return out;
}

// Adds what a gradient of that density, (V,), is to the logits.
void add_free_density_gradient(Tensor grad_logits, Tensor grad_density,
                               Tensor logits, int64_t free,
                               double voxel_size) {
  const auto type = logits.scalar_type();
  AT_DISPATCH_FLOATING_TYPES(type, "add_free_density_gradient", [&] {
    using T = scalar_t;
    using Vector = at::vec::Vectorized<T>;
    constexpr int64_t size = Vector::size();
    const T* rows = logits.data_ptr<T>();
    const T* grads = grad_density.data_ptr<T>();
    T* out = grad_logits.data_ptr<T>();
    with_channels(logits.size(1), [&](auto channels) {
      each_vector<T>(logits.size(0), [&] {
        return [&, classes = Classes<T>(channels)](int64_t first,
                                                   int64_t count) mutable {
          const T* grad = grads + first;
          if (std::all_of(grad, grad + count, [](T g) { return g == 0; }))
            return;
          classes.load(rows + first * channels, count, channels);
          classes.exponentiate(channels);
          const Vector own = Vector::loadu(grad, count) /
                             Vector(T(voxel_size));
          const Vector scale = own / classes.sum;
          for (int64_t c = 0; c < channels; ++c) {
            const Vector all = classes.column(c) * scale;
            (c == free ? all - own : all)
                .store(classes.columns.data() + c * size);
          }
          classes.transpose_back(channels);
          for (int64_t i = 0; i < count; ++i) {
            if (grad[i] == 0) continue;  // a row that is no number stays out
            T* __restrict__ row = out + (first + i) * channels;
            const T* __restrict__ more = classes.rows.data() + i * channels;
            for (int64_t c = 0; c < channels; ++c) row[c] += more[c];
          }
        };
      });
    });
  });
}

// softplus(-free logit) of logits (V, C), (V,).
Tensor softplus_density(Tensor logits, int64_t free) {
  Tensor out = torch::empty({logits.size(0)}, logits.options());
  AT_DISPATCH_FLOATING_TYPES(logits.scalar_type(), "softplus_density", [&] {
    using Vector = at::vec::Vectorized<scalar_t>;
    const int64_t channels = logits.size(1);
    const scalar_t* column = logits.data_ptr<scalar_t>() + free;
    scalar_t* density = out.data_ptr<scalar_t>();
    each_vector<scalar_t>(logits.size(0), [&] {
      return [&](int64_t first, int64_t count) {
        scalar_t own[Vector::size()] = {};
        for (int64_t i = 0; i < count; ++i)
          own[i] = -column[(first + i) * channels];
        const Vector x = Vector::loadu(own), zero(scalar_t(0));
        const Vector small = x.abs().neg().exp().log1p();
        (at::vec::maximum(x, zero) + small).store(density + first, count);
      };
    });
  });
  return out;
}

// Adds what a gradient of that density, (V,), is to the logits.
void add_softplus_gradient(Tensor grad_logits, Tensor grad_density,
                           Tensor density, int64_t free) {
  const auto type = density.scalar_type();
  AT_DISPATCH_FLOATING_TYPES(type, "add_softplus_gradient", [&] {
    const int64_t channels = grad_logits.size(1);
    const scalar_t* grads = grad_density.data_ptr<scalar_t>();
    const scalar_t* sigma = density.data_ptr<scalar_t>();
    scalar_t* column = grad_logits.data_ptr<scalar_t>() + free;
    at::parallel_for(0, density.size(0), 2048, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        if (grads[i] != 0) column[i * channels] -= grads[i] * hit_of(sigma[i]);
    });
  });
}
