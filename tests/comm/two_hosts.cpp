#include "comm/two_hosts.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <thread>

#include "core/check.h"

namespace tandem::test {
namespace {

constexpr int kOwn = CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWNS;

// In memory that the two share until they are apart.
struct Meeting {
  std::atomic<pid_t> processes[2] = {};
  std::atomic<bool> joined{false};
};

void call(const std::string& command) { check(std::system((command + " >/dev/null 2>&1").c_str()) == 0, command); }

void wait_until(const std::function<bool()>& holds) {
  const Deadline deadline = Deadline::after(std::chrono::seconds(10));
  while (!holds()) {
    check(!deadline.expired(), "both processes come");
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

void move_to_own_network(int rank, Meeting& meeting) {
  check(unshare(kOwn) == 0, "a network of one's own");
  const std::string name = host_name(rank);
  check(sethostname(name.data(), name.size()) == 0, "a host name of one's own");
  meeting.processes[rank] = getpid();
  if (rank == 0) {
    wait_until([&] { return meeting.processes[1] != 0; });
    call(fmt::format("ip link add veth0 type veth peer name veth0 netns {}", meeting.processes[1].load()));
    meeting.joined = true;
  }
  wait_until([&] { return meeting.joined.load(); });
  call(fmt::format("ip addr add 10.77.0.{}/24 dev veth0 && ip link set veth0 up && ip link set lo up", rank + 1));
}

}  // namespace

std::string host_name(int rank) { return fmt::format("host-{}", rank); }
std::string interface_of(Apart apart) { return apart == Apart::names ? "lo" : "veth0"; }
std::string address_of_rank_0(Apart apart) { return apart == Apart::names ? "127.0.0.1" : "10.77.0.1"; }

std::string cannot_be(Apart apart) {
  if (apart == Apart::names) return {};
  const pid_t child = fork();
  if (child == 0) {
    if (unshare(kOwn) != 0) _exit(1);
    _exit(std::system("ip link add veth0 type veth peer name veth1 >/dev/null 2>&1") == 0 ? 0 : 2);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  return WIFEXITED(status) && WEXITSTATUS(status) == 1 ? "this user may make no networks" : "the command `ip` makes no pair of interfaces";
}

std::vector<RankOutcome> on_two_hosts(Apart apart, const std::function<void(int)>& life, std::chrono::nanoseconds limit) {
  void* const shared = mmap(nullptr, sizeof(Meeting), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  auto* const meeting = new (shared) Meeting;
  RankProcesses processes(2, [&](int rank) {
    if (apart == Apart::networks) move_to_own_network(rank, *meeting);
    else setenv("TANDEM_TEST_HOST", host_name(rank).c_str(), 1);
    life(rank);
  });
  std::vector<RankOutcome> outcomes = processes.wait(limit);
  munmap(shared, sizeof(Meeting));
  return outcomes;
}

std::vector<RankOutcome> ranks_on_two_hosts(Apart apart, const std::function<void(TcpPair&)>& body, std::chrono::nanoseconds limit) {
  const int port = 20000 + getpid() % 20000;
  return on_two_hosts(
      apart,
      [&](int rank) {
        const auto pair = TcpPair::meet(rank, address_of_rank_0(apart), port, Deadline::after(std::chrono::seconds(10)));
        body(*pair);
      },
      limit);
}

}  // namespace tandem::test
