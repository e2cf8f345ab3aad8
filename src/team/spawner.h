// Spawner: starts rank processes that end with this process, however it ends.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace tandem {

// The kernel ends a child with the *thread* that made it, so the spawner has one of its own; it must live as long as its processes.
class Spawner {
 public:
  // `command`: a program, found without a search path, and its arguments.
  explicit Spawner(std::vector<std::string> command);
  ~Spawner();
  Spawner(const Spawner&) = delete;

  // Runs the command with one more argument, the number of `socket`, which is the only descriptor it inherits besides the standard
  // streams (no input). Interrupts and SIGTERM are left to this process. Throws Error(io) if the program cannot be run.
  pid_t start(int socket);

 private:
  void keep();

  std::vector<std::string> command_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<int> wanted_;                  // a socket
  std::optional<std::pair<pid_t, int>> made_;  // process, or -1 and errno
  bool closing_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace tandem
