// Model: the ranks of an engine, started and used as one.
#include <fmt/format.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include "progress.h"
#include "rank_runner.h"
#include "session.h"
#include "tandem/team.h"

using namespace nb::literals;

namespace tandem::python {
namespace {

struct ModelSettings {
  std::string isolate;
  int threads = 0;
  double step_deadline = 30, load_deadline = 120, rendezvous_deadline = 60, drain_deadline = 10;
  std::optional<std::size_t> weight_budget;
  ProgressCallback progress;
};

constexpr double kStopDeadline = 0.05;  // seconds that a running step may still take: Ctrl-C is to end a wait within half a second

// The program that serves as a rank process lies in the package.
std::vector<std::string> rank_command() {
  const nb::object path = nb::module_::import_("tandem").attr("__path__")[0];
  return {nb::cast<std::string>(nb::str(path)) + "/bin/tandem", "rank"};
}

// One rank runs on the thread that calls, several as a team.
class Ranks {
 public:
  Ranks(const Engine& engine, const ModelSettings& settings, const std::shared_ptr<Interrupt>& interrupt)
      : inputs_(engine.inputs(), "input"), outputs_(engine.outputs(), "output"), on_gpu_(engine.device() == "cuda"), interrupt_(interrupt) {
    if (settings.isolate != "threads" && settings.isolate != "processes")
      throw Error(ErrorCode::invalid_argument, "isolate is '" + settings.isolate + "', expected 'threads' or 'processes'");
    if (engine.ranks() == 1 && settings.isolate == "threads") {
      const ContextOptions options{.threads = settings.threads,
                                   .profile = -1,
                                   .weight_budget_bytes = settings.weight_budget,
                                   .step_deadline_s = settings.step_deadline,
                                   .progress = settings.progress};
      single_.emplace(engine, options, interrupt);
      return;
    }
    TeamOptions options;
    if (settings.isolate == "processes") options.rank_command = rank_command();
    options.threads = settings.threads;
    options.weight_budget_bytes = settings.weight_budget;
    options.step_deadline_s = settings.step_deadline;
    options.load_deadline_s = settings.load_deadline;
    options.rendezvous_deadline_s = settings.rendezvous_deadline;
    options.drain_deadline_s = settings.drain_deadline;
    options.stop = [interrupt] { return interrupt->stop(); };
    options.stop_deadline_s = kStopDeadline;
    options.progress = settings.progress;
    interrupt_->waiting([&] { team_ = std::make_unique<Model>(engine, options); });
  }

  nb::dict run(nb::handle inputs, nb::handle named, nb::handle outputs) {
    if (single_) return single_->run(inputs, named, outputs);
    Place host;
    if (on_gpu_)
      host.why_not = "a model of several ranks takes and gives arrays of the host; a Context is one rank and takes those of its GPU";
    GivenArrays given(inputs_, host);
    auto wanted = std::make_unique<GivenArrays>(outputs_, host);
    given.take(inputs);
    given.take(named);
    given.require_all();
    wanted->take(outputs);
    wanted->require_writable(given);
    const ArrayKind kind = given.kind() == ArrayKind::other ? ArrayKind::numpy : given.kind();
    const nb::object like = given.like().is_valid() ? nb::borrow(given.like()) : nb::object();
    int packed = 0;
    const RankArrays arrays = given.share(packed);
    std::map<std::string, std::vector<nb::object>> made;
    std::map<std::string, std::vector<Shape>> offered;  // the largest shapes, where these depend on data
    const OutputMemory memory = [&](const std::string& name, DType type, const Shape& shape, int) {
      const nb::gil_scoped_acquire gil;
      offered[name].push_back(shape);
      return output_memory(name, type, shape, kind, *wanted, made[name]);
    };
    Model& team = *team_;  // stays, also if close() lets go of it meanwhile
    RankArrays written;
    interrupt_->waiting([&] { written = team.run(arrays, memory); });
    learn(team.notices());
    copies_ = packed + team.last_copies();
    for (auto& [name, list] : made)
      for (std::size_t i = 0; i < list.size(); ++i)
        if (const Shape& shape = written.at(name).at(i).shape; shape != offered[name].at(i)) list[i] = narrowed(list[i], shape);
    return results(made, kind, given.kind(), like);
  }

