#include "comm/peer/peer_group.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "comm/peer/spinning.h"
#include "comm/shm/shm_group.h"
#include "core/check.h"
#include "device/cuda/runtime.h"

namespace tandem::peer {
namespace {

// How often the watching thread looks; the time to the end of a kernel that nobody answers is a few of these more than its limit.
constexpr int kLookMilliseconds = 20;
// Between the moment a kernel gives up and the blame: others, whose kernels began to wait a little later, get to say for whom.
constexpr std::chrono::milliseconds kHearing(100);

// What one rank can see alone. Whether memory can be shared and reached turns out when that is done.
std::optional<std::string> refuse(Device&, std::span<const GpuPlace> places) {
  if (auto apart = different_hosts(places)) return apart;
  if (places.size() > static_cast<std::size_t>(kMaxRanks)) return fmt::format("it serves up to {} ranks", kMaxRanks);
  if (const char* off = std::getenv("NCCL_P2P_DISABLE"); off && std::string_view(off) == "1") return "NCCL_P2P_DISABLE is set";
  std::string why;
  if (!find_driver(&why)) return why;
  return std::nullopt;
}

}  // namespace

const GpuBackend kBackend = {
    .name = "peer",
    .refuse = refuse,
    .make = [](Group& control, Device& device, Deadline deadline,
               std::string* why) { return make_peer_group(control, device, deadline, why); },
};

std::unique_ptr<GpuGroup> make_peer_group(Group& control, Device& device, Deadline deadline, std::string* why, const PeerOptions& options) {
  try {
    return std::make_unique<PeerGroup>(control, device, deadline, options);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::unsupported && error.code() != ErrorCode::out_of_memory) throw;
    if (why) *why = error.message();
    return nullptr;
  }
}

PeerGroup::PeerGroup(Group& control, Device& device, Deadline deadline, const PeerOptions& options)
    : GpuGroup(control), device_(device), options_(options) {
  set_up(deadline);
}

PeerGroup::PeerGroup(std::unique_ptr<Group> control, Device& device, Deadline deadline, const PeerOptions& options)
    : GpuGroup(std::move(control)), device_(device), options_(options) {
  set_up(deadline);
}

PeerGroup::~PeerGroup() {
  stops_ = true;
  if (watcher_.joinable()) watcher_.join();
  if (links_) links_->leave();
}

// What every rank knows of the others' GPUs, in one exchange; gives the blocks that all of them can run at once.
int PeerGroup::agreed_blocks(Deadline deadline) {
  struct Card {
    unsigned char gpu[16];
    std::int32_t blocks, multiprocessors;
  };
  auto& device = static_cast<cuda::CudaDevice&>(device_);
  Card mine{};
  cudaDeviceProp properties;
  cuda::check(cudaGetDeviceProperties(&properties, device.ordinal()), "asking a GPU what it is");
  std::memcpy(mine.gpu, properties.uuid.bytes, sizeof mine.gpu);
  mine.blocks = options_.blocks > 0 ? options_.blocks : kLanes;
  mine.multiprocessors = device.multiprocessors();
  std::vector<Card> cards;
  for (const auto& blob : control().exchange(std::as_bytes(std::span(&mine, 1)), deadline)) {
    tandem::check(blob.size() == sizeof(Card), "ranks exchange what they know of their GPUs");
    std::memcpy(&cards.emplace_back(), blob.data(), sizeof(Card));
  }
  int blocks = kLanes;
  for (std::size_t a = 0; a < cards.size(); ++a) {
    const auto same = [&](const Card& other) { return std::memcmp(other.gpu, cards[a].gpu, sizeof other.gpu) == 0; };
    const auto sharing = static_cast<int>(std::ranges::count_if(cards, same));
    if (sharing > 1 && !options_.share_gpu) {
      const auto b = std::find_if(cards.begin() + static_cast<std::ptrdiff_t>(a) + 1, cards.end(), same) - cards.begin();
      fail(ErrorCode::unsupported, "ranks {} and {} share one GPU", control().members()[a],
           control().members()[static_cast<std::size_t>(b)]);
    }
    blocks = std::min({blocks, cards[a].blocks, sharing > 1 ? cards[a].multiprocessors / (2 * sharing) : cards[a].multiprocessors});
  }
  return std::max(blocks, 1);
}

