// Sampled rendering: uniform samples with trilinear interpolation, as the
// author's renderer; see sampled.py.
#pragma once
#include "rays.h"

namespace {

// The eight voxels around a sample and their shares.
struct Stencil {
  int64_t voxel[8];
  float share[8];
};

struct Sampler {
  const Rays& rays;
  int64_t num_samples;
  double step;
  bool align_corners;

  // Calls visit(t, stencil) for the samples inside the grid, until it returns
  // false.
  template <typename Visit>
  void each_sample(int64_t ray, Visit&& visit) const {
    const Grid& grid = rays.grid;
    const float* origin = rays.origins + 3 * ray;
    const float* direction = rays.directions + 3 * ray;
    double scale[3], shift[3];
    double first = 0, last = num_samples - 1;
    for (int a = 0; a < 3; ++a) {
      const double extent = grid.size[a] * grid.shape[a];
      const double low = grid.minimum[a] - origin[a];
      // Grid coordinate of the sample at ray parameter t: scale t + shift.
      const double factor =
          (align_corners ? grid.shape[a] - 1 : grid.shape[a]) / extent;
      scale[a] = direction[a] * factor;
      shift[a] = -low * factor - (align_corners ? 0 : 0.5);
      if (direction[a] == 0) {
        if (low > 0 || low + extent < 0) return;
        continue;
      }
      const double t0 = low / direction[a], t1 = (low + extent) / direction[a];
      first = std::max(first, std::ceil(std::min(t0, t1) / step - 1e-9));
      last = std::min(last, std::floor(std::max(t0, t1) / step + 1e-9));
    }
    const int64_t stride[3] = {grid.shape[1] * grid.shape[2], grid.shape[2],
                               1};
    const int64_t base = rays.volume[ray] * grid.voxels();
    Stencil stencil;
    for (int64_t k = first; k <= last; ++k) {
      const double t = k * step;
      int64_t index[3][2];
      float share[3][2];
      for (int a = 0; a < 3; ++a) {
        const double at = scale[a] * t + shift[a];
        const double cell = std::floor(at);
        const int64_t top = grid.shape[a] - 1, i = (int64_t)cell;
        // A corner outside the grid counts for nothing.
        share[a][0] = i < 0 || i > top ? 0 : 1 - (float)(at - cell);
        share[a][1] = i + 1 < 0 || i + 1 > top ? 0 : (float)(at - cell);
        index[a][0] = std::min(std::max<int64_t>(i, 0), top) * stride[a];
        index[a][1] = std::min(std::max<int64_t>(i + 1, 0), top) * stride[a];
      }
      for (int c = 0; c < 8; ++c) {
        const int x = c >> 2, y = (c >> 1) & 1, z = c & 1;
        stencil.voxel[c] = base + index[0][x] + index[1][y] + index[2][z];
        stencil.share[c] = share[0][x] * share[1][y] * share[2][z];
      }
      if (!visit(t, stencil)) return;
    }
  }
};

// Optical depth of a sample and its derivative by the raw density.
template <typename T>
inline void soft_density(const T* raw_density, const Stencil& stencil, T step,
                         T& tau, T& slope) {
  T raw = 0;
  for (int c = 0; c < 8; ++c)
    raw += raw_density[stencil.voxel[c]] * stencil.share[c];
  const T small = std::exp(-std::abs(raw));
  tau = step * (std::max(raw, T(0)) + std::log1p(small));
  slope = step * (raw > 0 ? 1 / (1 + small) : small / (1 + small));
}

template <typename T>
struct Sample {  // what a sample adds to its voxels
  Stencil stencil;
  int32_t ray;
  T weight, grad_raw, slope;
};

}  // namespace