  int last_copies() const { return single_ ? single_->last_copies() : copies_; }
  const std::vector<std::string>& notices() const { return notices_; }
  double last_seconds() const { return single_ ? single_->last_seconds() : team_ ? team_->last_seconds() : 0; }
  void interrupt() { interrupt_->end(); }
  void end() {
    if (single_) single_->end();
    team_.reset();
  }
  void abandon() {
    if (single_) single_->abandon();
    team_.release();
  }

 private:
  // The logger gets what it has not had yet.
  void learn(const std::vector<std::string>& notices) {
    if (notices == notices_) return;
    notices_ = notices;
    const nb::object log = nb::module_::import_("logging").attr("getLogger")("tandem");
    for (const std::string& notice : notices_) log.attr("warning")("%s", notice);
  }

  // The caller's array, or a fresh one; what is returned keeps it alive.
  std::shared_ptr<std::byte> output_memory(const std::string& name, DType type, const Shape& shape, ArrayKind kind,
                                           const GivenArrays& wanted, std::vector<nb::object>& made) {
    const auto& array = wanted[outputs_.find(nb::str(name.c_str(), name.size()))];
    if (array && array->shape() != shape)
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("the array for output '{}' has shape {}, expected {}", name, to_string(array->shape()), to_string(shape)));
    MadeArray target = array ? MadeArray{nb::borrow(array->object()), array->data()} : make_array(kind, type, shape);
    made.push_back(target.object);
    auto* owner = new nb::object(std::move(target.object));
    return {target.data, [owner](std::byte*) { delete_with_gil(owner); }};
  }

  nb::dict results(std::map<std::string, std::vector<nb::object>>& made, ArrayKind kind, ArrayKind wanted, nb::handle like) {
    nb::dict out;
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      auto& list = made.at(outputs_[i].name);
      if (wanted != kind)
        for (nb::object& array : list) array = converted_like(array, like);
      if (!outputs_[i].per_rank) {
        out[outputs_.name(i)] = list.at(0);
        continue;
      }
      nb::list all;
      for (const nb::object& array : list) all.append(array);
      out[outputs_.name(i)] = all;
    }
    return out;
  }

  PortTable inputs_, outputs_;
  bool on_gpu_;
  std::shared_ptr<Interrupt> interrupt_;
  std::optional<RankRunner> single_;
  std::unique_ptr<Model> team_;
  int copies_ = 0;
  std::vector<std::string> notices_;
};

class PyModel {
 public:
  PyModel(const Engine& engine, const ModelSettings& settings)
      : engine_(engine), ranks_(engine, settings, std::make_shared<Interrupt>()), session_("model", ranks_) {}

  nb::dict call(nb::handle inputs, const nb::kwargs& named) {
    const Session<Ranks>::Turn turn(session_);
    return ranks_.run(inputs, named, nb::none());
  }
  nb::dict run(nb::handle inputs, nb::handle outputs) {
    const Session<Ranks>::Turn turn(session_);
    return ranks_.run(inputs, nb::none(), outputs);
  }
  void close() { session_.close(); }
  bool closed() const { return session_.closed(); }
  const Engine& engine() const { return engine_; }
  double last_seconds() const { return closed() ? 0 : ranks_.last_seconds(); }
  int last_copies() const { return closed() ? 0 : ranks_.last_copies(); }
  const std::vector<std::string>& notices() const { return ranks_.notices(); }

 private:
  Engine engine_;
  Ranks ranks_;
  Session<Ranks> session_;
};

}  // namespace

