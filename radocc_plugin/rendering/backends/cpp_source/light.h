// The light along the rays of a packet, a tile of crossings at a time. The
// functions stay apart, not inlined: so the compiler vectorises their loops.
#pragma once
#include "walk.h"

namespace {

constexpr double kMinHit = 1e-7;  // functional.MIN_HIT

template <typename T>
void exponentials(T (&x)[kTile]) {  // in place
  using Vector = at::vec::Vectorized<T>;
  for (int i = 0; i < kTile; i += Vector::size())
    Vector::loadu(x + i).exp().store(x + i);
}

template <typename T>
void logarithms(T (&x)[kTile]) {  // in place
  using Vector = at::vec::Vectorized<T>;
  for (int i = 0; i < kTile; i += Vector::size())
    Vector::loadu(x + i).log().store(x + i);
}

// (1 - (1 + tau) e^-tau) / tau^2 where tau is small.
template <typename T>
inline T small_bend(T tau) {
  return T(1. / 2) - tau * (T(1. / 3) - tau * (T(1. / 8) - tau * T(1. / 30)));
}

// The light of one volume: what a tile does to it, and what is left.
template <typename T>
struct Light {
  // Of each crossing of the last tile: optical depth, the share of the light
  // that ends and that passes, the light that enters, and, for the mean
  // depth, hit - (1 - (1 + tau) e^-tau) / tau, see functional.py: how much
  // nearer than `far` the hits are, in extents.
  T tau[kTile], hit[kTile], decay[kTile], entry[kTile], rest[kTile];
  double left[kLanes];  // what has passed all tiles

  Light() { std::fill(left, left + kLanes, 1.); }

  [[gnu::noinline]] void pass(const Tile<T>& tile, const T* density,
                              double stop) {
    // Apart, or the compiler branches at each crossing.
    for (int i = 0; i < kTile; ++i) tau[i] = density[tile.voxel[i]];
#pragma omp simd
    for (int i = 0; i < kTile; ++i) {
      const T x = tau[i] * tile.length[i];
      // functional.MAX_OPTICAL_DEPTH
      const T bounded = x > T(1e4) ? T(1e4) : x;
      tau[i] = tile.length[i] > 0 ? bounded : T(0);
      decay[i] = -tau[i];
    }
    exponentials(decay);
#pragma omp simd
    for (int i = 0; i < kTile; ++i) {
      // Series where the closed forms would cancel.
      const T x = tau[i];
      const bool small = !(x > limit_of<T>());
      hit[i] = small ? small_hit(x) : 1 - decay[i];
      decay[i] = 1 - hit[i];
      const T mean =
          small ? x * small_bend(x) : (hit[i] - x * decay[i]) / x;
      rest[i] = hit[i] - mean;
    }
    for (int i = 0; i < kTile; i += kLanes) {
#pragma omp simd
      for (int lane = 0; lane < kLanes; ++lane) {
        const bool gone = left[lane] <= stop;
        entry[i + lane] = gone ? T(0) : T(left[lane]);
        left[lane] = gone ? left[lane] : left[lane] * decay[i + lane];
      }
    }
  }

  // Adds what the hits of the tile are to the expected depths.
  void add_depth(const Tile<T>& tile, double (&depth)[kLanes]) const {
    for (int i = 0; i < kTile; i += kLanes) {
#pragma omp simd
      for (int lane = 0; lane < kLanes; ++lane) {
        const int k = i + lane;
        depth[lane] +=
            entry[k] * (hit[k] * tile.far[k] - rest[k] * tile.extent[k]);
      }
    }
  }
};

// sum += weight * row.
template <typename T, typename Channels>
inline void add_product(T* __restrict__ sum, T weight,
                        const T* __restrict__ row, Channels channels) {
  for (int64_t c = 0; c < channels; ++c) sum[c] += weight * row[c];
}

// Adds the derivative of the loss by the optical depth of each crossing.
// `product`: what the values of a hit are worth to it; `behind`: what all that
// the ray has not yet passed is worth, which more density takes away from.
template <typename T>
[[gnu::noinline]] void add_slopes(const Light<T>& light, const Tile<T>& tile,
                                  const T (&grad_depth)[kLanes],
                                  const T (&product)[kTile],
                                  double (&behind)[kLanes], T (&out)[kTile]) {
  for (int i = 0; i < kTile; i += kLanes) {
#pragma omp simd
    for (int lane = 0; lane < kLanes; ++lane) {
      const int k = i + lane;
      const T x = light.tau[k];
      // d rest / d tau
      const T bend = x > limit_of<T>() ? (light.hit[k] - light.rest[k]) / x
                                       : small_bend(x);
      const T worth = product[k] + grad_depth[lane] * tile.far[k];
      const T extent = grad_depth[lane] * tile.extent[k];
      behind[lane] -= light.entry[k] *
                      (light.hit[k] * worth - extent * light.rest[k]);
      out[k] += light.entry[k] == 0 ? T(0) :
                light.entry[k] * (light.decay[k] * worth - extent * bend) -
                T(behind[lane]);
    }
  }
}

// Adds KL(teacher || student) of the hits of a tile; see
// functional.packed_ray_kl.
template <typename T>
[[gnu::noinline]] void add_divergence(const Light<T>& teacher,
                                      const Light<T>& student,
                                      double (&divergence)[kLanes]) {
  T ratio[kTile];
#pragma omp simd
  for (int i = 0; i < kTile; ++i)
    ratio[i] = std::max(teacher.hit[i], T(kMinHit)) /
               std::max(student.hit[i], T(kMinHit));
  logarithms(ratio);
  for (int i = 0; i < kTile; i += kLanes) {
#pragma omp simd
    for (int lane = 0; lane < kLanes; ++lane) {
      const int k = i + lane;
      divergence[lane] +=
          teacher.entry[k] *
          (std::max(teacher.hit[k], T(kMinHit)) * ratio[k] +
           teacher.decay[k] * (student.tau[k] - teacher.tau[k]));
    }
  }
}

// Adds d divergence / d tau of the student, times its gradient. The bounds
// change the value, not the direction.
template <typename T>
[[gnu::noinline]] void add_pulls(const Light<T>& teacher,
                                 const Light<T>& student,
                                 const T (&grad)[kLanes], T (&out)[kTile]) {
#pragma omp simd
  for (int i = 0; i < kTile; ++i)
    out[i] += grad[i % kLanes] * teacher.entry[i] *
              (teacher.decay[i] - student.decay[i] *
               std::max(teacher.hit[i], T(kMinHit)) /
               std::max(student.hit[i], T(kMinHit)));
}

}  // namespace
