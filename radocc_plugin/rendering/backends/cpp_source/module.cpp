// What Python sees; see the functions of the same names in ops.py and
// density.py. One translation unit: most of the build is
// torch's headers.
#include "density.h"
#include "exact.h"

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  const auto no_gil = py::call_guard<py::gil_scoped_release>();
  m.def("render", &render, no_gil);
  m.def("render_backward", &render_backward, no_gil);
  m.def("voxel_light", &voxel_light, no_gil);
  m.def("free_density", &free_density, no_gil);
  m.def("add_free_density_gradient", &add_free_density_gradient, no_gil);
  m.def("softplus_density", &softplus_density, no_gil);
  m.def("add_softplus_gradient", &add_softplus_gradient, no_gil);
}