void bind_model(nb::module_& module) {
  nb::class_<PyModel>(
      module, "Model",
      "The ranks of an engine, started and used as one. Serves one thread at a time; a context manager, closed at its end and at the "
      "latest when the interpreter exits. tandem.load makes one.")
      .def(
          "__init__",
          [](PyModel* self, const Engine& engine, const std::string& isolate, int threads, double step, double load, double rendezvous,
             double drain, std::optional<std::size_t> weight_budget, nb::object progress) {
            const ProgressCallback told = progress.is_none() ? ProgressCallback() : progress_callback(std::move(progress));
            new (self) PyModel(engine, {isolate, threads, step, load, rendezvous, drain, weight_budget, told});
          },
          "engine"_a, nb::kw_only(), "isolate"_a = "threads", "threads"_a = 0, "step_deadline"_a = 30.0, "load_deadline"_a = 120.0,
          "rendezvous_deadline"_a = 60.0, "drain_deadline"_a = 10.0, "weight_budget"_a = nb::none(), "progress"_a = nb::none(),
          nb::sig("def __init__(self, engine: Engine, *, isolate: str = \"threads\", threads: int = 0, step_deadline: float = 30.0, "
                  "load_deadline: float = 120.0, rendezvous_deadline: float = 60.0, drain_deadline: float = 10.0, "
                  "weight_budget: int | None = None, progress: collections.abc.Callable[[str, float], object] | None = None) -> None"),
          "Starts the ranks; the arguments are those of tandem.load, but that `progress` is a function or None.")
      .def("__call__", &PyModel::call, "inputs"_a = nb::none(), "named"_a,
           nb::sig("def __call__(self, inputs: collections.abc.Mapping[str, typing.Any] | None = None, /, **named: typing.Any) -> "
                   "dict[str, typing.Any]"),
           "Runs all ranks once. Inputs are whole arrays by name, as arguments or in a mapping: numpy, torch, or whatever has DLPack or "
           "the buffer "
           "protocol, of exactly the element type and shape that engine.inputs says. Contiguous arrays are used where they lie; others are "
           "packed first. "
           "An input with per_rank takes a list with an array per rank. Returns the outputs by name, as arrays of the same library, which "
           "live as long "
           "as you keep them.\n\n"
           "Raises InvalidArgumentError saying what was expected (nothing was run then), RankFailedError or DeadlineError naming a rank.")
      .def("run", &PyModel::run, "inputs"_a, "outputs"_a = nb::none(),
           nb::sig("def run(self, inputs: collections.abc.Mapping[str, typing.Any], outputs: collections.abc.Mapping[str, typing.Any] | "
                   "None = None) -> "
                   "dict[str, typing.Any]"),
           "As a call, but writes the outputs that `outputs` names into the arrays it gives: contiguous, writable, of exactly the type and "
           "shape, sharing "
           "no memory with an input. They are also in the result.")
      .def("close", &PyModel::close,
           "Ends the ranks, after interrupting a call that is running in another thread. Further calls raise InvalidArgumentError.")
      .def_prop_ro("closed", &PyModel::closed, "True once the ranks are ended.")
      .def_prop_ro("engine", &PyModel::engine, "What it runs.")
      .def_prop_ro("last_seconds", &PyModel::last_seconds,
                   "Seconds that the slowest rank took in the last call, without scatter and gather.")
      .def_prop_ro("last_copies", &PyModel::last_copies,
                   "How many arrays, or parts of them, the last call copied between your memory and that of the ranks.")
      .def_prop_ro(
          "notices", &PyModel::notices,
          "Sentences about the ranks, of the last call: that their GPUs communicate through the host, and why. The logger `tandem` got "
          "them too.")
      .def(
          "__enter__", [](nb::object self) { return self; }, nb::sig("def __enter__(self) -> Model"), "Returns itself.")
      .def(
          "__exit__", [](PyModel& self, const nb::args&) { self.close(); }, nb::sig("def __exit__(self, *exception: object) -> None"),
          "Closes.")
      .def(
          "__reduce__", [](nb::handle) { refuse_pickling("a Model"); }, nb::sig("def __reduce__(self) -> typing.NoReturn"),
          "Raises TypeError.");
}

}  // namespace tandem::python
