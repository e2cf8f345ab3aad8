#include "cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <memory>

#include "cli/signals.h"

namespace tandem::cli {
namespace {

class ProgressLine {
 public:
  explicit ProgressLine(bool quiet) : quiet_(quiet), terminal_(::isatty(STDERR_FILENO) == 1) {}
  ~ProgressLine() {
    if (open_) fmt::print(stderr, "\r\x1b[K");
  }

  void show(std::string_view what, double done) {
    if (stop_requested()) throw Error(ErrorCode::interrupted, "interrupted");
    const auto now = std::chrono::steady_clock::now();
    const auto pause = terminal_ && open_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(1000);
    if (quiet_ || now - last_ < pause) return;
    last_ = now;
    const int percent = static_cast<int>(100 * done);
    if (terminal_) fmt::print(stderr, "\r\x1b[Ktandem: {} {}%", what, percent);
    else fmt::print(stderr, "tandem: {} {}%\n", what, percent);
    std::fflush(stderr);
    open_ = terminal_;
  }

 private:
  bool quiet_, terminal_, open_ = false;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace

ProgressCallback show_progress(const Common& common) {
  return [line = std::make_shared<ProgressLine>(common.quiet())](std::string_view what, double done) { line->show(what, done); };
}

}  // namespace tandem::cli
