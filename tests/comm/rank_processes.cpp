#include "comm/rank_processes.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "core/check.h"

namespace tandem {
namespace {

struct Report {
  bool ok;
  ErrorCode code;
  int rank;
  double seconds;
  char text[1200];
};
static_assert(sizeof(Report) < 4096, "a pipe takes it in one piece");

Report report_on(const std::function<void()>& life) {
  const std::int64_t start = monotonic_ns();
  Report report = {.ok = true};
  const auto failed = [&](ErrorCode code, int about, const char* text) {
    report.ok = false;
    report.code = code;
    report.rank = about;
    std::strncpy(report.text, text, sizeof report.text - 1);
  };
  try {
    life();
  } catch (const Error& error) {
    failed(error.code(), error.rank(), error.what());
  } catch (const std::exception& error) {
    failed(ErrorCode::internal, -1, error.what());
  }
  report.seconds = static_cast<double>(monotonic_ns() - start) * 1e-9;
  return report;
}

// Peers hear why a rank failed before they see it leave.
void run_body(ShmRegion& region, int rank, const std::function<void(Group&)>& body, std::chrono::nanoseconds rendezvous) {
  std::unique_ptr<Group> group;
  try {
    group = region.attach(rank, Deadline::after(rendezvous));
    body(*group);
  } catch (const std::exception& error) {
    region.mark_failed(rank, error.what());
    throw;
  }
}

bool is_stopped(pid_t pid) {
  siginfo_t info = {};
  return waitid(P_PID, static_cast<id_t>(pid), &info, WSTOPPED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

}  // namespace

RankProcesses::RankProcesses(int world, const std::function<void(Group&)>& body, const ShmOptions& options,
                             std::chrono::nanoseconds rendezvous)
    : region_(ShmRegion::create(world, options)) {
  start(world, [&](int rank) {
    // As in an exec'd rank, all that comes from the parent is the descriptor.
    run_body(*ShmRegion::open(region_->fd()), rank, body, rendezvous);
  });
}

RankProcesses::RankProcesses(int count, const std::function<void(int)>& life) { start(count, life); }

void RankProcesses::start(int count, const std::function<void(int)>& life) {
  const pid_t parent = getpid();
  for (int number = 0; number < count; ++number) {
    int ends[2];
    check(pipe(ends) == 0, "pipe");
    const pid_t pid = fork();
    check(pid >= 0, "fork");
    if (pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(2);
      const Report report = report_on([&] { life(number); });
      const bool told = write(ends[1], &report, sizeof report) == sizeof report;
      _exit(told && report.ok ? 0 : 1);
    }
    close(ends[1]);
    pids_.push_back(pid);
    pipes_.push_back(ends[0]);
  }
}

RankProcesses::~RankProcesses() {
  for (const pid_t pid : pids_)
    if (pid > 0) {
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
  for (const int fd : pipes_) close(fd);
}

void RankProcesses::signal(int rank, int number) {
  if (const pid_t pid = pids_.at(static_cast<std::size_t>(rank)); pid > 0) kill(pid, number);
}

std::vector<RankOutcome> RankProcesses::wait(std::chrono::nanoseconds limit) {
  const Deadline deadline = Deadline::after(limit);
  std::vector<RankOutcome> outcomes(pids_.size());
  std::vector<bool> told(pids_.size(), false);  // all that it will ever tell
  const auto silent = [&](std::size_t r) { return told[r] || is_stopped(pids_[r]); };
  for (bool all = false; !all && !deadline.expired();) {
    std::vector<pollfd> pollers;
    for (std::size_t r = 0; r < pids_.size(); ++r) pollers.push_back({told[r] ? -1 : pipes_[r], POLLIN, 0});
    poll(pollers.data(), pollers.size(), 20);
    all = true;
    for (std::size_t r = 0; r < pids_.size(); ++r) {
      Report report;
      if (pollers[r].revents != 0) {
        told[r] = true;
        if (read(pipes_[r], &report, sizeof report) == sizeof report)
          outcomes[r] = {true, report.ok, report.code, report.rank, report.text, report.seconds};
      }
      all = all && silent(r);
    }
  }
  for (std::size_t r = 0; r < pids_.size(); ++r) {
    if (!outcomes[r].finished) kill(pids_[r], SIGKILL);
    waitpid(pids_[r], nullptr, 0);
    pids_[r] = 0;
  }
  return outcomes;
}

void run_rank_processes(int world, const std::function<void(Group&)>& body, const ShmOptions& options) {
  RankProcesses ranks(world, body, options);
  const std::vector<RankOutcome> outcomes = ranks.wait();
  for (int pass = 0; pass < 2; ++pass)  // first those that failed by themselves
    for (std::size_t r = 0; r < outcomes.size(); ++r) {
      const RankOutcome& o = outcomes[r];
      if (!o.finished) throw Error(ErrorCode::rank_failed, "its process was killed or did not end", {}, static_cast<int>(r));
      if (!o.ok && (pass == 1 || o.code != ErrorCode::rank_failed)) throw Error(o.code, o.text, {}, o.rank);
    }
}

}  // namespace tandem