void PeerGroup::set_up(Deadline deadline) {
  if (size() > kMaxRanks) fail(ErrorCode::unsupported, "{} ranks are more than {}", size(), kMaxRanks);
  blocks_ = agreed_blocks(deadline);
  links_ = std::make_unique<Links>(control(), deadline);
  pages_ = std::make_unique<Pages>(control(), *links_, deadline);
  all_do(control(), deadline, [&] { progress_ = nccl::ProgressWord::of(control()); });
  window_ = std::make_unique<Window>(control(), *links_, device_, Slab::kBytes, deadline);
  all_do(control(), deadline, [&] {
    int kilohertz = 0;
    if (cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, static_cast<cuda::CudaDevice&>(device_).ordinal()) == cudaSuccess &&
        kilohertz > 0)
      clocks_per_second_ = kilohertz * 1e3;
    state_ = allocate_on_gpu<State>("allocating the state of a group");
    char* const mine = window_->at(rank());
    fill_on_gpu(state_.get(), 0, sizeof(State), "clearing the state of a group");
    fill_on_gpu(mine + Slab::kWords, 0xff, Slab::kData, "clearing the memory of a group");
    fill_on_gpu(mine + Slab::kArrivals, 0, Slab::kBytes - Slab::kArrivals, "clearing the memory of a group");
    if (size() > 1) load_spinning_kernels();
  });
  watcher_ = std::thread([this] { watch(); });
}

View PeerGroup::view(std::chrono::nanoseconds limit) const {
  View view{};
  for (int r = 0; r < size(); ++r) view.slab[r] = window_->at(r);
  view.state = state_.get();
  view.page = pages_->on_gpu();
  view.rank = rank();
  view.size = size();
  view.limit = static_cast<long long>(2 * static_cast<double>(limit.count()) * 1e-9 * clocks_per_second_);
  if (progress_) {
    view.begun = progress_->counter();
    view.begun_seen = progress_->word();
  }
  return view;
}

std::shared_ptr<Room> PeerGroup::room(std::size_t there, std::size_t back, Deadline deadline) {
  throw_if_failed();
  if (!room_ || !room_->holds(there, back)) room_ = std::make_shared<Room>(control(), device_, there, back, deadline);
  return room_;
}

std::unique_ptr<Group> PeerGroup::split(const std::vector<std::vector<int>>& lists, std::optional<Deadline> deadline) {
  const Deadline until = deadline.value_or(Deadline::after(kRendezvousDeadline));
  std::unique_ptr<Group> part = control().split(lists, until);
  if (!part) return nullptr;
  return std::make_unique<PeerGroup>(std::move(part), device_, until, options_);
}

void PeerGroup::throw_if_failed() {
  GpuGroup::throw_if_failed();  // says it best
  if (has_failed()) throw_failure();
}

// The watching thread writes the reason a moment after the GPU has given up.
void PeerGroup::throw_failure() {
  for (const Deadline patience = Deadline::after(std::chrono::seconds(2)); !patience.expired();
       std::this_thread::sleep_for(std::chrono::milliseconds(1)))
    if (const auto failure = pages_->failure())
      throw Error(failure->code(), failure->message() + "; the ranks' groups are no longer usable", {}, failure->rank());
  fail(ErrorCode::aborted, "a kernel of the group gave up, and nobody said why");
}

void PeerGroup::abort(std::string_view reason) {
  GpuGroup::abort(reason);
  pages_->end(ErrorCode::aborted, members()[static_cast<std::size_t>(rank())], fmt::format("aborted: {}", reason));
}

// The rank at the end of the chain of those that waited for one another.
int PeerGroup::laggard() const {
  int last = pages_->waited_for(rank());
  for (int hop = 0; hop < size(); ++hop) {
    if (last < 0 || last >= size() || !pages_->gave_up(last)) break;
    const int next = pages_->waited_for(last);
    if (next < 0 || next == rank()) break;
    last = next;
  }
  return last;
}

void PeerGroup::watch() {
  while (!stops_ && !pages_->failure()) watch_once();
}

void PeerGroup::watch_once() {
  const auto world = [&](int r) { return members()[static_cast<std::size_t>(r)]; };
  const auto end = [&](ErrorCode code, int world_rank, const std::string& text) {
    try {
      if (auto* shm = dynamic_cast<shm::ShmGroup*>(&control())) shm->give_up(code, world_rank, text);
      else control().abort(text);
    } catch (const Error&) {  // what was just said, or what ended the world before
    }
    pages_->end(code, world_rank, text);
  };
  if (const int gone = links_->departed(kLookMilliseconds); gone >= 0)
    return end(ErrorCode::rank_failed, world(gone), "its process has ended");
  if (pages_->gave_up(rank())) {
    std::this_thread::sleep_for(kHearing);
    if (pages_->failure()) return;
    const int late = laggard();
    if (late < 0 || late >= size()) return end(ErrorCode::internal, -1, "a kernel gave up without saying for whom it waited");
    return end(ErrorCode::timeout, world(late),
               fmt::format("nothing came from its GPU in time; it has begun {} collectives, rank {} has begun {}", progress(late).sequence,
                           world(rank()), progress(rank()).sequence));
  }
  try {
    control().throw_if_failed();
  } catch (const Error& error) {
    pages_->end(error.code(), error.rank(), error.message());
  }
}

}  // namespace tandem::peer
