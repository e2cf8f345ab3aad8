// A rank process, from its leader's side: commanded over a socket, with inputs and outputs in shared memory.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "core/check.h"
#include "team/channel.h"
#include "team/rank_messages.h"

namespace tandem {
namespace {

constexpr std::size_t kPageBytes = 4096;
constexpr std::chrono::nanoseconds kKillDeadline = std::chrono::seconds(2), kSendDeadline = std::chrono::seconds(1);

class ProcessRank final : public RankLink {
 public:
  ProcessRank(const RankStart& start, Spawner& spawner) : rank_(start.rank), block_(SharedMemory::create("tandem-io", kPageBytes)) {
    auto [mine, theirs] = Channel::make_pair();
    process_ = spawner.start(theirs.get());
    channel_.emplace(std::move(mine));
    std::vector<int> descriptors = {start.region->fd(), block_.fd(), start.engine_file};
    if (start.plan_text >= 0) descriptors.push_back(start.plan_text);
    channel_->send(to_json(start), descriptors, Deadline::after(kSendDeadline));  // a rank that is gone shows at receive()
  }

  ~ProcessRank() override { close(Deadline::after(std::chrono::seconds(0))); }

  bool direct() const override { return false; }
  int process() const override { return process_; }

  std::byte* block(std::size_t bytes) override {
    if (!mapping_ || mapping_->bytes() < bytes) {
      mapping_.reset();
      const std::size_t size = (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
      block_.grow(size);
      mapping_ = block_.map(0, size);
    }
    return mapping_->data();
  }

  void send(RankRequest request) override {
    channel_->send(to_json(request, mapping_->data(), mapping_->bytes()), {}, Deadline::after(kSendDeadline));
  }

  void rejoin(std::shared_ptr<ShmRegion> region) override {
    const int descriptors[] = {region->fd()};
    channel_->send({{"rejoin", true}}, descriptors, Deadline::after(kSendDeadline));
  }

  std::optional<RankReply> receive(std::chrono::nanoseconds limit) override {
    if (const auto message = channel_->receive(limit)) return reply_from_json(message->body);
    if (!channel_->closed()) return std::nullopt;
    return RankReply{.error = Error(ErrorCode::rank_failed, how_it_ended(), {}, rank_), .ended = true};
  }

  void close(Deadline deadline) override {
    if (process_ <= 0) return;
    if (!deadline.expired()) channel_->send({{"close", true}}, {}, deadline);
    while (!reap() && !deadline.expired()) ::usleep(1000);
    if (process_ <= 0) return;
    ::kill(process_, SIGKILL);
    const Deadline last = Deadline::after(kKillDeadline);
    while (!reap() && !last.expired()) ::usleep(1000);
    process_ = -1;  // one that the kernel does not reap is not awaited
  }

 private:
  // True once the process is reaped; remembers its status.
  bool reap() {
    if (process_ <= 0) return true;
    if (::waitpid(process_, &status_, WNOHANG) == 0) return false;
    process_ = -1;
    return true;
  }

  std::string how_it_ended() {
    const Deadline deadline = Deadline::after(std::chrono::milliseconds(500));
    while (!reap() && !deadline.expired()) ::usleep(1000);
    if (process_ > 0) return fmt::format("its process {} closed the connection", process_);
    if (!WIFSIGNALED(status_)) return fmt::format("its process ended with status {}", WEXITSTATUS(status_));
    const int signal = WTERMSIG(status_);
    const char* hint = signal == SIGKILL ? "; the system does so when memory runs out" : "";
    return fmt::format("its process was killed by signal {} ({}{})", signal, ::strsignal(signal), hint);
  }

  int rank_;
  SharedMemory block_;
  std::unique_ptr<Mapping> mapping_;
  std::optional<Channel> channel_;
  pid_t process_ = -1;
  int status_ = 0;
};

}  // namespace

std::unique_ptr<RankLink> start_process_rank(const RankStart& start, Spawner& spawner) {
  return std::make_unique<ProcessRank>(start, spawner);
}

}  // namespace tandem
