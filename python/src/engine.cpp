// Engine, Port, Collective: what an engine file says about itself.
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include "arrays.h"
#include "host_memory.h"
#include "progress.h"
#include "session.h"
#include "tandem/engine.h"

using namespace nb::literals;

namespace tandem::python {
namespace {

nb::object as_extent(const std::string& text) {
  const bool number = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
  return number ? nb::object(nb::int_(std::stoll(text))) : nb::object(nb::str(text.c_str()));
}

nb::tuple shape_of(const Port& port) {
  nb::list extents;
  for (const std::string& extent : port.shape) extents.append(as_extent(extent));
  return nb::tuple(extents);
}

std::string port_text(const Port& port) {
  std::string text = port.name + ": " + std::string(to_string(port.dtype)) + "[";
  for (std::size_t d = 0; d < port.shape.size(); ++d) text += (d ? "," : "") + port.shape[d];
  return text + "]" + (port.sharding.empty() ? "" : " " + port.sharding);
}

void bind_port(nb::module_& module) {
  nb::class_<Port>(module, "Port", "An input or output of an engine, as its caller sees it: whole, not cut for the ranks.")
      .def_ro("name", &Port::name, "Its name, as in the imported model.")
      .def_prop_ro(
          "dtype", [](const Port& p) { return std::string(to_string(p.dtype)); }, "Element type: \"f32\", \"bf16\", \"i64\", \"bool\", …")
      .def_prop_ro("shape", shape_of, nb::sig("def shape(self) -> tuple[int | str, ...]"),
                   "Extents in elements: a number, or a word or expression for one that each call may choose.")
      .def_ro("sharding", &Port::sharding, "How the ranks hold it, such as \"{0: dp}\"; empty where each has all of it.")
      .def_ro("per_rank", &Port::per_rank, "True where every rank has a value of its own: a list of arrays, one per rank.")
      .def("__repr__", [](const Port& p) { return "Port(" + port_text(p) + ")"; });
  nb::class_<CollectiveReport>(module, "Collective", "An exchange between ranks that every run of an engine does.")
      .def_ro("operation", &CollectiveReport::operation, "\"all_reduce\", \"all_gather\", …")
      .def_ro("reduce", &CollectiveReport::reduce, "\"sum\", \"prod\", \"max\", \"min\" or \"avg\"; empty where nothing is reduced.")
      .def_ro("axis", &CollectiveReport::axis, "The mesh axis whose ranks take part; empty for lists of ranks.")
      .def_ro("node", &CollectiveReport::node, "The node that it repairs or is.")
      .def_ro("count", &CollectiveReport::count, "How often a run does it: a number or an expression.")
      .def_ro("bytes", &CollectiveReport::bytes, "Bytes of the input of one rank: a number or an expression over the dynamic extents.")
      .def_ro("note", &CollectiveReport::note, "Why it is there.")
      .def("__repr__", [](const CollectiveReport& c) {
        return "Collective(" + c.operation + " over " + c.axis + ", " + c.bytes + " bytes, " + c.node + ")";
      });
}

Engine load_engine_of(nb::object source) {
  if (PyUnicode_Check(source.ptr()) || nb::hasattr(source, "__fspath__")) {
    const auto path = nb::cast<std::filesystem::path>(source);
    const nb::gil_scoped_release release;
    return load_engine(path.string());
  }
  const Array bytes = bytes_of(source);
  const nb::gil_scoped_release release;
  return load_engine(bytes);
}

nb::object described(const Engine& engine, const nb::object& at) {
  std::map<std::string, std::int64_t> sizes;
  if (!at.is_none())
    for (nb::handle item : at.attr("items")()) sizes[nb::cast<std::string>(item[0])] = nb::cast<std::int64_t>(item[1]);
  return nb::module_::import_("json").attr("loads")(engine.describe(sizes));
}

nb::object looking(const char* function) { return nb::module_::import_("tandem.looking").attr(function); }

}  // namespace

void bind_weight_memory(nb::module_& module) {
  nb::class_<WeightMemory>(module, "WeightMemory", "What the weights of a rank take of its GPU, in bytes.")
      .def_ro("bytes", &WeightMemory::bytes, "Of all of them: with a budget of so much, and without one, nothing is streamed.")
      .def_ro("least_budget", &WeightMemory::least_budget, "The smallest budget with which it runs.")
      .def_ro("ring_bytes", &WeightMemory::ring_bytes, "Of the room in which streamed weights arrive, once for each context.")
      .def_ro("streamed_bytes", &WeightMemory::streamed_bytes, "Of weights that each run copies to the GPU again.")
      .def("__repr__", [](const WeightMemory& w) {
        return "WeightMemory(bytes=" + std::to_string(w.bytes) + ", least_budget=" + std::to_string(w.least_budget) +
               ", ring_bytes=" + std::to_string(w.ring_bytes) + ", streamed_bytes=" + std::to_string(w.streamed_bytes) + ")";
      });
}

void bind_engine(nb::module_& module) {
  bind_port(module);
  bind_weight_memory(module);
  nb::class_<Engine>(module, "Engine",
                     "A model compiled for all its ranks. Immutable; made by tandem.build or tandem.load_engine, run by Model or Context.")
      .def_prop_ro("ranks", &Engine::ranks, "How many ranks run it together.")
      .def_prop_ro("device", &Engine::device, "What its ranks run on: \"cpu\" or \"cuda\".")
      .def_prop_ro(
          "mesh", [](const Engine& e) { return nb::module_::import_("tandem.mesh").attr("Mesh").attr("parse")(e.mesh()); },
          nb::sig("def mesh(self) -> tandem.mesh.Mesh"), "How the ranks are arranged: named axes and their sizes.")
      .def_prop_ro(
          "inputs", [](const Engine& e) { return e.inputs(); }, "The inputs in the model's order.")
      .def_prop_ro(
          "outputs", [](const Engine& e) { return e.outputs(); }, "The outputs in the model's order.")
      .def_prop_ro("profiles", &Engine::profiles,
                   "How many optimization profiles it has: ranges of shapes, each with a program of its own. One at least.")
      .def_prop_ro("auxiliary_streams", &Engine::auxiliary_streams,
                   "Streams besides the one given that a context of a rank uses, at most; Context.set_auxiliary_streams gives it some.")
      .def_prop_ro("collectives", &Engine::collectives, "What the ranks exchange in a run, in order.")
      .def_prop_ro("notices", &Engine::notices, "Sentences that a user of the model should read.")
      .def_prop_ro("has_weights", &Engine::has_weights, "False for an engine without weights: it can be inspected and refitted, not run.")
      .def(
          "save",
          [](const Engine& engine, const std::filesystem::path& path, bool weights, nb::object progress) {
            const ProgressCallback report = progress_callback(std::move(progress));
            const nb::gil_scoped_release release;
            engine.save(path.string(), {.weights = weights, .progress = report});
          },
          "path"_a, nb::kw_only(), "weights"_a = true, "progress"_a = nb::none(),
          nb::sig("def save(self, path: str | os.PathLike[str], *, weights: bool = True, "
                  "progress: collections.abc.Callable[[str, float], object] | None = None) -> None"),
          "Writes the engine file, which appears whole or not at all. \"{rank}\" in `path` gives one file per rank: needed where each rank "
          "has a "
          "program of its own. `weights=False` leaves out what a checkpoint can bring by `tandem refit`. `progress` is told what is done "
          "and how "
          "much of it, 0 to 1. Raises IoError, InvalidArgumentError.")
      .def(
          "to_bytes",
          [](const Engine& engine, bool weights) {
            const nb::gil_scoped_release release;
            return HostMemory{engine.to_bytes({.weights = weights})};
          },
          nb::kw_only(), "weights"_a = true,
          "The bytes that save() writes, in memory, for load_engine. Raises UnsupportedError where each rank has a program of its own.")
      .def(
          "weight_memory",
          [](const Engine& engine, std::optional<std::size_t> budget, int rank) {
            const nb::gil_scoped_release release;
            return engine.weight_memory(budget, rank);
          },
          "budget"_a = nb::none(), nb::kw_only(), "rank"_a = 0,
          "What the weights of a rank take of its GPU with a `weight_budget`, see tandem.load, or without one. Raises UnsupportedError for "
          "an engine of CPU ranks, InvalidArgumentError with the least budget where it is too small.")
      .def(
          "automatic_weight_budget",
          [](const Engine& engine, int rank) {
            const nb::gil_scoped_release release;
            return engine.automatic_weight_budget(rank);
          },
          nb::kw_only(), "rank"_a = 0,
          "A `weight_budget` for what is free on the rank's GPU at present, less its activations. Raises UnsupportedError for an engine of "
          "CPU ranks.")
      .def("describe", &described, "at"_a = nb::none(),
           nb::sig("def describe(self, at: collections.abc.Mapping[str, int] | None = None) -> dict[str, typing.Any]"),
           "All about it, with the keys of `tandem inspect --json`: mesh, inputs, outputs, values with how they lie over the mesh, steps "
           "with layer, "
           "kernel and microseconds, collectives with bytes, weights, bytes per rank and step. Bytes are for the sizes in `at`, such as "
           "{\"batch\": 8}, and for typical ones of what it does not name; steps are those of the optimization profile that fits these "
           "sizes best. Raises InvalidArgumentError for sizes that the engine does not have.")
      .def(
          "to_graphviz", [](const Engine& e, const nb::object& at) { return looking("graphviz")(described(e, at)); }, "at"_a = nb::none(),
          nb::sig("def to_graphviz(self, at: collections.abc.Mapping[str, int] | None = None) -> str"),
          "The program of one rank in the DOT language, for `dot -Tsvg`: steps in boxes by layer, exchanges in the colour of their mesh "
          "axis, edges with "
          "type and sharding. `at` as for describe.")
      .def(
          "_repr_html_", [](const Engine& e) { return looking("engine_html")(described(e, nb::none())); },
          nb::sig("def _repr_html_(self) -> str"),
          "Tables for notebooks: inputs and outputs, what a rank holds and sends, steps with what they make, shardings and bytes. Safe for "
          "any names.")
      .def(
          "create_context",
          [](nb::object self, const nb::kwargs& options) { return nb::module_::import_("tandem._core").attr("Context")(self, **options); },
          "options"_a,
          nb::sig("def create_context(self, *, rank: int = 0, threads: int = 0, profile: int = 0, step_deadline: float = 30.0, "
                  "rendezvous_deadline: float = 60.0, weight_budget: int | None = None) -> Context"),
          "Context(engine, …): one rank of it, run by the thread that calls.")
      .def(
          "random_inputs",
          [](const Engine& engine, unsigned seed, int profile) {
            nb::dict out;
            for (const auto& [name, array] : engine.random_inputs(seed, profile)) out[name.c_str()] = to_numpy(array);
            return out;
          },
          "seed"_a = 0u, "profile"_a = 0, nb::sig("def random_inputs(self, seed: int = 0, profile: int = 0) -> dict[str, typing.Any]"),
          "numpy arrays of the declared shapes, by name; dynamic extents take their typical values in the optimization profile. Integers "
          "are 0 and 1, floats lie in -1 to 1. The "
          "same for one seed.")
      .def(
          "__reduce__", [](nb::handle) { refuse_pickling("an Engine"); }, nb::sig("def __reduce__(self) -> typing.NoReturn"),
          "Raises TypeError.")
      .def("__repr__", [](const Engine& e) {
        std::string text = "Engine(" + std::to_string(e.ranks()) + (e.ranks() == 1 ? " rank" : " ranks, mesh " + e.mesh());
        for (const Port& port : e.inputs()) text += ", " + port_text(port);
        text += " ->";
        for (const Port& port : e.outputs()) text += " " + port_text(port);
        return text + ")";
      });
  module.def("load_engine", load_engine_of, "path"_a,
             nb::sig("def load_engine(path: str | os.PathLike[str] | bytes | bytearray | memoryview | HostMemory) -> Engine"),
             "Opens an engine file without loading weights: cheap. \"{rank}\" in its name: one file per rank. Or an engine from the bytes "
             "of such a file, "
             "in any buffer; used where they lie if aligned to 64 bytes. Raises InvalidEngineError, MismatchError, IoError.");
  module.def(
      "is_engine_file", [](const std::filesystem::path& path) { return is_engine_file(path.string()); }, "path"_a,
      nb::sig("def is_engine_file(path: str | os.PathLike[str]) -> bool"), "Whether this is a file that starts as engine files do.");
}

}  // namespace tandem::python
