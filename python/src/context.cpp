// Context: for programs that are a rank themselves.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include "group.h"
#include "rank_runner.h"
#include "session.h"

using namespace nb::literals;

namespace tandem::python {
namespace {

class PyContext {
 public:
  PyContext(const Engine& engine, int rank, int threads, int profile, double step, double rendezvous, std::optional<std::size_t> budget)
      : engine_(engine),
        rank_(rank),
        runner_(engine,
                {.rank = rank,
                 .threads = threads,
                 .profile = profile,
                 .weight_budget_bytes = budget,
                 .step_deadline_s = step,
                 .rendezvous_deadline_s = rendezvous},
                std::make_shared<Interrupt>()),
        session_("context", runner_) {}

  // One method of the runner, as this object's only call.
  template <typename Work>
  auto turn(const Work& work) {
    const Session<RankRunner>::Turn turn(session_);
    return work(runner_);
  }
  void set_communicator(nb::handle group) {
    turn([&](RankRunner& runner) {
      GivenGroup given = group_of(group, engine_.device() == "cuda");
      notices_ = runner.set_communicator(std::move(given.group));
      lender_ = std::move(given.lender);
    });
    const nb::object log = nb::module_::import_("logging").attr("getLogger")("tandem");
    for (const std::string& notice : notices_) log.attr("warning")("%s", notice);
  }
  void close() { session_.close(); }
  bool closed() const { return session_.closed(); }
  const Engine& engine() const { return engine_; }
  int rank() const { return rank_; }
  std::string device() const { return runner_.gpu() < 0 ? "cpu" : "cuda:" + std::to_string(runner_.gpu()); }
  const std::vector<std::string>& notices() const { return notices_; }
  int last_copies() const { return runner_.last_copies(); }
  double last_seconds() const { return runner_.last_seconds(); }

