// build: a model file to an Engine.
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/vector.h>

#include "lifetime.h"
#include "progress.h"
#include "tandem/build.h"

using namespace nb::literals;

namespace tandem::python {

ProgressCallback progress_callback(nb::object told) {
  const std::shared_ptr<nb::object> held(new nb::object(std::move(told)), [](nb::object* object) { delete_with_gil(object); });
  return [held](std::string_view what, double done) {  // copied and dropped without the GIL
    const nb::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
    if (!held->is_none()) (*held)(nb::str(what.data(), what.size()), done);
  };
}

void bind_build(nb::module_& module) {
  nb::class_<BuildOptions>(module, "_BuildOptions")
      .def(nb::init<>())
      .def_rw("device", &BuildOptions::device)
      .def_rw("target", &BuildOptions::target)
      .def_rw("mesh", &BuildOptions::mesh)
      .def_rw("ranks", &BuildOptions::ranks)
      .def_rw("strategies", &BuildOptions::strategies)
      .def_rw("io", &BuildOptions::io)
      .def_rw("shapes", &BuildOptions::shapes)
      .def_rw("profiles", &BuildOptions::profiles)
      .def_rw("disabled_passes", &BuildOptions::disabled_passes)
      .def_rw("dump", &BuildOptions::dump)
      .def_rw("dtype", &BuildOptions::dtype)
      .def_rw("weights", &BuildOptions::weights)
      .def_rw("channels_last", &BuildOptions::channels_last)
      .def_rw("tf32", &BuildOptions::tf32)
      .def_rw("refittable", &BuildOptions::refittable)
      .def_rw("timed", &BuildOptions::timed)
      .def_rw("kernels", &BuildOptions::kernels)
      .def_rw("timing_cache", &BuildOptions::timing_cache)
      .def_rw("threads", &BuildOptions::threads);
  module.def(
      "_build",
      [](const std::filesystem::path& path, BuildOptions options, nb::object progress) {
        options.progress = progress_callback(std::move(progress));
        const nb::gil_scoped_release release;
        return build(path.string(), options);
      },
      "path"_a, "options"_a, "progress"_a = nb::none(),
      nb::sig("def _build(path: str | os.PathLike[str], options: _BuildOptions, progress: collections.abc.Callable[[str, float], object] | "
              "None = None) "
              "-> Engine"));
  module.def(
      "_time_kernels",
      [](const Engine& engine, const std::filesystem::path& timing_cache, int threads, nb::object progress) {
        const TimingOptions options{timing_cache.string(), threads, progress_callback(std::move(progress))};
        const nb::gil_scoped_release release;
        return time_kernels(engine, options);
      },
      "engine"_a, "timing_cache"_a, "threads"_a, "progress"_a = nb::none(),
      nb::sig("def _time_kernels(engine: Engine, timing_cache: str | os.PathLike[str], threads: int, progress: "
              "collections.abc.Callable[[str, float], object] | None = None) -> Engine"));
}

}  // namespace tandem::python
