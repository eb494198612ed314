// Exact rendering: density and values are constant in each voxel. Renders on
// the walk; nothing of the size of the crossings leaves a block of rays.
#pragma once
#include "light.h"

namespace {

constexpr int64_t kPackets = 8;  // whose crossings are listed at once

template <typename T>
struct Crossing {  // what a crossing adds to its voxel
  int64_t voxel;
  int32_t ray;
  T weight, grad_density;
};

// A volume and what the rays see of it.
template <typename T>
struct View {
  const T *density, *values;
  T *depth, *rendered, *no_hit;

  View(const Tensor& density_, const Tensor& values_, const Tensor* out)
      : density(density_.data_ptr<T>()),
        values(values_.data_ptr<T>()),
        depth(out[0].data_ptr<T>()),
        rendered(out[1].data_ptr<T>()),
        no_hit(out[2].data_ptr<T>()) {}
};

// Adds the values of a ray's hits in a tile.
template <typename T, typename Channels>
inline void add_hits(T* sum, const Light<T>& light, const Tile<T>& tile,
                     int lane, const T* values, Channels channels) {
  using Vector = at::vec::Vectorized<T>;
  const T* row[kSteps];
  T weight[kSteps];
  int hits = 0;
  for (int i = lane; i < kTile; i += kLanes) {
    row[hits] = values + tile.voxel[i] * channels;
    weight[hits] = light.entry[i] * light.hit[i];
    hits += weight[hits] != 0;
  }
  // Sums stay in registers: one in memory would wait for each addition.
  int64_t c = 0;
  for (; c + Vector::size() <= channels; c += Vector::size()) {
    Vector total = Vector::loadu(sum + c);
    for (int k = 0; k < hits; ++k)
      total = at::vec::fmadd(Vector(weight[k]), Vector::loadu(row[k] + c),
                             total);
    total.store(sum + c);
  }
  for (; c < channels; ++c) {
    T total = sum[c];
    for (int k = 0; k < hits; ++k) total += weight[k] * row[k][c];
    sum[c] = total;
  }
}

// Of one view, or of the student's and the teacher's.
template <typename T, typename Channels>
void render_packet(const Rays& rays, int64_t index,
                   const std::vector<View<T>>& views, T* divergences,
                   double stop, Channels channels) {
  const size_t models = views.size();
  Packet packet(rays, index);
  Light<T> light[2];
  double depth[2][kLanes] = {}, divergence[kLanes] = {};
  for (const auto& view : views)
    for (int lane = 0; lane < packet.size; ++lane)
      std::fill_n(view.rendered + packet.ray[lane] * channels,
                  (int64_t)channels, T(0));
  auto fetch = [&](int64_t voxel) {
    for (const auto& view : views)
      prefetch(view.values + voxel * channels, channels * sizeof(T));
  };
  each_tile<T>(packet, fetch, [&](const Tile<T>& tile, bool* shines) {
    std::fill_n(shines, kLanes, false);
    for (size_t m = 0; m < models; ++m) {
      light[m].pass(tile, views[m].density, stop);
      light[m].add_depth(tile, depth[m]);
      for (int lane = 0; lane < packet.size; ++lane) {
        add_hits(views[m].rendered + packet.ray[lane] * channels, light[m],
                 tile, lane, views[m].values, channels);
        shines[lane] |= !(light[m].left[lane] <= stop);
      }
    }
    if (models == 2) add_divergence(light[1], light[0], divergence);
  });
  for (int lane = 0; lane < packet.size; ++lane) {
    const int64_t r = packet.ray[lane];
    for (size_t m = 0; m < models; ++m) {
      views[m].depth[r] = depth[m][lane];
      views[m].no_hit[r] = light[m].left[lane];
    }
    if (models == 2) divergences[r] = divergence[lane];
  }
}

template <typename T>
struct Student {  // what the gradients of its volume depend on
  const T *density, *values, *teacher_density;
  // Of the loss, by what the rays see.
  const T *grad_depth, *grad_rendered, *grad_no_hit, *grad_divergence;
  const T *depth, *rendered, *no_hit;
};

// Calls add(crossing) for what the crossings of a packet add to the gradients.
template <typename T, typename Channels, typename Add>
void render_packet_backward(const Rays& rays, int64_t index,
                            const Student<T>& student, double stop,
                            Channels channels, const T* out_values,
                            Add&& add) {
  const bool taught = student.teacher_density != nullptr;
  Packet packet(rays, index);
  Light<T> light, teacher;
  T grad_depth[kLanes] = {}, grad_divergence[kLanes] = {};
  double behind[kLanes] = {};
  for (int lane = 0; lane < packet.size; ++lane) {
    const int64_t r = packet.ray[lane];
    grad_depth[lane] = student.grad_depth[r];
    if (taught) grad_divergence[lane] = student.grad_divergence[r];
    behind[lane] = (double)student.grad_depth[r] * student.depth[r] +
                   (double)student.grad_no_hit[r] * student.no_hit[r] +
                   dot(student.grad_rendered + r * channels,
                       student.rendered + r * channels, channels);
  }
  auto fetch = [&](int64_t voxel) {
    prefetch(student.values + voxel * channels, channels * sizeof(T));
    prefetch(out_values + voxel * channels, channels * sizeof(T));
  };
  each_tile<T>(packet, fetch, [&](const Tile<T>& tile, bool* shines) {
    light.pass(tile, student.density, stop);
    T product[kTile] = {}, slope[kTile] = {};
    for (int lane = 0; lane < packet.size; ++lane) {
      const T* grad = student.grad_rendered + packet.ray[lane] * channels;
      for (int i = lane; i < kTile; i += kLanes)
        if (light.entry[i] != 0 && tile.length[i] > 0)
          product[i] =
              dot(grad, student.values + tile.voxel[i] * channels, channels);
    }
    add_slopes(light, tile, grad_depth, product, behind, slope);
    if (taught) {
      teacher.pass(tile, student.teacher_density, stop);
      add_pulls(teacher, light, grad_divergence, slope);
    }
    for (int lane = 0; lane < packet.size; ++lane)
      for (int i = lane; i < kTile; i += kLanes) {
        const T grad = slope[i] * tile.length[i];
        const T weight = light.entry[i] * light.hit[i];
        // a slope that is no number is that of its own crossings only
        if (tile.length[i] > 0 && (grad != 0 || weight != 0))
          add(Crossing<T>{tile.voxel[i], int32_t(packet.ray[lane]), weight,
                          grad});
      }
    for (int lane = 0; lane < kLanes; ++lane)
      shines[lane] = !(light.left[lane] <= stop) ||
                     (taught && !(teacher.left[lane] <= stop));
  });
}

}  // namespace

