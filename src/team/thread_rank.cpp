#include <condition_variable>
#include <mutex>
#include <thread>

#include "core/check.h"
#include "team/rank_link.h"

namespace tandem {
namespace {

// What leader and thread share; the thread keeps it alive if it must be let go.
struct Desk {
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<RankRequest> request;
  std::optional<RankReply> reply;
  Tensor memory;
  bool closing = false;
  bool ended = false;

  void answer(RankReply value) {
    const std::lock_guard lock(mutex);
    reply = std::move(value);
    changed.notify_all();
  }
};

RankReply failure(const Error& error, int rank) { return {.error = error.at_rank(rank)}; }

void serve(const std::shared_ptr<Desk>& desk, const RankStart& start) {
  std::unique_ptr<RankWorker> worker;
  try {
    worker = std::make_unique<RankWorker>(start);
    desk->answer({});
  } catch (const std::exception& error) {
    const auto* known = dynamic_cast<const Error*>(&error);
    const RankReply reply = failure(known ? *known : Error(ErrorCode::internal, error.what()), start.rank);
    if (start.region) start.region->abort(ErrorCode::rank_failed, start.rank, reply.error->what());
    desk->answer(reply);
  }
  while (worker) {
    RankRequest request;
    {
      std::unique_lock lock(desk->mutex);
      desk->changed.wait(lock, [&] { return desk->closing || desk->request; });
      if (desk->closing) break;
      request = std::move(*desk->request);
      desk->request.reset();
    }
    desk->answer(worker->serve(request));
  }
  worker.reset();
  const std::lock_guard lock(desk->mutex);
  desk->ended = true;
  desk->changed.notify_all();
}

class ThreadRank final : public RankLink {
 public:
  explicit ThreadRank(RankStart start) : desk_(std::make_shared<Desk>()), thread_([desk = desk_, start = std::move(start)] { serve(desk, start); }) {}
  ~ThreadRank() override { close(Deadline::after(kDrainDeadline)); }

  bool direct() const override { return true; }

  std::byte* block(std::size_t bytes) override {
    Tensor& memory = desk_->memory;
    if (bytes > memory.size_bytes() || memory.size_bytes() == 0) memory = Tensor(DType::u8, {static_cast<std::int64_t>(bytes)});
    return memory.mutable_data();
  }

  void send(const RankRequest& request) override {
    const std::lock_guard lock(desk_->mutex);
    desk_->request = request;
    desk_->changed.notify_all();
  }

  std::optional<RankReply> receive(std::chrono::nanoseconds limit) override {
    std::unique_lock lock(desk_->mutex);
    desk_->changed.wait_for(lock, limit, [&] { return desk_->reply.has_value(); });
    return std::exchange(desk_->reply, std::nullopt);
  }

  void close(Deadline deadline) override {
    if (!thread_.joinable()) return;
    std::unique_lock lock(desk_->mutex);
    desk_->closing = true;
    desk_->changed.notify_all();
    const bool ended = desk_->changed.wait_for(lock, deadline.remaining(), [&] { return desk_->ended; });
    lock.unlock();
    // A thread stuck in a kernel cannot be ended; it keeps what it uses until it returns.
    if (ended)
      thread_.join();
    else
      thread_.detach();
  }

 private:
  std::shared_ptr<Desk> desk_;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<RankLink> start_thread_rank(RankStart start) { return std::make_unique<ThreadRank>(std::move(start)); }

}  // namespace tandem
