// Session: what every Python object keeps to that runs ranks or is one among them: one call at a time, closed at last, of the process that
// made it.
#pragma once

#include <chrono>
#include <thread>

#include "lifetime.h"
#include "tandem/error.h"

namespace tandem::python {

// `T` ends what it holds in end(), without the GIL, or lets go of it for ever in abandon(). interrupt(), without the GIL too, makes a call
// that another thread is in come to its end soon. The GIL guards everything else.
template <typename T>
class Session {
 public:
  // `name`: "model", for messages.
  Session(const char* name, T& held) : name_(name), held_(held), at_exit_([this] { close(); }) {}
  ~Session() { close(); }

  // Holds the object for one call.
  class Turn {
   public:
    explicit Turn(Session& session) : session_(session) {
      session.require_open();
      if (session.busy_)
        throw Error(ErrorCode::invalid_argument,
                    std::string("a ") + session.name_ + " serves one thread at a time, and another call is still running");
      session.busy_ = true;
      session.caller_ = std::this_thread::get_id();
    }
    ~Turn() { session_.busy_ = false; }
    Turn(const Turn&) = delete;

   private:
    Session& session_;
  };

  bool closed() const { return closed_; }
  // Throws Error(invalid_argument) once it is closed, or in a forked child.
  void require_open() const {
    birthplace_.require_here(name_);
    if (closed_) throw Error(ErrorCode::invalid_argument, std::string("the ") + name_ + " is closed");
  }

  // A call that is running in another thread is interrupted first; one that is still running after ten seconds keeps what it uses.
  void close() {
    if (closed_) return;
    if (busy_ && caller_ == std::this_thread::get_id() && birthplace_.here())
      throw Error(ErrorCode::invalid_argument, std::string("the ") + name_ + " cannot be closed by what one of its own calls runs");
    closed_ = true;
    if (!birthplace_.here()) return held_.abandon();
    const nb::gil_scoped_release release;
    if (busy_) held_.interrupt();
    const auto last = std::chrono::steady_clock::now() + kPatience;
    while (busy_ && std::chrono::steady_clock::now() < last) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (busy_) held_.abandon();
    else held_.end();
  }

 private:
  static constexpr std::chrono::seconds kPatience{10};

  const char* name_;
  T& held_;
  Birthplace birthplace_;
  std::atomic<bool> busy_{false};
  std::thread::id caller_;  // whoever is in a call
  bool closed_ = false;
  ClosedAtExit at_exit_;
};

// To be pickled, an object must be more than running ranks.
[[noreturn]] inline void refuse_pickling(const char* what) {
  throw nb::type_error(
      (std::string(what) +
       " cannot be pickled: it holds what lives in this process only; pickle the path of the engine file and open it there")
          .c_str());
}

}  // namespace tandem::python
