// The walk of rays through the grid (Amanatides and Woo 1987), sixteen rays in
// step, so that a CPU's vector units do the arithmetic: the loops over lanes
// have no branches. The same formulas as geometry.traversal.
#pragma once
#include "rays.h"

namespace {

constexpr double kMinLength = 1e-9;  // geometry.traversal
constexpr int kLanes = 16;           // rays in step
constexpr int kSteps = 8;            // crossings of a ray handled at once
constexpr int kTile = kSteps * kLanes;

// The next crossings of the rays of a packet, step by step; of length 0 where
// a ray has none.
template <typename T>
struct Tile {
  int64_t voxel[kTile];
  T far[kTile], extent[kTile], length[kTile];
};

struct Packet {
  int size;
  int64_t ray[kLanes];
  double near[kLanes], end[kLanes], speed[kLanes];
  int64_t voxel[kLanes];
  // The planes crossed inside the grid on each axis are an arithmetic
  // sequence, so that no error adds up along a ray.
  double start[3][kLanes], period[3][kLanes], count[3][kLanes];
  double crossed[3][kLanes], next[3][kLanes];
  int64_t stride[3][kLanes];

  Packet(const Rays& rays, int64_t packet)
      : size(std::min<int64_t>(kLanes, rays.count - packet * kLanes)) {
    std::copy_n(rays.order + packet * kLanes, size, ray);
    for (int lane = 0; lane < kLanes; ++lane) {
      near[lane] = end[lane] = speed[lane] = voxel[lane] = 0;
      for (int a = 0; a < 3; ++a) {
        start[a][lane] = period[a][lane] = count[a][lane] = 0;
        crossed[a][lane] = stride[a][lane] = 0;
        next[a][lane] = std::numeric_limits<double>::infinity();
      }
      if (lane < size) enter(rays, lane);
    }
  }

  void enter(const Rays& rays, int lane) {
    const Grid& grid = rays.grid;
    const float* origin = rays.origins + 3 * ray[lane];
    const float* direction = rays.directions + 3 * ray[lane];
    double in = 0, out = std::numeric_limits<double>::infinity();
    for (int a = 0; a < 3; ++a) {
      const double low = grid.minimum[a] - origin[a];
      const double high = grid.maximum[a] - origin[a];
      if (direction[a] == 0) {
        if (low > 0 || high <= 0) return;
        continue;
      }
      const double t0 = low / direction[a], t1 = high / direction[a];
      in = std::max(in, std::min(t0, t1));
      out = std::min(out, std::max(t0, t1));
    }
    if (!(out > in)) return;
    near[lane] = in;
    end[lane] = out;
    int64_t at = rays.volume[ray[lane]], below = grid.voxels();
    double squares = 0;
    for (int a = 0; a < 3; ++a) {
      const int64_t last = grid.shape[a] - 1;
      const double where =
          (origin[a] + direction[a] * in - grid.minimum[a]) / grid.size[a];
      const bool backward = direction[a] < 0;
      const int64_t cell = std::min(
          std::max<int64_t>((int64_t)(backward ? std::ceil(where) - 1
                                               : std::floor(where)), 0), last);
      below /= grid.shape[a];
      at = at * grid.shape[a] + cell;
      squares += (double)direction[a] * direction[a];
      if (direction[a] == 0) continue;
      const int64_t plane = backward ? cell : cell + 1;
      start[a][lane] =
          (grid.minimum[a] + plane * grid.size[a] - origin[a]) / direction[a];
      period[a][lane] = grid.size[a] / std::abs((double)direction[a]);
      count[a][lane] = backward ? cell : last - cell;
      stride[a][lane] = backward ? -below : below;
      if (count[a][lane] > 0) next[a][lane] = start[a][lane];
    }
    voxel[lane] = at;
    speed[lane] = std::sqrt(squares);
  }

  template <typename T>
  [[gnu::noinline]] void step(int64_t* voxels, T* fars, T* extents,
                              T* lengths) {
#pragma omp simd
    for (int i = 0; i < kLanes; ++i) {
      const double plane =
          std::min(std::min(next[0][i], next[1][i]), next[2][i]);
      const double far = std::min(plane, end[i]);
      double extent = far - near[i];
      const bool valid = extent > kMinLength;
      extent = valid ? extent : 0;
      voxels[i] = voxel[i];
      fars[i] = far;
      extents[i] = extent;
      lengths[i] = extent * speed[i];
      const bool inside = plane < end[i];
      // the last stretch ends the ray however short it is
      near[i] = valid | !inside ? far : near[i];
      const bool x = inside & (next[0][i] == plane);
      const bool y = inside & !x & (next[1][i] == plane);
      const bool z = inside & !x & !y;
      voxel[i] += (x ? stride[0][i] : 0) + (y ? stride[1][i] : 0) +
                  (z ? stride[2][i] : 0);
      cross(0, i, x);
      cross(1, i, y);
      cross(2, i, z);
    }
  }

  inline void cross(int a, int i, bool crosses) {
    const double number = crossed[a][i] + 1;
    const double after = number < count[a][i]
                             ? start[a][i] + period[a][i] * number
                             : std::numeric_limits<double>::infinity();
    crossed[a][i] = crosses ? number : crossed[a][i];
    next[a][i] = crosses ? after : next[a][i];
  }

  // Ends the rays whose light is gone; false if all rays have ended.
  bool go_on(const bool (&shines)[kLanes]) {
    bool any = false;
    for (int i = 0; i < kLanes; ++i) {
      end[i] = shines[i] ? end[i] : near[i];
      any |= near[i] < end[i];
    }
    return any;
  }
};

inline int64_t packets(const Rays& rays) {
  return (rays.count + kLanes - 1) / kLanes;
}

// Walks the rays of a packet: fetch(voxel) for each crossing and
// visit(tile, shines) for each tile; shines[lane] becomes false where no light
// is left.
template <typename T, typename Fetch, typename Visit>
void each_tile(Packet& packet, Fetch&& fetch, Visit&& visit) {
  Tile<T> tile;
  bool shines[kLanes];
  std::fill(shines, shines + kLanes, true);
  while (packet.go_on(shines)) {
    for (int i = 0; i < kTile; i += kLanes) {
      packet.step(tile.voxel + i, tile.far + i, tile.extent + i,
                  tile.length + i);
      for (int k = i; k < i + kLanes; ++k)
        if (tile.length[k] > 0) fetch(tile.voxel[k]);
    }
    visit(tile, shines);
  }
}

}  // namespace