 private:
  Engine engine_;
  int rank_;
  std::vector<std::string> notices_;
  nb::object lender_;
  RankRunner runner_;
  Session<RankRunner> session_;
};

nb::tuple shape_tuple(const Shape& shape) {
  nb::list extents;
  for (const std::int64_t extent : shape) extents.append(extent);
  return nb::tuple(extents);
}

}  // namespace

void bind_context(nb::module_& module) {
  nb::class_<PyContext>(
      module, "Context",
      "One rank of an engine, run by the thread that calls: for programs that are a rank themselves, such as those started by torchrun. "
      "Arrays are this rank's part of inputs and outputs. Many contexts share an engine's weights; each serves one thread at a time. A "
      "context manager.")
      .def(
          "__init__",
          [](PyContext* self, const Engine& engine, int rank, int threads, int profile, double step, double rendezvous,
             std::optional<std::size_t> budget) { new (self) PyContext(engine, rank, threads, profile, step, rendezvous, budget); },
          "engine"_a, nb::kw_only(), "rank"_a = 0, "threads"_a = 0, "profile"_a = 0, "step_deadline"_a = 30.0,
          "rendezvous_deadline"_a = 60.0, "weight_budget"_a = nb::none(),
          "Loads the weights of the rank. `threads` that compute, 0: cores / ranks; `profile` as for set_profile; deadlines in seconds; "
          "`weight_budget` as for tandem.load. Raises InvalidArgumentError, MismatchError, UnsupportedError.")
      .def("set_communicator", &PyContext::set_communicator, "group"_a.none(),
           nb::sig("def set_communicator(self, group: typing.Any) -> None"),
           "The Group to run with, or None to release it; of an engine for GPUs also a communicator of NCCL, as Group.from_nccl takes it. "
           "Local, never waits, in "
           "any order on the ranks, also again. One that the engine has no use for is taken with a notice. Raises MismatchError for a "
           "group of another size or rank than the engine's; an engine of one rank takes any.")
      .def(
          "set_profile", [](PyContext& self, int profile) { self.turn([&](RankRunner& r) { r.set_profile(profile); }); }, "profile"_a,
          "The optimization profile whose program runs from now on; the shapes that are set stay, and must fit it. -1: for each set of "
          "shapes the one that fits, "
          "of several that whose typical shapes are nearest. Work under way goes on. All ranks must use one profile: the next call "
          "compares. Raises "
          "InvalidArgumentError for one that is none.")
      .def_prop_ro(
          "profile", [](PyContext& self) { return self.turn([](RankRunner& r) { return r.profile(); }); },
          "The optimization profile in use, from 0; with -1, that of the last shapes.")
      .def_prop_ro(
          "auxiliary_streams", [](PyContext& self) { return self.turn([](RankRunner& r) { return r.auxiliary_streams(); }); },
          "Streams besides the one given that runs give work to, at most: of an engine for GPUs with attention over ranks, whose exchanges "
          "go beside it; else 0.")
      .def(
          "set_auxiliary_streams",
          [](PyContext& self, nb::handle streams) { self.turn([&](RankRunner& r) { r.set_auxiliary_streams(streams); }); }, "streams"_a,
          nb::keep_alive<1, 2>(), nb::sig("def set_auxiliary_streams(self, streams: collections.abc.Sequence[typing.Any]) -> None"),
          "From now on those are streams of the caller's, in this order: numbers, or objects that have one, as run() takes them; the "
          "context's own where "
          "one is None or there are fewer. They stay alive until they are replaced. Raises InvalidArgumentError for more than "
          "auxiliary_streams, one that occurs twice, CUDA's default stream and a stream of another GPU; a run raises it where one is the "
          "stream that it is given to.")
      .def(
          "set_input_shape",
          [](PyContext& self, nb::handle name, const Shape& shape) { self.turn([&](RankRunner& r) { r.set_input_shape(name, shape); }); },
          "name"_a, "shape"_a, nb::sig("def set_input_shape(self, name: str, shape: collections.abc.Sequence[int]) -> None"),
          "The shape of the whole input, of all ranks together. Not needed where every rank's part has the same size: then the arrays say "
          "it.")
      .def(
          "set_local_input_shape",
          [](PyContext& self, nb::handle name, const Shape& shape) {
            self.turn([&](RankRunner& r) { r.set_local_input_shape(name, shape); });
          },
          "name"_a, "shape"_a, nb::sig("def set_local_input_shape(self, name: str, shape: collections.abc.Sequence[int]) -> None"),
          "The same from the shape of this rank's part, where every rank has a part of that size.")
      .def(
          "input_shape",
          [](PyContext& self, nb::handle name) { return self.turn([&](RankRunner& r) { return shape_tuple(r.input_shape(name)); }); },
          "name"_a, nb::sig("def input_shape(self, name: str) -> tuple[int, ...]"), "The shape of this rank's part of an input.")
      .def(
          "output_shape",
          [](PyContext& self, nb::handle name) { return self.turn([&](RankRunner& r) { return shape_tuple(r.output_shape(name)); }); },
          "name"_a, nb::sig("def output_shape(self, name: str) -> tuple[int, ...]"),
          "The shape of this rank's part of an output; the largest where it depends on data, before a run and after.")
      .def(
          "last_output_shape",
          [](PyContext& self, nb::handle name) { return self.turn([&](RankRunner& r) { return shape_tuple(r.last_output_shape(name)); }); },
          "name"_a, nb::sig("def last_output_shape(self, name: str) -> tuple[int, ...]"),
          "What the last run wrote of this rank's part of an output, dense from the start of its memory. Raises InvalidArgumentError "
          "where that depends on data and no run has come to its end.")
      .def(
          "measured_dims",
          [](PyContext& self, nb::handle name) {
            return self.turn([&](RankRunner& r) {
              nb::list dims;
              for (const bool measured : r.measured_dims(name)) dims.append(measured);
              return nb::tuple(dims);
            });
          },
          "name"_a, nb::sig("def measured_dims(self, name: str) -> tuple[bool, ...]"),
          "Per dimension of an output whether its extent depends on data, as behind NonZero.")
      .def(
          "prepare", [](PyContext& self) { self.turn([](RankRunner& r) { r.prepare(); }); },
          "All first-time work for the shapes that are set. The first one after set_communicator waits for all ranks.")
      .def(
          "__call__",
          [](PyContext& self, nb::handle inputs, const nb::kwargs& named) {
            return self.turn([&](RankRunner& r) { return r.run(inputs, named, nb::none()); });
          },
          "inputs"_a = nb::none(), "named"_a,
          nb::sig("def __call__(self, inputs: collections.abc.Mapping[str, typing.Any] | None = None, /, **named: typing.Any) -> dict[str, "
                  "typing.Any]"),
          "Runs this rank once, with the others of its group. Arrays are taken and given as Model does. Raises InvalidArgumentError, and "
          "after another "
          "rank's failure RankFailedError, DeadlineError or AbortedError naming it.")
      .def(
          "run",
          [](PyContext& self, nb::handle inputs, nb::handle outputs, nb::handle stream) {
            return self.turn([&](RankRunner& r) { return r.run(inputs, nb::none(), outputs, stream); });
          },
          "inputs"_a, "outputs"_a = nb::none(), "stream"_a = nb::none(),
          nb::sig("def run(self, inputs: collections.abc.Mapping[str, typing.Any], outputs: collections.abc.Mapping[str, typing.Any] | "
                  "None = None, "
                  "stream: typing.Any = None) -> dict[str, typing.Any]"),
          "As a call, but writes outputs into the arrays of `outputs`, see Model.run. `stream`: of an engine for a GPU, what arrays of "
          "that GPU are worked "
          "on in; else torch's current stream, or CUDA's default stream. Raises as a call does.")
      .def(
          "run_addresses",
          [](PyContext& self, nb::handle addresses, nb::handle stream) {
            self.turn([&](RankRunner& r) { r.run_addresses(addresses, stream); });
          },
          "addresses"_a, "stream"_a = nb::none(),
          nb::sig("def run_addresses(self, addresses: collections.abc.Mapping[str, int], stream: typing.Any = None) -> None"),
          "Runs on memory given by address: one per input and output, dense, of this rank's part, under the shapes that are set. Nothing "
          "is checked. Of an "
          "engine for a GPU it is memory of that GPU; the work is given to `stream`, as run() takes it, and the call returns.")
      .def(
          "synchronize", [](PyContext& self) { self.turn([](RankRunner& r) { r.synchronize(); }); },
          "Waits until the GPU has done what it was given, on whatever streams; at once on the CPU. Raises what went wrong there, such as "
          "an index outside "
          "its extent, and DeadlineError once step_deadline has passed.")
      .def_prop_ro(
          "device", [](const PyContext& self) { return self.device(); }, "Where it runs: \"cpu\" or \"cuda:0\".")
      .def("close", &PyContext::close, "Frees what it holds. Further calls raise InvalidArgumentError.")
      .def_prop_ro("closed", &PyContext::closed, "True once it is closed.")
      .def_prop_ro("engine", &PyContext::engine, "What it runs.")
      .def_prop_ro("rank", &PyContext::rank, "The rank it is.")
      .def_prop_ro("notices", &PyContext::notices, "Sentences about the group that is bound; the logger `tandem` got them too.")
      .def_prop_ro("last_copies", &PyContext::last_copies, "How many arrays the last run copied.")
      .def_prop_ro("last_seconds", &PyContext::last_seconds, "Seconds that the last run took.")
      .def(
          "__enter__", [](nb::object self) { return self; }, nb::sig("def __enter__(self) -> Context"), "Returns itself.")
      .def(
          "__exit__", [](PyContext& self, const nb::args&) { self.close(); }, nb::sig("def __exit__(self, *exception: object) -> None"),
          "Closes.")
      .def(
          "__reduce__", [](nb::handle) { refuse_pickling("a Context"); }, nb::sig("def __reduce__(self) -> typing.NoReturn"),
          "Raises TypeError.");
}

}  // namespace tandem::python