// Renders one volume, or the student's and the teacher's along one walk.
// Returns depth, values and no-hit of each; of two the divergence, too.
std::vector<Tensor> render(std::vector<Tensor> densities,
                           std::vector<Tensor> values, Tensor origins,
                           Tensor directions, Tensor volume, Tensor order,
                           std::vector<double> range,
                           std::vector<int64_t> shape, double stop) {
  const Rays rays(origins, directions, volume, order, range, shape);
  std::vector<Tensor> out;
  for (const auto& value : values) {
    const auto options = value.options();
    out.push_back(torch::empty({rays.count}, options));
    out.push_back(torch::empty({rays.count, value.size(1)}, options));
    out.push_back(torch::empty({rays.count}, options));
  }
  if (values.size() == 2) out.push_back(torch::empty_like(out[0]));
  AT_DISPATCH_FLOATING_TYPES(values[0].scalar_type(), "render", [&] {
    std::vector<View<scalar_t>> views;
    for (size_t m = 0; m < values.size(); ++m)
      views.emplace_back(densities[m], values[m], &out[3 * m]);
    scalar_t* divergences =
        values.size() == 2 ? out[6].data_ptr<scalar_t>() : nullptr;
    with_channels(values[0].size(1), [&](auto channels) {
      at::parallel_for(0, packets(rays), 4, [&](int64_t begin, int64_t end) {
        for (int64_t packet = begin; packet < end; ++packet)
          render_packet<scalar_t>(rays, packet, views, divergences, stop,
                                  channels);
      });
    });
  });
  return out;
}

