#include "team/spawner.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/check.h"

namespace tandem {
namespace {

// Between fork and exec: nothing but system calls. Reports errno of a failed exec through `failure`.
[[noreturn]] void become(char* const* arguments, int socket, pid_t leader, int failure) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != leader) ::_exit(1);
  // A terminal and a service manager signal the whole group; when ranks end is the leader's business.
  ::signal(SIGINT, SIG_IGN);
  ::signal(SIGTERM, SIG_IGN);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  const int nothing = ::open("/dev/null", O_RDONLY);
  if (nothing >= 0) ::dup2(nothing, STDIN_FILENO);
  ::close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
  ::fcntl(socket, F_SETFD, 0);
  ::execv(arguments[0], arguments);
  const int error = errno;
  [[maybe_unused]] const ssize_t told = ::write(failure, &error, sizeof error);
  ::_exit(127);
}

std::pair<pid_t, int> spawn(const std::vector<std::string>& command, int socket) {
  std::vector<std::string> words = command;
  words.push_back(std::to_string(socket));
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  int failure[2];
  if (::pipe2(failure, O_CLOEXEC) != 0) return {-1, errno};
  const pid_t leader = ::getpid();
  const pid_t process = ::fork();
  if (process == 0) become(arguments.data(), socket, leader, failure[1]);
  int error = process < 0 ? errno : 0;
  ::close(failure[1]);
  if (process > 0 && ::read(failure[0], &error, sizeof error) > 0) {  // it ends at once: nothing to wait long for
    ::waitpid(process, nullptr, 0);
    ::close(failure[0]);
    return {-1, error};
  }
  ::close(failure[0]);
  return {process, error};
}

}  // namespace

Spawner::Spawner(std::vector<std::string> command) : command_(std::move(command)) {
  if (command_.empty()) fail(ErrorCode::invalid_argument, "no program is named that serves as a rank process");
  thread_ = std::thread([this] { keep(); });
}

Spawner::~Spawner() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Spawner::keep() {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, nullptr);  // signals are for the threads of the program
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return closing_ || wanted_; });
    if (closing_) return;
    made_ = spawn(command_, *wanted_);
    wanted_.reset();
    changed_.notify_all();
  }
}

pid_t Spawner::start(int socket) {
  std::unique_lock lock(mutex_);
  wanted_ = socket;
  changed_.notify_all();
  changed_.wait(lock, [&] { return made_.has_value(); });
  const auto [process, error] = *made_;
  made_.reset();
  if (process < 0) fail(ErrorCode::io, "cannot start {} as a rank process: {}", command_[0], std::strerror(error));
  return process;
}

}  // namespace tandem