std::vector<Tensor> render_samples(Tensor density_logits, Tensor values,
                                   Tensor origins, Tensor directions,
                                   Tensor volume, std::vector<double> range,
                                   std::vector<int64_t> shape,
                                   int64_t num_samples, double step,
                                   bool align_corners, double stop) {
  const Rays rays(origins, directions, volume, range, shape);
  const Sampler sampler{rays, num_samples, step, align_corners};
  const int64_t channels = values.size(1);
  Tensor depth = torch::empty({rays.count}, values.options());
  Tensor no_hit = torch::empty({rays.count}, values.options());
  Tensor rendered = torch::zeros({rays.count, channels}, values.options());
  AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "render_samples", [&] {
    using T = scalar_t;
    const T* raw = density_logits.data_ptr<T>();
    const T* value = values.data_ptr<T>();
    T* out = rendered.data_ptr<T>();
    T* out_depth = depth.data_ptr<T>();
    T* out_no_hit = no_hit.data_ptr<T>();
    at::parallel_for(0, rays.count, 64, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        T* sum = out + r * channels;
        double left = 1, where = 0;
        sampler.each_sample(r, [&](double t, const Stencil& stencil) {
          T tau, slope;
          soft_density(raw, stencil, T(step), tau, slope);
          const T weight = T(left) * -std::expm1(-tau);
          where += weight * t;
          for (int i = 0; i < 8; ++i) {
            const T share = weight * stencil.share[i];
            const T* row = value + stencil.voxel[i] * channels;
            for (int64_t c = 0; c < channels; ++c) sum[c] += share * row[c];
          }
          left *= std::exp(-tau);
          return !(left <= stop);
        });
        out_depth[r] = where;
        out_no_hit[r] = left;
      }
    });
  });
  return {depth, rendered, no_hit};
}

std::vector<Tensor> render_samples_backward(
    Tensor grad_depth, Tensor grad_rendered, Tensor grad_no_hit,
    Tensor density_logits, Tensor values, Tensor origins, Tensor directions,
    Tensor volume, std::vector<double> range, std::vector<int64_t> shape,
    int64_t num_samples, double step, bool align_corners, double stop) {
  const Rays rays(origins, directions, volume, range, shape);
  const Sampler sampler{rays, num_samples, step, align_corners};
  const int64_t channels = values.size(1);
  Tensor grad_density = torch::zeros_like(density_logits);
  Tensor grad_values = torch::zeros_like(values);
  AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "render_samples_backward", [&] {
    using T = scalar_t;
    const T* raw = density_logits.data_ptr<T>();
    const T* value = values.data_ptr<T>();
    const T* g_depth = grad_depth.data_ptr<T>();
    const T* g_rendered = grad_rendered.data_ptr<T>();
    const T* g_no_hit = grad_no_hit.data_ptr<T>();
    T* out_density = grad_density.data_ptr<T>();
    T* out_values = grad_values.data_ptr<T>();

    auto walk_ray = [&](int64_t r, std::vector<Sample<T>>& list) {
      const T* grad = g_rendered + r * channels;
      const size_t first = list.size();
      // `earned` is what the hits so far are worth to the loss.
      double left = 1, earned = 0;
      sampler.each_sample(r, [&](double t, const Stencil& stencil) {
        T tau, slope;
        soft_density(raw, stencil, T(step), tau, slope);
        T worth = g_depth[r] * T(t);
        for (int i = 0; i < 8; ++i) {
          const T* row = value + stencil.voxel[i] * channels;
          T product = 0;
          for (int64_t c = 0; c < channels; ++c) product += grad[c] * row[c];
          worth += stencil.share[i] * product;
        }
        const T weight = T(left) * -std::expm1(-tau);
        earned += weight * worth;
        left *= std::exp(-tau);
        list.push_back({stencil, (int32_t)r, weight,
                        T(left * worth + earned), slope});
        return !(left <= stop);
      });
      earned += left * g_no_hit[r];
      for (size_t k = first; k < list.size(); ++k)
        list[k].grad_raw = (list[k].grad_raw - T(earned)) * list[k].slope;
    };
    gather<Sample<T>>(
        rays.count, walk_ray,
        [&](const Sample<T>& sample) {
          for (int64_t voxel : sample.stencil.voxel)
            prefetch(out_values + voxel * channels, channels * sizeof(T));
        },
        [&](const Sample<T>& sample, auto&& mine) {
          const T* grad = g_rendered + sample.ray * channels;
          for (int i = 0; i < 8; ++i) {
            const int64_t voxel = sample.stencil.voxel[i];
            if (!mine(voxel)) continue;
            const T share = sample.stencil.share[i];
            out_density[voxel] += sample.grad_raw * share;
            T* row = out_values + voxel * channels;
            for (int64_t c = 0; c < channels; ++c)
              row[c] += sample.weight * share * grad[c];
          }
        });
  });
  return {grad_density, grad_values};
}
