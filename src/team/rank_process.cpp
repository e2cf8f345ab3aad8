// A rank process, from its own side.
#include <sys/prctl.h>

#include "core/check.h"
#include "team/channel.h"
#include "team/engine_image.h"
#include "team/rank_messages.h"

namespace tandem {
namespace {

using Json = nlohmann::json;
constexpr std::chrono::nanoseconds kSendDeadline = kDrainDeadline;

class RankProcess {
 public:
  explicit RankProcess(int socket) : channel_(Descriptor(socket)) {}

  int serve() {
    const auto first = channel_.receive(std::nullopt);
    if (!first) return 1;  // the leader is gone
    if (!start(*first)) return 1;
    while (const auto message = channel_.receive(std::nullopt)) {
      if (message->body.contains("close")) return 0;
      if (!reply(answer(*message))) return 1;
    }
    return 1;
  }

 private:
  bool reply(const RankReply& value) { return channel_.send(to_json(value), {}, Deadline::after(kSendDeadline)); }
  static int descriptor(const Message& message, StartDescriptor which) {
    return message.descriptors.at(static_cast<std::size_t>(which)).get();
  }

  // False where there is no rank to go on with.
  bool start(const Message& message) {
    std::shared_ptr<ShmRegion> region;
    int rank = -1;
    try {
      const RankStart start = start_from_json(message.body);
      rank = start.rank;
      ::prctl(PR_SET_NAME, fmt::format("tandem rank {}", rank).c_str());
      region = ShmRegion::open(descriptor(message, StartDescriptor::region));
      block_.emplace(SharedMemory::open(descriptor(message, StartDescriptor::block)));
      const bool other_plan = message.descriptors.size() > static_cast<std::size_t>(StartDescriptor::plan);
      auto engine = RankEngine::open(
          fmt::format("/proc/self/fd/{}", descriptor(message, StartDescriptor::engine)), rank,
          [&](double done) { region->page(rank).loaded = done; },
          other_plan ? read_plan_image(descriptor(message, StartDescriptor::plan)) : std::string(), start.weight_budget);
      worker_ = std::make_unique<RankWorker>(std::move(engine), start.options, region);
    } catch (...) {
      const Error error = current_error(rank);
      if (region) region->abort(ErrorCode::rank_failed, rank, error.what());
      reply({.error = error});
      return false;
    }
    return reply({});
  }

  RankReply answer(const Message& message) {
    if (message.body.contains("rejoin")) return worker_->rejoin(ShmRegion::open(message.descriptors.at(0).get()));
    const auto size = message.body.at("size").get<std::size_t>();
    if (!mapping_ || mapping_->bytes() < size) mapping_ = block_->map(0, size);
    return worker_->serve(request_from_json(message.body, mapping_->data()));
  }

  Channel channel_;
  std::optional<SharedMemory> block_;
  std::unique_ptr<Mapping> mapping_;
  std::unique_ptr<RankWorker> worker_;
};

}  // namespace

int serve_rank_process(int socket) {
  try {
    return RankProcess(socket).serve();
  } catch (const std::exception&) {
    return 1;  // the leader sees the connection close
  }
}

}  // namespace tandem
