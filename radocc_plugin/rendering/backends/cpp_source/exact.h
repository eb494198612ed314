// Exact rendering: density and values are constant in each voxel. Walks each
// ray through the grid and renders on the way; nothing of the size of the
// crossings leaves a block of rays.
#pragma once
#include "rays.h"

namespace {

constexpr double kMinHit = 1e-7;  // functional.MIN_HIT

// What happens to the light in a voxel: the share that ends and that passes,
// h = (1 - (1 + tau) e^-tau) / tau for the mean depth, and dh/dtau. Series
// where the closed forms would cancel; see functional.py.
template <typename T>
struct Passage {
  T hit, decay, mean, slope;

  explicit Passage(T tau) : hit(hit_of(tau)), decay(1 - hit) {
    if (tau > limit_of<T>()) {
      mean = (hit - tau * decay) / tau;
      slope = decay - mean / tau;
    } else {
      mean = tau * (T(1. / 2) - tau * (T(1. / 3) - tau * (T(1. / 8) -
             tau * T(1. / 30))));
      slope = T(1. / 2) - tau * (T(2. / 3) - tau * (T(3. / 8) -
              tau * T(2. / 15)));
    }
  }
};

template <typename T>
struct Crossing {  // what a crossing adds to its voxel
  int64_t voxel;
  int32_t ray;
  T weight, passed, depth, grad_density, length;
};

}  // namespace

std::vector<Tensor> render(Tensor density, Tensor values, Tensor origins,
                           Tensor directions, Tensor volume,
                           std::vector<double> range,
                           std::vector<int64_t> shape, double stop) {
  const Rays rays(origins, directions, volume, range, shape);
  Tensor depth = torch::empty({rays.count}, density.options());
  Tensor no_hit = torch::empty({rays.count}, density.options());
  Tensor rendered =
      torch::zeros({rays.count, values.size(1)}, density.options());
  AT_DISPATCH_FLOATING_TYPES(density.scalar_type(), "render", [&] {
    using T = scalar_t;
    const T* sigma = density.data_ptr<T>();
    const T* value = values.data_ptr<T>();
    T* out = rendered.data_ptr<T>();
    T* out_depth = depth.data_ptr<T>();
    T* out_no_hit = no_hit.data_ptr<T>();
    with_channels(values.size(1), [&](auto channels) {
      at::parallel_for(0, rays.count, 64, [&](int64_t begin, int64_t end) {
        std::vector<std::pair<int64_t, T>> hits;
        for (int64_t r = begin; r < end; ++r) {
          double left = 1, where = 0;
          hits.clear();
          rays.each_crossing(r, [&](int64_t voxel, double near, double far,
                                    double length) {
            const T tau = optical_depth(sigma[voxel], length);
            if (tau == 0) return true;
            prefetch(value + voxel * channels, channels * sizeof(T));
            const Passage<T> passage(tau);
            where += left * (near * passage.hit + (far - near) * passage.mean);
            hits.emplace_back(voxel, T(left) * passage.hit);
            left *= passage.decay;
            return !(left <= stop);
          });
          T* sum = out + r * channels;
          for (const auto& [voxel, weight] : hits) {
            const T* row = value + voxel * channels;
            for (int64_t c = 0; c < channels; ++c) sum[c] += weight * row[c];
          }
          out_depth[r] = where;
          out_no_hit[r] = left;
        }
      });
    });
  });
  return {depth, rendered, no_hit};
}

