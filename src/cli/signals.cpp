#include "cli/signals.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

namespace tandem::cli {
namespace {

std::atomic<int> caught{0};
// Longer than ranks may take to end; for work that does not ask whether to stop.
constexpr unsigned kLastResort = 15;

// Rank processes die with this one, whichever way it ends.
void on_signal(int signal) {
  int none = 0;
  if (!caught.compare_exchange_strong(none, signal)) ::_exit(128 + signal);
  ::alarm(kLastResort);
}

void on_alarm(int) { ::_exit(128 + caught.load()); }

}  // namespace

void catch_signals() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  action.sa_handler = on_alarm;
  ::sigaction(SIGALRM, &action, nullptr);
  ::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is an error of its write
}

int signal_caught() { return caught.load(); }

}  // namespace tandem::cli
