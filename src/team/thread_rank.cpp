#include <condition_variable>
#include <mutex>
#include <thread>

#include "team/rank_link.h"

namespace tandem {
namespace {

// What leader and thread share; the thread keeps it alive if it must be let go.
struct Desk {
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<RankRequest> request;
  std::shared_ptr<ShmRegion> region;  // to rejoin
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

void serve(const std::shared_ptr<Desk>& desk, RankStart start) {
  std::unique_ptr<RankWorker> worker;
  try {
    const auto progress = [&](double done) {
      start.region->page(start.rank).loaded = done;
      const std::lock_guard lock(desk->mutex);
      if (desk->closing) throw Error(ErrorCode::aborted, "nobody waits any more for what is loaded");
    };
    auto engine = RankEngine::load(start.plan, start.rank, start.weights, progress, start.weight_budget);
    start.weights = {};
    worker = std::make_unique<RankWorker>(std::move(engine), start.options, start.region);
    desk->answer({});
  } catch (...) {
    const Error error = current_error(start.rank);
    start.region->abort(ErrorCode::rank_failed, start.rank, error.what());
    desk->answer({.error = error});
  }
  start.region.reset();  // the worker has it as long as it needs it
  while (worker) {
    std::optional<RankRequest> request;
    std::shared_ptr<ShmRegion> region;
    {
      std::unique_lock lock(desk->mutex);
      desk->changed.wait(lock, [&] { return desk->closing || desk->request || desk->region; });
      if (desk->closing) break;
      request.swap(desk->request);
      region.swap(desk->region);
    }
    RankReply reply = region ? worker->rejoin(std::move(region)) : worker->serve(*request);
    request.reset();  // a caller that has its answer finds its arrays let go
    desk->answer(std::move(reply));
  }
  worker.reset();
  const std::lock_guard lock(desk->mutex);
  desk->ended = true;
  desk->changed.notify_all();
}

class ThreadRank final : public RankLink {
 public:
  explicit ThreadRank(RankStart start)
      : desk_(std::make_shared<Desk>()), thread_([desk = desk_, start = std::move(start)] { serve(desk, start); }) {}
  ~ThreadRank() override { close(Deadline::after(kDrainDeadline)); }

  bool direct() const override { return true; }

  std::byte* block(std::size_t bytes) override {
    Tensor& memory = desk_->memory;
    if (bytes > memory.size_bytes() || memory.size_bytes() == 0) memory = Tensor(DType::u8, {static_cast<std::int64_t>(bytes)});
    return memory.mutable_data();
  }

  void send(RankRequest request) override {
    const std::lock_guard lock(desk_->mutex);
    desk_->request = std::move(request);
    desk_->changed.notify_all();
  }

  void rejoin(std::shared_ptr<ShmRegion> region) override {
    const std::lock_guard lock(desk_->mutex);
    desk_->region = std::move(region);
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
    if (ended) thread_.join();
    else thread_.detach();
  }

 private:
  std::shared_ptr<Desk> desk_;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<RankLink> start_thread_rank(RankStart start) { return std::make_unique<ThreadRank>(std::move(start)); }

}  // namespace tandem
