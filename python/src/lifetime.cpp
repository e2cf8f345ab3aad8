#include "lifetime.h"

#include <pthread.h>

#include <algorithm>
#include <list>
#include <vector>

#include "tandem/error.h"

namespace tandem::python {
namespace {

std::atomic<bool> exited{false};
std::atomic<unsigned> forks{0};

std::list<ClosedAtExit*>& open_things() {  // guarded by the GIL
  static auto* list = new std::list<ClosedAtExit*>();
  return *list;
}

}  // namespace

bool interpreter_alive() { return !exited && Py_IsInitialized(); }

Birthplace::Birthplace() : forks_(forks) {}
bool Birthplace::here() const { return forks_ == forks; }

void Birthplace::require_here(const char* what) const {
  if (here()) return;
  throw Error(
      ErrorCode::invalid_argument,
      std::string("this ") + what +
          " was made before a fork, and its threads are in the parent process; make it in this process, or start processes with the "
          "method 'spawn'");
}

bool Interrupt::stop() {
  if (raised_ || ended_) return true;
  const auto now = std::chrono::steady_clock::now();
  if (now - asked_ < std::chrono::milliseconds(50)) return false;
  asked_ = now;
  if (!interpreter_alive()) return true;
  const nb::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) raised_.emplace();
  return raised_.has_value();
}

void Interrupt::rethrow() {
  if (!raised_) return;
  nb::python_error error(std::move(*raised_));
  raised_.reset();
  throw error;
}

ClosedAtExit::ClosedAtExit(std::function<void()> close) : close_(std::move(close)) { open_things().push_back(this); }
ClosedAtExit::~ClosedAtExit() { open_things().remove(this); }

void bind_lifetime(nb::module_& module) {
  pthread_atfork(nullptr, nullptr, [] { ++forks; });
  module.def("_exit", [] {
    std::vector<const ClosedAtExit*> closed;  // each close lets other threads in, which may drop what is listed
    const auto next = [&] {
      return std::ranges::find_if(open_things(),
                                  [&](const ClosedAtExit* thing) { return std::ranges::find(closed, thing) == closed.end(); });
    };
    for (auto thing = next(); thing != open_things().end(); thing = next()) closed.push_back(*thing), (*thing)->close();
  });
  module.def("_exited", [] { exited = true; });
  const nb::module_ atexit = nb::module_::import_("atexit");
  // Run last in, first out.
  atexit.attr("register")(module.attr("_exited"));
  atexit.attr("register")(module.attr("_exit"));
}

}  // namespace tandem::python
