// Model: the ranks of an engine, started and used as one.

#include "arrays.h"
#include "lifetime.h"
#include "tandem/team.h"

using namespace nb::literals;

namespace tandem::python {
namespace {

struct ModelSettings {
  std::string isolate;
  int threads = 0;
  double step_deadline = 30, load_deadline = 120, rendezvous_deadline = 60, drain_deadline = 10;
};

// The program that serves as a rank process lies in the package.
std::vector<std::string> rank_command() {
  const nb::object path = nb::module_::import_("tandem").attr("__path__")[0];
  return {nb::cast<std::string>(nb::str(path)) + "/bin/tandem", "rank"};
}

class PyModel {
 public:
  PyModel(const Engine& engine, const ModelSettings& settings)
      : engine_(engine), outputs_(engine.outputs()), interrupt_(std::make_shared<Interrupt>()), at_exit_([this] { close(); }) {
    if (settings.isolate != "threads" && settings.isolate != "processes")
      throw Error(ErrorCode::invalid_argument, "isolate is '" + settings.isolate + "', expected 'threads' or 'processes'");
    for (const Port& port : engine.inputs()) {
      per_rank_[port.name] = port.per_rank;
    }
    TeamOptions options;
    if (settings.isolate == "processes") options.rank_command = rank_command();
    options.threads = settings.threads;
    options.step_deadline_s = settings.step_deadline;
    options.load_deadline_s = settings.load_deadline;
    options.rendezvous_deadline_s = settings.rendezvous_deadline;
    options.drain_deadline_s = settings.drain_deadline;
    options.stop = [interrupt = interrupt_] { return interrupt->stop(); };
    waiting([&] { model_.emplace(engine, options); });
  }
  ~PyModel() { close(); }

  nb::dict call(nb::object inputs, const nb::kwargs& named) {
    birthplace_.require_here("model");
    if (!model_) throw Error(ErrorCode::invalid_argument, "the model is closed");
    if (busy_) throw Error(ErrorCode::invalid_argument, "a model serves one thread at a time, and another call is still running");
    busy_ = true;
    struct Turn {
      bool& busy;
      ~Turn() { busy = false; }
    } turn{busy_};
    kind_ = ArrayKind::numpy;
    like_ = nb::object();
    RankArrays given;
    if (!inputs.is_none()) take_all(inputs, given);
    take_all(named, given);
    RankArrays results;
    waiting([&] { results = model_->run(given); });
    return outputs(results);
  }

  void close() {
    if (!model_) return;
    if (!birthplace_.here()) {
      new std::optional<Model>(std::move(model_));  // its threads are in another process: nothing to end here
      model_.reset();
      return;
    }
    interrupt_->end();
    const nb::gil_scoped_release release;
    model_.reset();
  }

  bool closed() const { return !model_; }
  const Engine& engine() const { return engine_; }
  double last_seconds() const { return model_ ? model_->last_seconds() : 0; }

 private:
  // Runs `work` without the GIL; a Ctrl-C ends it as KeyboardInterrupt.
  template <typename Work>
  void waiting(const Work& work) {
    interrupt_->begin();
    try {
      const nb::gil_scoped_release release;
      work();
    } catch (const Error& error) {
      if (error.code() == ErrorCode::interrupted) interrupt_->rethrow();
      throw;
    }
  }

  void take_all(const nb::object& inputs, RankArrays& given) {
    if (!PyMapping_Check(inputs.ptr()) || !nb::hasattr(inputs, "items"))
      throw Error(ErrorCode::invalid_argument, "inputs are given by name: model(NAME=array) or model({\"NAME\": array})");
    for (nb::handle item : inputs.attr("items")()) {
      const auto name = nb::cast<std::string>(nb::str(item[0]));
      take(name, item[1], given);
    }
  }

  void take(const std::string& name, nb::handle value, RankArrays& given) {
    const auto known = per_rank_.find(name);
    if (known != per_rank_.end() && known->second && (nb::isinstance<nb::list>(value) || nb::isinstance<nb::tuple>(value))) {
      for (nb::handle one : value) given[name].push_back(taken("input '" + name + "' of rank " + std::to_string(given[name].size()), one));
      return;
    }
    given[name] = {taken("input '" + name + "'", value)};
  }