// Gradients of the student's density and values. `grads`: of its depth, values
// and no-hit, and with a teacher of the divergence; `outputs`: what render
// returned; `densities`: the student's, and the teacher's if there is one.
std::vector<Tensor> render_backward(std::vector<Tensor> grads,
                                    std::vector<Tensor> outputs,
                                    std::vector<Tensor> densities,
                                    Tensor values, Tensor origins,
                                    Tensor directions, Tensor volume,
                                    Tensor order,
                                    std::vector<double> range,
                                    std::vector<int64_t> shape, double stop) {
  const Rays rays(origins, directions, volume, order, range, shape);
  Tensor grad_density = torch::zeros_like(densities[0]);
  Tensor grad_values = fresh_zeros(values);
  AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "render_backward", [&] {
    using T = scalar_t;
    auto data = [](const std::vector<Tensor>& tensors, size_t i) -> const T* {
      return i < tensors.size() ? tensors[i].data_ptr<T>() : nullptr;
    };
    const Student<T> student{data(densities, 0), values.data_ptr<T>(),
                             data(densities, 1), data(grads, 0),
                             data(grads, 1),     data(grads, 2),
                             data(grads, 3),     data(outputs, 0),
                             data(outputs, 1),   data(outputs, 2)};
    T* out_density = grad_density.data_ptr<T>();
    T* out_values = grad_values.data_ptr<T>();
    with_channels(values.size(1), [&](auto channels) {
      gather<Crossing<T>, kPackets>(
          packets(rays),
          [&](int64_t packet, auto&& add) {
            render_packet_backward<T>(rays, packet, student, stop, channels,
                                      out_values, add);
          },
          [&](const Crossing<T>& crossing, auto&& mine) {
            if (!mine(crossing.voxel)) return;
            out_density[crossing.voxel] += crossing.grad_density;
            if (crossing.weight != 0)
              add_product(out_values + crossing.voxel * channels,
                          crossing.weight,
                          student.grad_rendered + crossing.ray * channels,
                          channels);
          });
    });
  });
  return {grad_density, grad_values};
}

// Light that enters each voxel and that ends there, of all rays.
std::vector<Tensor> voxel_light(Tensor density, Tensor origins,
                                Tensor directions, Tensor volume, Tensor order,
                                std::vector<double> range,
                                std::vector<int64_t> shape, double stop) {
  const Rays rays(origins, directions, volume, order, range, shape);
  Tensor entered = torch::zeros_like(density);
  Tensor ended = torch::zeros_like(density);
  AT_DISPATCH_FLOATING_TYPES(density.scalar_type(), "voxel_light", [&] {
    using T = scalar_t;
    struct Passage {
      int64_t voxel;
      T entered, hit;
    };
    const T* densities = density.data_ptr<T>();
    T* out_entered = entered.data_ptr<T>();
    T* out_ended = ended.data_ptr<T>();
    gather<Passage, kPackets>(
        packets(rays),
        [&](int64_t index, auto&& add) {
          Packet packet(rays, index);
          Light<T> light;
          auto fetch = [&](int64_t voxel) {
            prefetch(densities + voxel, sizeof(T));
          };
          each_tile<T>(packet, fetch, [&](const Tile<T>& tile, bool* shines) {
            light.pass(tile, densities, stop);
            for (int i = 0; i < kTile; ++i)
              if (tile.length[i] > 0 && light.entry[i] != 0)
                add(Passage{tile.voxel[i], light.entry[i], light.hit[i]});
            for (int lane = 0; lane < kLanes; ++lane)
              shines[lane] = !(light.left[lane] <= stop);
          });
        },
        [&](const Passage& passage, auto&& mine) {
          if (!mine(passage.voxel)) return;
          out_entered[passage.voxel] += passage.entered;
          // here, where it is one rounding for any number of threads
          out_ended[passage.voxel] += passage.entered * passage.hit;
        });
  });
  return {entered, ended};
}