std::vector<Tensor> render_backward(Tensor grad_depth, Tensor grad_rendered,
                                    Tensor grad_no_hit, Tensor density,
                                    Tensor values, Tensor origins,
                                    Tensor directions, Tensor volume,
                                    std::vector<double> range,
                                    std::vector<int64_t> shape, double stop) {
  const Rays rays(origins, directions, volume, range, shape);
  Tensor grad_density = torch::zeros_like(density);
  Tensor grad_values = torch::zeros_like(values);
  AT_DISPATCH_FLOATING_TYPES(density.scalar_type(), "render_backward", [&] {
    using T = scalar_t;
    const T* sigma = density.data_ptr<T>();
    const T* value = values.data_ptr<T>();
    const T* g_depth = grad_depth.data_ptr<T>();
    const T* g_rendered = grad_rendered.data_ptr<T>();
    const T* g_no_hit = grad_no_hit.data_ptr<T>();
    T* out_density = grad_density.data_ptr<T>();
    T* out_values = grad_values.data_ptr<T>();
    with_channels(values.size(1), [&](auto channels) {
      const int64_t bytes = channels * sizeof(T);
      auto walk_ray = [&](int64_t r, std::vector<Crossing<T>>& list) {
        const size_t first = list.size();
        double left = 1;
        rays.each_crossing(r, [&](int64_t voxel, double near, double far,
                                  double length) {
          prefetch(value + voxel * channels, bytes);
          const Passage<T> passage(optical_depth(sigma[voxel], length));
          // Of the depth alone, until the second loop.
          list.push_back(
              {voxel, (int32_t)r, T(left) * passage.hit,
               T(left) * passage.decay,
               T(left * (near * passage.hit + (far - near) * passage.mean)),
               T(left * (near * passage.decay + (far - near) * passage.slope)),
               T(length)});
          left *= passage.decay;
          return !(left <= stop);
        });
        const T* grad = g_rendered + r * channels;
        // What the hits so far are worth to the loss.
        double worth = 0;
        for (size_t k = first; k < list.size(); ++k) {
          Crossing<T>& crossing = list[k];
          const T product =
              dot(grad, value + crossing.voxel * channels, channels);
          worth += crossing.weight * product + crossing.depth * g_depth[r];
          crossing.grad_density =
              T(crossing.passed * product + crossing.grad_density * g_depth[r] +
                worth);
        }
        // More density here takes away from all that lies behind.
        worth += left * g_no_hit[r];
        for (size_t k = first; k < list.size(); ++k)
          list[k].grad_density =
              (list[k].grad_density - T(worth)) * list[k].length;
      };
      gather<Crossing<T>>(
          rays.count, walk_ray,
          [&](const Crossing<T>& crossing) {
            prefetch(out_values + crossing.voxel * channels, bytes);
          },
          [&](const Crossing<T>& crossing, auto&& mine) {
            if (!mine(crossing.voxel)) return;
            out_density[crossing.voxel] += crossing.grad_density;
            const T* grad = g_rendered + crossing.ray * channels;
            T* row = out_values + crossing.voxel * channels;
            for (int64_t c = 0; c < channels; ++c)
              row[c] += crossing.weight * grad[c];
          });
    });
  });
  return {grad_density, grad_values};
}

Tensor ray_kl(Tensor teacher_density, Tensor student_density, Tensor origins,
              Tensor directions, Tensor volume, std::vector<double> range,
              std::vector<int64_t> shape, double stop) {
  const Rays rays(origins, directions, volume, range, shape);
  Tensor divergence = torch::empty({rays.count}, student_density.options());
  AT_DISPATCH_FLOATING_TYPES(student_density.scalar_type(), "ray_kl", [&] {
    using T = scalar_t;
    const T* teacher = teacher_density.data_ptr<T>();
    const T* student = student_density.data_ptr<T>();
    T* out = divergence.data_ptr<T>();
    at::parallel_for(0, rays.count, 64, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        double left = 1, sum = 0;
        rays.each_crossing(
            r, [&](int64_t voxel, double, double, double length) {
              const T tau = optical_depth(teacher[voxel], length);
              const T student_tau = optical_depth(student[voxel], length);
              const T hit_exactly = hit_of(tau), decay = 1 - hit_exactly;
              const T hit = std::max(hit_exactly, T(kMinHit));
              const T student_hit = std::max(hit_of(student_tau), T(kMinHit));
              sum += left * (hit * std::log(hit / student_hit) +
                             decay * (student_tau - tau));
              left *= decay;
              return !(left <= stop);
            });
        out[r] = sum;
      }
    });
  });
  return divergence;
}

Tensor ray_kl_backward(Tensor grad, Tensor teacher_density,
                       Tensor student_density, Tensor origins,
                       Tensor directions, Tensor volume,
                       std::vector<double> range, std::vector<int64_t> shape,
                       double stop) {
  const Rays rays(origins, directions, volume, range, shape);
  Tensor grad_density = torch::zeros_like(student_density);
  AT_DISPATCH_FLOATING_TYPES(
      student_density.scalar_type(), "ray_kl_backward", [&] {
        using T = scalar_t;
        const T* teacher = teacher_density.data_ptr<T>();
        const T* student = student_density.data_ptr<T>();
        const T* g = grad.data_ptr<T>();
        T* out = grad_density.data_ptr<T>();
        auto walk_ray = [&](int64_t r, std::vector<std::pair<int64_t, T>>& list) {
          double left = 1;
          rays.each_crossing(
              r, [&](int64_t voxel, double, double, double length) {
                const T tau = optical_depth(teacher[voxel], length);
                const T hit_exactly = hit_of(tau), decay = 1 - hit_exactly;
                const T hit = std::max(hit_exactly, T(kMinHit));
                const T student_hit =
                    hit_of(optical_depth(student[voxel], length));
                const T pull = hit * (1 - student_hit) /
                               std::max(student_hit, T(kMinHit));
                list.push_back(
                    {voxel, T(left * (decay - pull) * g[r] * length)});
                left *= decay;
                return !(left <= stop);
              });
        };
        gather<std::pair<int64_t, T>>(
            rays.count, walk_ray, [](const auto&) {},
            [&](const auto& crossing, auto&& mine) {
              if (mine(crossing.first)) out[crossing.first] += crossing.second;
            });
      });
  return grad_density;
}

