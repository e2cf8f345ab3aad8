#include "comm/shm/region.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>
#include <numeric>
#include <thread>

#include "comm/shm/futex.h"
#include "comm/shm/shm_group.h"
#include "core/check.h"
#include "core/stop.h"

namespace tandem {

using shm::RankState;

namespace {

constexpr std::chrono::nanoseconds kSlice = std::chrono::milliseconds(20);

std::uint64_t pid_namespace() {
  struct stat s;
  return stat("/proc/self/ns/pid", &s) == 0 ? static_cast<std::uint64_t>(s.st_ino) : 0;
}

std::size_t header_bytes(int world) { return sizeof(shm::RegionHeader) + static_cast<std::size_t>(world) * sizeof(shm::RankPage); }

bool check_wanted() {
  const char* value = std::getenv("TANDEM_CHECK");
  return value != nullptr && *value != '\0' && std::string_view(value) != "0";
}

}  // namespace

std::shared_ptr<ShmRegion> ShmRegion::create(int world, const ShmOptions& options) {
  if (world < 1 || world > shm::kMaxWorld)
    fail(ErrorCode::invalid_argument, "a world of {} ranks: 1 to {} are possible on one host", world, shm::kMaxWorld);
  const auto size = static_cast<std::size_t>(world);
  // An all-reduce cuts a slot into world + 1 parts of at least a cache line.
  const std::size_t smallest = std::max(shm::kPage, 2 * size * shm::kLine);
  const shm::GroupLayout layout = {size, shm::round_to(std::max(options.slot_bytes, smallest), shm::kPage),
                                   shm::round_to(std::max(options.mail_bytes, shm::kPage), shm::kPage)};
  std::shared_ptr<ShmRegion> region(new ShmRegion(SharedMemory::create("tandem-ranks", header_bytes(world) + layout.total())));
  region->base_ = region->memory_.map(0, header_bytes(world));
  auto* header = new (region->base_->data()) shm::RegionHeader;
  header->world = static_cast<std::uint32_t>(world);
  header->check = options.check || check_wanted();
  header->slot_bytes = layout.slot_bytes;
  header->mail_bytes = layout.mail_bytes;
  header->end = header_bytes(world) + layout.total();
  for (int r = 0; r < world; ++r) new (&region->page(r)) shm::RankPage;
  return region;
}

std::shared_ptr<ShmRegion> ShmRegion::open(int fd) {
  std::shared_ptr<ShmRegion> region(new ShmRegion(SharedMemory::open(fd)));
  const std::size_t bytes = region->memory_.size();
  if (bytes >= sizeof(shm::RegionHeader)) region->base_ = region->memory_.map(0, sizeof(shm::RegionHeader));
  if (!region->base_ || region->header().magic != shm::kMagic || header_bytes(region->world()) > bytes)
    fail(ErrorCode::invalid_argument, "descriptor {} is not the shared memory of a world of ranks", fd);
  const int world = region->world();
  region->base_ = region->memory_.map(0, header_bytes(world));
  return region;
}

ShmRegion::~ShmRegion() {
  for (const auto& [rank, fd] : pidfds_)
    if (fd >= 0) close(fd);
}

shm::RankPage& ShmRegion::page(int rank) const { return reinterpret_cast<shm::RankPage*>(base_->data() + sizeof(shm::RegionHeader))[rank]; }

std::unique_ptr<Group> ShmRegion::attach(int rank, Deadline rendezvous) {
  enter(rank);
  return wait_for_all(rank, rendezvous, {}, {});
}

void ShmRegion::enter(int rank) {
  if (rank < 0 || rank >= world()) fail(ErrorCode::invalid_argument, "rank {} is outside a world of {}", rank, world());
  throw_if_failed();
  shm::RankPage& mine = page(rank);
  RankState expected = RankState::absent;
  if (!mine.state.compare_exchange_strong(expected, RankState::joining))
    fail(ErrorCode::invalid_argument, "rank {} has joined this world before", rank);
  cpu_set_t cores;
  static_assert(sizeof cores == sizeof mine.cores);
  if (sched_getaffinity(0, sizeof cores, &cores) == 0) {
    std::uint64_t words[16];
    std::memcpy(words, &cores, sizeof words);
    for (int i = 0; i < 16; ++i) mine.cores[i] = words[i];
  }
  mine.pid = getpid();
  mine.pid_namespace = pid_namespace();
  mine.marked_at_ns = monotonic_ns();
  mine.state = RankState::attached;
  header().attached.fetch_add(1);
  shm::futex_wake_all(&header().attached);
}

std::unique_ptr<Group> ShmRegion::wait_for_all(int rank, Deadline rendezvous, Waiting waiting, const std::function<void()>& idle) {
  for (std::uint32_t attached = header().attached; attached != header().world; attached = header().attached) {
    throw_if_failed();
    for (int r = 0; r < world(); ++r)
      if (page(r).state == RankState::attached && !alive(r))
        abort(ErrorCode::rank_failed, r, fmt::format("its process {} ended while the ranks met", page(r).pid.load()));
    throw_if_stopped(rank, waiting, [] { return "the rendezvous"; });
    if (idle) idle();
    if (rendezvous.expired()) throw_missing(rendezvous);
    shm::futex_wait(&header().attached, attached, std::min(kSlice, rendezvous.remaining()));
  }
  for (int r = 0; r < world(); ++r) alive(r);  // opens their descriptors while their numbers are surely theirs
  std::vector<int> everyone(static_cast<std::size_t>(world()));
  std::iota(everyone.begin(), everyone.end(), 0);
  return std::make_unique<shm::ShmGroup>(shared_from_this(), header_bytes(world()), std::move(everyone), rank, true,
                                         std::make_shared<const Waiting>(std::move(waiting)));
}

void ShmRegion::throw_missing(Deadline rendezvous) {
  std::vector<int> missing;
  for (int r = 0; r < world(); ++r)
    if (const RankState s = page(r).state; s == RankState::absent || s == RankState::joining) missing.push_back(r);
  abort(ErrorCode::timeout, missing.empty() ? -1 : missing.front(),
        fmt::format("rank {} did not join within {:.1f} s", fmt::join(missing, ", "),
                    static_cast<double>(rendezvous.limit().count()) * 1e-9));
  throw_failure();
}

void ShmRegion::abort(ErrorCode code, int rank, std::string_view reason) {
  shm::Failure& failure = header().failure;
  if (code == ErrorCode::rank_failed && rank >= 0 && rank < world()) page(rank).state = RankState::failed;
  std::uint32_t expected = 0;
  if (!failure.state.compare_exchange_strong(expected, 1)) return;
  failure.code = static_cast<std::int32_t>(code);
  failure.rank = rank;
  const std::size_t length = std::min(reason.size(), sizeof failure.text - 1);
  std::memcpy(failure.text, reason.data(), length);
  failure.text[length] = '\0';
  failure.state.store(2, std::memory_order_release);
}

void ShmRegion::throw_if_stopped(int rank, const Waiting& waiting, const std::function<std::string()>& what) {
  if (StopScope::set() ? !StopScope::wanted() : !(waiting.stop && waiting.stop())) return;
  abort(ErrorCode::aborted, rank, "its caller interrupted it");
  throw Error(ErrorCode::interrupted, fmt::format("interrupted in {}; the ranks' groups are no longer usable", what()), {}, rank);
}

void ShmRegion::throw_failure() const {
  const shm::Failure& failure = header().failure;
  const Deadline patience = Deadline::after(std::chrono::milliseconds(100));
  while (failure.state.load(std::memory_order_acquire) != 2) {
    if (patience.expired()) throw Error(ErrorCode::aborted, "the group was aborted by a rank that died before it said why");
    std::this_thread::yield();
  }
  throw Error(static_cast<ErrorCode>(failure.code), std::string(failure.text) + "; the ranks' groups are no longer usable", {},
              failure.rank);
}

Progress ShmRegion::progress(int rank) const {
  const shm::RankPage& p = page(rank);
  return {.attached = p.state == RankState::attached,
          .step = p.step,
          .sequence = p.sequence + p.gpu_sequence,
          .marked_at_ns = p.marked_at_ns,
          .waiting_for = p.waiting_for,
          .waited_ns = p.waited_ns};
}

bool ShmRegion::alive(int rank) {
  const shm::RankPage& p = page(rank);
  const pid_t pid = p.pid;
  // A process in another namespace cannot be named from here, and a thread of this process lives as long as we do.
  if (pid == 0 || p.pid_namespace != pid_namespace() || pid == getpid()) return true;
  const std::lock_guard lock(mutex_);
  auto [entry, fresh] = pidfds_.try_emplace(rank, -1);
  if (fresh) {
    entry->second = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    if (entry->second < 0 && errno == ESRCH) {
      pidfds_.erase(entry);
      return false;
    }
  }
  if (entry->second < 0) return kill(pid, 0) == 0 || errno != ESRCH;
  pollfd poller = {entry->second, POLLIN, 0};  // readable once the process has ended, also if nobody has reaped it yet
  return poll(&poller, 1, 0) <= 0;
}

std::size_t ShmRegion::allocate(std::size_t bytes) {
  const std::size_t offset = header().end.fetch_add(bytes);
  memory_.grow(offset + bytes);
  return offset;
}

std::shared_ptr<Mapping> ShmRegion::map_group(std::size_t offset, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  std::weak_ptr<Mapping>& known = groups_[offset];
  if (auto mapping = known.lock()) return mapping;
  std::shared_ptr<Mapping> mapping = memory_.map(offset, bytes);
  std::erase_if(groups_, [](const auto& entry) { return entry.second.expired(); });
  groups_[offset] = mapping;
  return mapping;
}

bool ShmRegion::roomy() const {
  int cores = 0;
  for (int word = 0; word < 16; ++word) {
    std::uint64_t any = 0;
    for (int r = 0; r < world(); ++r) any |= page(r).cores[word];
    cores += std::popcount(any);
  }
  return cores >= world();
}

}  // namespace tandem
