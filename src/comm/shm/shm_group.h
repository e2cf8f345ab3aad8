// ShmGroup: collectives of ranks on one host through shared memory.
//
// All of them are made of *phases*. In a phase every rank writes into its slot what others need, raises its `arrived` counter, waits
// until all ranks have raised theirs, and reads the others' slots. Slots alternate between two, so no second barrier is needed: a rank
// that writes the slot of phase k + 2 has seen everyone arrive in phase k + 1, hence finish reading phase k. The counter carries a hash
// of the call, so ranks that disagree find out in their first phase, before any output is written.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "comm/group.h"
#include "comm/shm/region.h"

namespace tandem::shm {

class ShmGroup final : public Group {
 public:
  // `members` are world ranks. Only memory of a split goes back to the region with its last member, not that of the world's group.
  ShmGroup(std::shared_ptr<ShmRegion> region, std::size_t offset, std::vector<int> members, int rank, bool is_world,
           std::shared_ptr<const Waiting> waiting);
  ~ShmGroup() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string_view backend() const override { return "shm"; }
  std::span<const int> members() const override { return members_; }
  void run(const CollectiveCall& call) override;
  void send(std::span<const std::byte> bytes, int to, std::optional<Deadline> deadline) override;
  void recv(std::span<std::byte> bytes, int from, std::optional<Deadline> deadline) override;
  std::vector<std::vector<std::byte>> exchange(std::span<const std::byte> blob, std::optional<Deadline> deadline) override;
  std::unique_ptr<Group> split(const std::vector<std::vector<int>>& lists, std::optional<Deadline> deadline) override;
  void mark(std::int64_t step) override;
  void throw_if_failed() override;
  Progress progress(int rank) const override { return region_->progress(members_.at(static_cast<std::size_t>(rank))); }
  void abort(std::string_view reason) override;
  // Ends the world with an error about a world rank, unless it has ended before; throws what has ended it.
  [[noreturn]] void give_up(ErrorCode code, int world_rank, std::string_view reason);
  // For CallLog.
  Calls& calls(int rank) const { return cell(rank).calls; }
  // Of this rank, for its GPU to write; in a page of its own, in memory of the region.
  std::atomic<std::uint64_t>& gpu_sequence() const { return mine().gpu_sequence; }
  const std::shared_ptr<ShmRegion>& region() const { return region_; }

 private:
  // shm_group.cpp
  Cell& cell(int rank) const { return cells_[rank]; }
  Mailbox& mailbox(int from, int to) const { return mailboxes_[from * size_ + to]; }
  std::byte* mail(int from, int to, std::uint32_t number) const;
  RankPage& mine() const { return *mine_; }
  void begin(const Descriptor& descriptor, std::uint64_t hash, const std::optional<Deadline>& deadline);

  // phases.cpp
  std::byte* next_slot() const { return slots_ + (static_cast<std::size_t>(rank_) * 2 + ((phase_ + 1) & 1)) * slot_bytes_; }
  const std::byte* slot(int rank) const { return slots_ + (static_cast<std::size_t>(rank) * 2 + (phase_ & 1)) * slot_bytes_; }
  void synchronise();
  void compare_descriptors();
  [[noreturn]] void disagree(int other);
  void raise(Signal& signal, std::uint32_t count, std::uint32_t tag);
  std::uint64_t await(const Signal& signal, std::uint32_t count, int writer);
  std::uint64_t await_slowly(Signal& signal, std::uint32_t count, int writer);
  bool await_spinning(const Signal& signal, std::uint32_t count) const;
  void throw_if_gone(int writer, const Signal& signal, std::uint32_t count);
  int find_laggard(int writer) const;
  [[noreturn]] void time_out(int writer, int laggard, const Deadline& deadline);

  // collectives.cpp
  template <typename Give, typename Take>
  void in_pieces(std::size_t bytes, std::size_t piece, Give give, Take take);
  void all_reduce(const CollectiveCall& call, std::size_t bytes);
  void all_reduce_at_once(const CollectiveCall& call, std::size_t bytes);
  void all_reduce_by_parts(const CollectiveCall& call, std::size_t bytes);
  void reduce(const CollectiveCall& call, std::size_t bytes);
  void reduce_scatter(const CollectiveCall& call, std::size_t bytes);
  void gather(const CollectiveCall& call, std::size_t bytes);
  void broadcast(const CollectiveCall& call, std::size_t bytes);
  void scatter(const CollectiveCall& call, std::size_t bytes);
  void all_to_all(const CollectiveCall& call, std::size_t bytes);
  void shift(const CollectiveCall& call, std::size_t bytes);

  std::shared_ptr<ShmRegion> region_;
  std::shared_ptr<const Waiting> waiting_;
  std::vector<int> members_;
  int rank_, size_;
  bool is_world_, roomy_, check_;
  std::size_t offset_, slot_bytes_, mail_bytes_;
  std::shared_ptr<Mapping> memory_;
  // Of the region. Marks come between two kernels, when every detour is a miss.
  RankPage* mine_;
  const std::atomic<std::uint32_t>* failure_;
  Cell* cells_;
  Mailbox* mailboxes_;
  std::byte* slots_;
  std::byte* mail_;
  std::uint32_t phase_ = 0;                  // the last one this rank has arrived in
  std::uint32_t hash_ = 0;                   // of the running call
  std::uint64_t calls_ = 0;                  // begun in this group
  std::optional<Deadline> deadline_;         // of the running call
  std::vector<std::uint32_t> sent_, taken_;  // pieces of mail, per peer
};

}  // namespace tandem::shm
