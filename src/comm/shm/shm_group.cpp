#include "comm/shm/shm_group.h"

#include <algorithm>
#include <cstring>

#include "comm/shm/futex.h"
#include "core/check.h"

namespace tandem::shm {
namespace {

std::uint64_t mix(std::uint64_t hash, std::uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15;
  return hash ^ (hash >> 29);
}

void check_lists(const std::vector<std::vector<int>>& lists, int size) {
  std::vector<bool> seen(static_cast<std::size_t>(size));
  for (const std::vector<int>& list : lists) {
    if (list.empty()) fail(ErrorCode::invalid_argument, "a group without ranks in {}", lists);
    for (const int r : list) {
      if (r < 0 || r >= size) fail(ErrorCode::invalid_argument, "rank {} of {} is outside the group of {} ranks", r, lists, size);
      if (seen[static_cast<std::size_t>(r)]) fail(ErrorCode::invalid_argument, "rank {} is in {} more than once", r, lists);
      seen[static_cast<std::size_t>(r)] = true;
    }
  }
}

std::uint64_t hash_of(const std::vector<std::vector<int>>& lists) {
  std::uint64_t hash = lists.size();
  for (const std::vector<int>& list : lists) {
    hash = mix(hash, list.size());
    for (const int r : list) hash = mix(hash, static_cast<std::uint64_t>(r));
  }
  return hash;
}

}  // namespace

ShmGroup::ShmGroup(std::shared_ptr<ShmRegion> region, std::size_t offset, std::vector<int> members, int rank, bool is_world,
                   std::shared_ptr<const Waiting> waiting)
    : region_(std::move(region)),
      waiting_(std::move(waiting)),
      members_(std::move(members)),
      rank_(rank),
      size_(static_cast<int>(members_.size())),
      is_world_(is_world),
      roomy_(region_->roomy()),
      check_(region_->header().check != 0),
      offset_(offset),
      sent_(members_.size()),
      taken_(members_.size()) {
  const GroupLayout layout = region_->layout(members_.size());
  slot_bytes_ = layout.slot_bytes;
  mail_bytes_ = layout.mail_bytes;
  // Zeros are the initial state of everything in a group.
  memory_ = region_->map_group(offset, layout.total());
  cells_ = reinterpret_cast<Cell*>(memory_->data() + layout.cells());
  mailboxes_ = reinterpret_cast<Mailbox*>(memory_->data() + layout.mailboxes());
  slots_ = memory_->data() + layout.slots();
  mail_ = memory_->data() + layout.mail();
  mine_ = &region_->page(members_[static_cast<std::size_t>(rank_)]);
  failure_ = &region_->header().failure.state;
}

ShmGroup::~ShmGroup() {
  cell(rank_).left.store(1);
  futex_wake_all(low_half(cell(rank_).arrived.value));
  if (is_world_) {
    mine().state.store(RankState::left);
    return;
  }
  auto& leavers = reinterpret_cast<GroupHeader*>(memory_->data())->leavers;
  if (leavers.fetch_add(1) + 1 == static_cast<std::uint32_t>(size_)) region_->discard(offset_, memory_->bytes());
}

void ShmGroup::mark(std::int64_t step) {
  if (failure_->load(std::memory_order_relaxed) != 0) [[unlikely]]
    region_->throw_failure();
  mine().step.store(step, std::memory_order_relaxed);
  mine().marked_at_ns.store(monotonic_ns(), std::memory_order_relaxed);
}

void ShmGroup::throw_if_failed() {
  region_->throw_if_failed();
  for (const int member : members_) {
    if (region_->alive(member) || region_->page(member).state != RankState::attached) continue;
    region_->abort(ErrorCode::rank_failed, member, fmt::format("its process {} has ended", region_->page(member).pid.load()));
    region_->throw_failure();
  }
}

void ShmGroup::abort(std::string_view reason) {
  region_->abort(ErrorCode::aborted, members_[static_cast<std::size_t>(rank_)], fmt::format("aborted: {}", reason));
}

void ShmGroup::give_up(ErrorCode code, int world_rank, std::string_view reason) {
  region_->abort(code, world_rank, reason);
  region_->throw_failure();
}

void ShmGroup::begin(const Descriptor& descriptor, std::uint64_t hash, const std::optional<Deadline>& deadline) {
  region_->throw_if_failed();
  mine().sequence.fetch_add(1, std::memory_order_relaxed);
  ++calls_;
  cell(rank_).descriptor = descriptor;
  hash = mix(hash, static_cast<std::uint64_t>(descriptor.activity));
  hash_ = static_cast<std::uint32_t>(hash ^ (hash >> 32));
  deadline_ = deadline;
}

std::vector<std::vector<std::byte>> ShmGroup::exchange(std::span<const std::byte> blob, std::optional<Deadline> deadline) {
  if (size_ == 1) return {{blob.begin(), blob.end()}};
  begin({.activity = Activity::exchange}, 0, deadline ? deadline : Deadline::after(waiting_->rendezvous));
  // The first slot starts with the size; after it everyone knows how many phases are left.
  const std::uint64_t size = blob.size();
  const std::size_t first = std::min(blob.size(), slot_bytes_ - sizeof size);
  std::byte* to = next_slot();
  std::memcpy(to, &size, sizeof size);
  std::copy_n(blob.data(), first, to + sizeof size);
  synchronise();
  std::vector<std::vector<std::byte>> blobs(static_cast<std::size_t>(size_));
  std::size_t longest = 0;
  for (int r = 0; r < size_; ++r) {
    std::uint64_t length = 0;
    std::memcpy(&length, slot(r), sizeof length);
    longest = std::max<std::size_t>(longest, length);
    auto& mine = blobs[static_cast<std::size_t>(r)];
    mine.resize(length);
    std::copy_n(slot(r) + sizeof length, std::min<std::size_t>(length, slot_bytes_ - sizeof length), mine.data());
  }
  for (std::size_t at = slot_bytes_ - sizeof size; at < longest; at += slot_bytes_) {
    if (at < blob.size()) std::copy_n(blob.data() + at, std::min(slot_bytes_, blob.size() - at), next_slot());
    synchronise();
    for (int r = 0; r < size_; ++r)
      if (auto& mine = blobs[static_cast<std::size_t>(r)]; at < mine.size())
        std::copy_n(slot(r), std::min(slot_bytes_, mine.size() - at), mine.data() + at);
  }
  return blobs;
}

std::unique_ptr<Group> ShmGroup::split(const std::vector<std::vector<int>>& lists, std::optional<Deadline> deadline) {
  check_lists(lists, size_);
  const std::vector<int>* own = nullptr;
  for (const std::vector<int>& list : lists)
    if (std::find(list.begin(), list.end(), rank_) != list.end()) own = &list;
  // The first rank of each list makes its memory and tells the others where.
  struct Offer {
    std::uint64_t hash, offset;
  };
  Offer offer = {hash_of(lists), 0};
  if (own != nullptr && own->front() == rank_) offer.offset = region_->allocate(region_->layout(own->size()).total());
  const auto blobs = exchange(std::as_bytes(std::span(&offer, 1)), deadline);
  for (int r = 0; r < size_; ++r) {
    Offer other = {0, 0};
    const auto& blob = blobs[static_cast<std::size_t>(r)];
    if (blob.size() == sizeof other) std::memcpy(&other, blob.data(), sizeof other);
    if (other.hash != offer.hash) {
      const int a = members_[static_cast<std::size_t>(std::min(r, rank_))], b = members_[static_cast<std::size_t>(std::max(r, rank_))];
      region_->abort(ErrorCode::mismatch, b, fmt::format("ranks {} and {} split their group into different lists", a, b));
      region_->throw_failure();
    }
    if (own != nullptr && r == own->front()) offer.offset = other.offset;
  }
  if (own == nullptr) return nullptr;
  std::vector<int> members;
  for (const int r : *own) members.push_back(members_[static_cast<std::size_t>(r)]);
  const auto position = static_cast<int>(std::find(own->begin(), own->end(), rank_) - own->begin());
  return std::make_unique<ShmGroup>(region_, offer.offset, std::move(members), position, false, waiting_);
}

std::byte* ShmGroup::mail(int from, int to, std::uint32_t number) const {
  return mail_ + (static_cast<std::size_t>(from * size_ + to) * 2 + (number & 1)) * mail_bytes_;
}

void ShmGroup::send(std::span<const std::byte> bytes, int to, std::optional<Deadline> deadline) {
  if (to < 0 || to >= size_ || to == rank_) fail(ErrorCode::invalid_argument, "rank {} of {} cannot send to rank {}", rank_, size_, to);
  begin({.activity = Activity::send}, 0, deadline);
  Mailbox& box = mailbox(rank_, to);
  std::uint32_t& sent = sent_[static_cast<std::size_t>(to)];
  std::size_t at = 0;
  do {
    await(box.taken, sent - 1, to);  // two pieces may be under way
    const std::size_t length = std::min(mail_bytes_, bytes.size() - at);
    std::copy_n(bytes.data() + at, length, mail(rank_, to, ++sent));
    box.message_bytes[sent & 1] = bytes.size();
    raise(box.sent, sent, 0);
    at += length;
  } while (at < bytes.size());
}

void ShmGroup::recv(std::span<std::byte> bytes, int from, std::optional<Deadline> deadline) {
  if (from < 0 || from >= size_ || from == rank_)
    fail(ErrorCode::invalid_argument, "rank {} of {} cannot receive from rank {}", rank_, size_, from);
  begin({.activity = Activity::receive}, 0, deadline);
  Mailbox& box = mailbox(from, rank_);
  std::uint32_t& taken = taken_[static_cast<std::size_t>(from)];
  std::size_t at = 0;
  do {
    await(box.sent, ++taken, from);
    if (const std::uint64_t size = box.message_bytes[taken & 1]; size != bytes.size()) {
      const int sender = members_[static_cast<std::size_t>(from)];
      region_->abort(ErrorCode::mismatch, sender,
                     fmt::format("it sends {} bytes, rank {} expects {}", size, members_[static_cast<std::size_t>(rank_)], bytes.size()));
      region_->throw_failure();
    }
    const std::size_t length = std::min(mail_bytes_, bytes.size() - at);
    std::copy_n(mail(from, rank_, taken), length, bytes.data() + at);
    raise(box.taken, taken, 0);
    at += length;
  } while (at < bytes.size());
}

}  // namespace tandem::shm
