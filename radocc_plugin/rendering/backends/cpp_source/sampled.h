// Sampled rendering: uniform samples with trilinear interpolation, as the
// author's renderer; see sampled.py.
#pragma once
#include "rays.h"

namespace {

// The eight voxels around a sample and their shares. Some samples in a row
// have the same voxels: `fresh` marks the first of them.
template <typename T>
struct Stencil {
  int64_t voxel[8];
  T share[8];
  bool fresh;
};

struct Sampler {
  const Rays& rays;
  int64_t num_samples;
  double step;
  bool align_corners;

  // Calls visit(t, stencil) for the samples inside the grid, until it returns
  // false.
  template <typename T, typename Visit>
  void each_sample(int64_t ray, Visit&& visit) const {
    const Grid& grid = rays.grid;
    const float* origin = rays.origins + 3 * ray;
    const float* direction = rays.directions + 3 * ray;
    double scale[3], shift[3];
    double first = 0, last = num_samples - 1;
    for (int a = 0; a < 3; ++a) {
      const double extent = grid.size[a] * grid.shape[a];
      const double low = grid.minimum[a] - origin[a];
      const double high = grid.maximum[a] - origin[a];
      // Grid coordinate of the sample at ray parameter t: scale t + shift.
      const double factor =
          (align_corners ? grid.shape[a] - 1 : grid.shape[a]) / extent;
      scale[a] = direction[a] * factor;
      shift[a] = -low * factor - (align_corners ? 0 : 0.5);
      if (direction[a] == 0) {
        if (low > 0 || high < 0) return;
        continue;
      }
      const double t0 = low / direction[a], t1 = high / direction[a];
      first = std::max(first, std::ceil(std::min(t0, t1) / step - 1e-9));
      last = std::min(last, std::floor(std::max(t0, t1) / step + 1e-9));
    }
    if (!(first <= last)) return;
    const int64_t stride[3] = {grid.shape[1] * grid.shape[2], grid.shape[2],
                               1};
    const int64_t base = rays.volume[ray] * grid.voxels();
    Stencil<T> stencil;
    int64_t cell[3] = {-2, -2, -2};
    for (int64_t k = first; k <= last; ++k) {
      const double t = k * step;
      T share[3][2];
      stencil.fresh = false;
      for (int a = 0; a < 3; ++a) {
        const double at = scale[a] * t + shift[a];
        const int64_t i = (int64_t)std::floor(at), top = grid.shape[a] - 1;
        stencil.fresh |= i != cell[a];
        cell[a] = i;
        // A corner outside the grid counts for nothing.
        share[a][0] = i < 0 || i > top ? T(0) : T(1 - (at - i));
        share[a][1] = i + 1 < 0 || i + 1 > top ? T(0) : T(at - i);
      }
      if (stencil.fresh) {
        int64_t index[3][2];
        for (int a = 0; a < 3; ++a)
          for (int side = 0; side < 2; ++side)
            index[a][side] = std::min(std::max<int64_t>(cell[a] + side, 0),
                                      grid.shape[a] - 1) * stride[a];
        for (int c = 0; c < 8; ++c)
          stencil.voxel[c] =
              base + index[0][c >> 2] + index[1][(c >> 1) & 1] +
              index[2][c & 1];
      }
      for (int c = 0; c < 8; ++c)
        stencil.share[c] = share[0][c >> 2] * share[1][(c >> 1) & 1] *
                           share[2][c & 1];
      if (!visit(t, stencil)) return;
    }
  }
};

// What happens to the light at a sample: optical depth softplus(raw) * step,
// its derivative by the raw density, and the share that ends.
template <typename T>
struct SoftPassage {
  T slope, hit;

  SoftPassage(const T corner[8], const T share[8], T step) {
    T raw = 0;
    for (int c = 0; c < 8; ++c) raw += corner[c] * share[c];
    const T small = std::exp(-std::abs(raw));
    const T tau = step * (std::max(raw, T(0)) + std::log1p(small));
    slope = step * (raw > 0 ? 1 / (1 + small) : small / (1 + small));
    hit = hit_of(tau);
  }
};

constexpr size_t kAhead = 8;  // cells to prefetch

template <typename T>
struct Cell {  // what the samples between eight voxels add to them
  int64_t voxel[8];
  T weight[8], grad_raw[8];
  int32_t ray;
};

}  // namespace