  Array taken(const std::string& what, nb::handle value) {
    BorrowedArray array(value, what);
    if (array.kind() != ArrayKind::numpy && kind_ == ArrayKind::numpy) {
      kind_ = array.kind();
      like_ = nb::borrow(value);
    }
    return BorrowedArray::share(std::move(array));
  }

  nb::object given_back(const Array& array) {
    MadeArray made = make_array(kind_ == ArrayKind::torch ? kind_ : ArrayKind::numpy, array.dtype, array.shape);
    if (array.size_bytes() > 0) std::memcpy(made.data, array.data.get(), array.size_bytes());
    return kind_ == ArrayKind::other ? converted_like(made.object, like_) : made.object;
  }

  nb::dict outputs(const RankArrays& results) {
    nb::dict out;
    for (const Port& port : outputs_) {
      const auto& list = results.at(port.name);
      if (!port.per_rank) {
        out[port.name.c_str()] = given_back(list.at(0));
        continue;
      }
      nb::list all;
      for (const Array& array : list) all.append(given_back(array));
      out[port.name.c_str()] = all;
    }
    return out;
  }

  Engine engine_;
  std::vector<Port> outputs_;
  std::map<std::string, bool> per_rank_;
  std::shared_ptr<Interrupt> interrupt_;
  Birthplace birthplace_;
  std::optional<Model> model_;
  bool busy_ = false;  // guarded by the GIL
  ArrayKind kind_ = ArrayKind::numpy;
  nb::object like_;
  ClosedAtExit at_exit_;
};

}  // namespace

void bind_model(nb::module_& module) {
  nb::class_<PyModel>(module, "Model",
                      "The ranks of an engine, started and used as one. Serves one thread at a time; a context manager, closed at its end and at the "
                      "latest when the interpreter exits. tandem.load makes one.")
      .def(
          "__init__",
          [](PyModel* self, const Engine& engine, const std::string& isolate, int threads, double step, double load, double rendezvous, double drain) {
            new (self) PyModel(engine, {isolate, threads, step, load, rendezvous, drain});
          },
          "engine"_a, nb::kw_only(), "isolate"_a = "threads", "threads"_a = 0, "step_deadline"_a = 30.0, "load_deadline"_a = 120.0,
          "rendezvous_deadline"_a = 60.0, "drain_deadline"_a = 10.0, "Starts the ranks; the arguments are those of tandem.load.")
      .def("__call__", &PyModel::call, "inputs"_a = nb::none(), "named"_a,
           nb::sig("def __call__(self, inputs: collections.abc.Mapping[str, typing.Any] | None = None, /, **named: typing.Any) -> dict[str, typing.Any]"),
           "Runs all ranks once. Inputs are whole arrays by name, as arguments or in a mapping: numpy, torch, or whatever has DLPack or the buffer "
           "protocol, of exactly the element type and shape that engine.inputs says. Contiguous arrays are used where they lie; others are packed first. "
           "An input with per_rank takes a list with an array per rank. Returns the outputs by name, as arrays of the same library, which live as long "
           "as you keep them.\n\n"
           "Raises InvalidArgumentError saying what was expected (nothing was run then), RankFailedError or DeadlineError naming a rank.")
      .def("close", &PyModel::close, "Ends the ranks. Further calls raise InvalidArgumentError; a second close does nothing.")
      .def_prop_ro("closed", &PyModel::closed, "True once the ranks are ended.")
      .def_prop_ro("engine", &PyModel::engine, "What it runs.")
      .def_prop_ro("last_seconds", &PyModel::last_seconds, "Seconds that the slowest rank took in the last call, without scatter and gather.")
      .def("__enter__", [](nb::object self) { return self; }, nb::sig("def __enter__(self) -> Model"), "Returns itself.")
      .def("__exit__", [](PyModel& self, const nb::args&) { self.close(); }, nb::sig("def __exit__(self, *exception: object) -> None"), "Closes.");
}

}  // namespace tandem::python