std::vector<Tensor> render_samples(Tensor density_logits, Tensor values,
                                   Tensor origins, Tensor directions,
                                   Tensor volume, Tensor order,
                                   std::vector<double> range,
                                   std::vector<int64_t> shape,
                                   int64_t num_samples, double step,
                                   bool align_corners, double stop) {
  const Rays rays(origins, directions, volume, order, range, shape);
  const Sampler sampler{rays, num_samples, step, align_corners};
  Tensor depth = torch::empty({rays.count}, values.options());
  Tensor no_hit = torch::empty({rays.count}, values.options());
  Tensor rendered =
      torch::zeros({rays.count, values.size(1)}, values.options());
  AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "render_samples", [&] {
    using T = scalar_t;
    const T* raw = density_logits.data_ptr<T>();
    const T* value = values.data_ptr<T>();
    T* out = rendered.data_ptr<T>();
    T* out_depth = depth.data_ptr<T>();
    T* out_no_hit = no_hit.data_ptr<T>();
    with_channels(values.size(1), [&](auto channels) {
      at::parallel_for(0, rays.count, 64, [&](int64_t begin, int64_t end) {
        std::vector<Cell<T>> cells;
        for (int64_t r = begin; r < end; ++r) {
          double left = 1, where = 0;
          T corner[8];
          cells.clear();
          sampler.each_sample<T>(r, [&](double t, const Stencil<T>& stencil) {
            if (stencil.fresh) {
              cells.push_back({});
              for (int i = 0; i < 8; ++i) {
                const int64_t voxel = cells.back().voxel[i] = stencil.voxel[i];
                corner[i] = raw[voxel];
                prefetch(value + voxel * channels, channels * sizeof(T));
              }
            }
            const SoftPassage<T> passage(corner, stencil.share, T(step));
            const T weight = T(left) * passage.hit;
            where += weight * t;
            for (int i = 0; i < 8; ++i)
              cells.back().weight[i] += weight * stencil.share[i];
            left *= 1 - passage.hit;
            return !(left <= stop);
          });
          T* sum = out + r * channels;
          for (const auto& cell : cells)
            for (int i = 0; i < 8; ++i) {
              const T* row = value + cell.voxel[i] * channels;
              for (int64_t c = 0; c < channels; ++c)
                sum[c] += cell.weight[i] * row[c];
            }
          out_depth[r] = where;
          out_no_hit[r] = left;
        }
      });
    });
  });
  return {depth, rendered, no_hit};
}

std::vector<Tensor> render_samples_backward(
    Tensor grad_depth, Tensor grad_rendered, Tensor grad_no_hit,
    Tensor density_logits, Tensor values, Tensor origins, Tensor directions,
    Tensor volume, Tensor order, std::vector<double> range,
    std::vector<int64_t> shape,
    int64_t num_samples, double step, bool align_corners, double stop) {
  const Rays rays(origins, directions, volume, order, range, shape);
  const Sampler sampler{rays, num_samples, step, align_corners};
  Tensor grad_density = torch::zeros_like(density_logits);
  Tensor grad_values = torch::zeros_like(values);
  const auto type = values.scalar_type();
  AT_DISPATCH_FLOATING_TYPES(type, "render_samples_backward", [&] {
    using T = scalar_t;
    const T* raw = density_logits.data_ptr<T>();
    const T* value = values.data_ptr<T>();
    const T* g_depth = grad_depth.data_ptr<T>();
    const T* g_rendered = grad_rendered.data_ptr<T>();
    const T* g_no_hit = grad_no_hit.data_ptr<T>();
    T* out_density = grad_density.data_ptr<T>();
    T* out_values = grad_values.data_ptr<T>();
    with_channels(values.size(1), [&](auto channels) {
      struct Sample {
        size_t cell;
        T share[8], gain, slope;
      };
      auto walk_ray = [&](int64_t r, auto&& add) {
        static thread_local std::vector<Sample> samples;
        static thread_local std::vector<Cell<T>> cells;
        samples.clear();
        cells.clear();
        const T* grad = g_rendered + r * channels;
        T corner[8], product[8];
        // `earned` is what the hits so far are worth to the loss.
        double left = 1, earned = 0;
        sampler.each_sample<T>(r, [&](double t, const Stencil<T>& stencil) {
          if (stencil.fresh) {
            cells.push_back({});
            Cell<T>& cell = cells.back();
            cell.ray = r;
            for (int i = 0; i < 8; ++i) {
              cell.voxel[i] = stencil.voxel[i];
              corner[i] = raw[cell.voxel[i]];
              product[i] =
                  dot(grad, value + cell.voxel[i] * channels, channels);
            }
          }
          const SoftPassage<T> passage(corner, stencil.share, T(step));
          const T weight = T(left) * passage.hit;
          T worth = g_depth[r] * T(t);
          for (int i = 0; i < 8; ++i) {
            worth += stencil.share[i] * product[i];
            cells.back().weight[i] += weight * stencil.share[i];
          }
          earned += weight * worth;
          left *= 1 - passage.hit;
          Sample sample{cells.size() - 1, {}, T(left * worth + earned),
                        passage.slope};
          std::copy(stencil.share, stencil.share + 8, sample.share);
          samples.push_back(sample);
          return !(left <= stop);
        });
        // More density takes away from all that lies behind.
        earned += left * g_no_hit[r];
        for (const auto& sample : samples) {
          const T grad_raw = (sample.gain - T(earned)) * sample.slope;
          for (int i = 0; i < 8; ++i)
            cells[sample.cell].grad_raw[i] += grad_raw * sample.share[i];
        }
        for (size_t i = 0; i < cells.size(); ++i) {
          if (i + kAhead < cells.size())
            for (int64_t voxel : cells[i + kAhead].voxel)
              prefetch(out_values + voxel * channels, channels * sizeof(T));
          add(cells[i]);
        }
      };
      gather<Cell<T>, 64>(
          rays.count, walk_ray,
          [&](const Cell<T>& cell, auto&& mine) {
            const T* grad = g_rendered + cell.ray * channels;
            for (int i = 0; i < 8; ++i) {
              const int64_t voxel = cell.voxel[i];
              if (!mine(voxel)) continue;
              out_density[voxel] += cell.grad_raw[i];
              T* row = out_values + voxel * channels;
              for (int64_t c = 0; c < channels; ++c)
                row[c] += cell.weight[i] * grad[c];
            }
          });
    });
  });
  return {grad_density, grad_values};
}
