#include "runtime/stream_plan.h"

#include <algorithm>
#include <numeric>

#include "core/check.h"
#include "tandem/device_memory.h"

namespace tandem {
namespace {

constexpr std::size_t kSmall = std::size_t{64} << 10;       // a copy of fewer bytes takes the time that it takes to begin one
constexpr std::size_t kLeastSlot = std::size_t{256} << 10;  // of the ring, unless the budget has no room for that

// What one step reads of blocks that can be streamed.
struct Need {
  std::size_t bytes = 0;
  const std::vector<int>* blocks = nullptr;
};

// Most first.
std::vector<Need> needs_of(const WeightUses& uses) {
  std::vector<Need> needs;
  for (const auto& program : uses.reads)
    for (const std::vector<int>& blocks : program) {
      Need need{0, &blocks};
      for (const int b : blocks)
        if (!uses.stays[static_cast<std::size_t>(b)]) need.bytes += uses.bytes[static_cast<std::size_t>(b)];
      if (need.bytes > 0) needs.push_back(need);
    }
  std::ranges::stable_sort(needs, std::ranges::greater(), &Need::bytes);
  return needs;
}

// Fills a Residency within a budget.
class Chooser {
 public:
  Chooser(const WeightUses& uses, std::size_t budget) : uses_(uses), budget_(budget), reads_(uses.bytes.size(), 0) {
    out_.resident.assign(uses.bytes.size(), false);
    for (std::size_t b = 0; b < uses.bytes.size(); ++b)
      if (uses.stays[b]) keep(b);
    std::vector<bool> seen(uses.bytes.size(), false);
    for (const auto& program : uses.reads) {
      std::vector<int> count(uses.bytes.size(), 0);
      for (const std::vector<int>& blocks : program)
        for (const int block : blocks) {
          const auto b = static_cast<std::size_t>(block);
          reads_[b] = std::max(reads_[b], ++count[b]);
          if (!seen[b]) in_order_.push_back(b);
          seen[b] = true;
        }
    }
  }

  Residency choose() {
    choose_ring();
    std::vector<std::size_t> small;
    std::ranges::copy_if(in_order_, std::back_inserter(small), [&](std::size_t b) { return uses_.bytes[b] <= kSmall; });
    std::ranges::stable_sort(small, std::ranges::less(), [&](std::size_t b) { return uses_.bytes[b]; });
    for (const std::size_t b : small) keep_if_it_fits(b);
    std::vector<std::size_t> shared;
    std::ranges::copy_if(in_order_, std::back_inserter(shared), [&](std::size_t b) { return reads_[b] > 1; });
    std::ranges::stable_sort(shared, std::ranges::greater(), [&](std::size_t b) { return reads_[b]; });
    for (const std::size_t b : shared) keep_if_it_fits(b);
    keep_evenly();
    for (const std::size_t b : in_order_) keep_if_it_fits(b);
    return std::move(out_);
  }

 private:
  std::size_t room() const { return budget_ - out_.ring_bytes - out_.resident_bytes; }

  void keep(std::size_t b) {
    if (out_.resident[b]) return;
    out_.resident[b] = true;
    out_.resident_bytes += uses_.bytes[b];
  }

  void keep_if_it_fits(std::size_t b) {
    if (uses_.bytes[b] <= room()) keep(b);
  }

  // Looks at slots from the largest on: a slot as large as this step's need, all that reads more resident.
  void choose_ring() {
    const std::vector<Need> needs = needs_of(uses_);
    std::vector<bool> kept = out_.resident;
    std::size_t kept_bytes = out_.resident_bytes, slot = 0, larger = 0;  // `larger` needs are resident with that slot
    for (std::size_t i = 0; i < needs.size(); ++i) {
      if (i == 0 || needs[i].bytes < needs[i - 1].bytes) {
        const std::size_t wanted = std::max(needs[i].bytes, kLeastSlot);
        if (kept_bytes <= budget_ && 2 * wanted <= budget_ - kept_bytes) slot = wanted, larger = i;
      }
      for (const int block : *needs[i].blocks) {
        const auto b = static_cast<std::size_t>(block);
        kept_bytes += kept[b] ? 0 : uses_.bytes[b];
        kept[b] = true;
      }
    }
    out_.ring_bytes = slot > 0 ? 2 * slot : budget_ - out_.resident_bytes;
    for (std::size_t i = 0; i < larger; ++i)
      for (const int block : *needs[i].blocks) keep(static_cast<std::size_t>(block));
  }

  // In the order of the program: a block stays wherever fewer bytes have stayed than their share of what was passed.
  void keep_evenly() {
    double all = 0, passed = 0, kept = 0;
    for (const std::size_t b : in_order_) all += out_.resident[b] ? 0 : static_cast<double>(uses_.bytes[b]);
    const double share = all > 0 ? static_cast<double>(room()) / all : 0;
    for (const std::size_t b : in_order_) {
      if (out_.resident[b]) continue;
      const auto bytes = static_cast<double>(uses_.bytes[b]);
      passed += bytes;
      if (kept + bytes / 2 > passed * share || uses_.bytes[b] > room()) continue;
      keep(b);
      kept += bytes;
    }
  }

  const WeightUses& uses_;
  std::size_t budget_;
  std::vector<int> reads_;             // per block: by how many steps of the program that has most of them
  std::vector<std::size_t> in_order_;  // blocks, as programs read them first
  Residency out_;
};

}  // namespace

std::size_t total_bytes(const WeightUses& uses) { return std::accumulate(uses.bytes.begin(), uses.bytes.end(), std::size_t{0}); }

std::size_t least_budget(const WeightUses& uses) {
  std::size_t least = 0;
  for (std::size_t b = 0; b < uses.bytes.size(); ++b) least += uses.stays[b] ? uses.bytes[b] : 0;
  const std::vector<Need> needs = needs_of(uses);
  return least + (needs.empty() ? 0 : needs.front().bytes);
}

Residency choose_residents(const WeightUses& uses, std::size_t budget) {
  const std::size_t total = total_bytes(uses), least = least_budget(uses);
  if (budget >= total) return {std::vector<bool>(uses.bytes.size(), true), total, 0};
  if (budget < least)
    fail(ErrorCode::invalid_argument,
         "a weight budget of {} bytes is too small: the step that reads most needs {} at once, so that is the least; all weights take {}",
         budget, least, total);
  return Chooser(uses, budget).choose();
}

namespace {

std::vector<Fetch::Piece> streamed_of(const std::vector<int>& reads, const std::vector<std::size_t>& bytes, const Residency& residency) {
  std::vector<Fetch::Piece> pieces;
  std::size_t at = 0;
  for (const int block : reads) {
    const auto b = static_cast<std::size_t>(block);
    if (residency.resident[b]) continue;
    pieces.push_back({block, at});
    at += bytes[b];
  }
  return pieces;
}

// Places chunks in the ring one behind the other. Where two of the largest fit they lie in halves, none in both: then a chunk never takes
// room of the one before it.
class Ring {
 public:
  Ring(std::size_t bytes, std::size_t largest)
      : part_(2 * largest <= bytes ? bytes / 2 / kDeviceAlignment * kDeviceAlignment : bytes), parts_(bytes / part_) {
    check(largest <= bytes, "a step's weights are larger than the ring");
  }

  // Where the chunk of `step` lies; `after` is raised to the last step whose chunk it overwrites.
  std::size_t place(std::size_t need, int step, int& after) {
    if (used_ + need > part_) {
      at_part_ = (at_part_ + 1) % parts_;
      used_ = 0;
    }
    const std::size_t begin = at_part_ * part_ + used_, end = begin + need;
    used_ += need;
    std::erase_if(live_, [&](const Chunk& chunk) {
      const bool overwritten = chunk.begin < end && begin < chunk.end;
      if (overwritten) after = std::max(after, chunk.step);
      return overwritten;
    });
    live_.push_back({begin, end, step});
    return begin;
  }

 private:
  struct Chunk {
    std::size_t begin, end;
    int step;
  };
  std::size_t part_, parts_, at_part_ = 0, used_ = 0;
  std::vector<Chunk> live_;
};

}  // namespace

std::vector<Fetch> plan_fetches(const std::vector<std::vector<int>>& reads, const std::vector<std::size_t>& bytes,
                                const Residency& residency) {
  std::vector<Fetch> fetches;
  std::size_t largest = 0;
  const auto size_of = [&](const std::vector<Fetch::Piece>& pieces) {
    return pieces.empty() ? 0 : pieces.back().offset + bytes[static_cast<std::size_t>(pieces.back().block)];
  };
  for (std::size_t s = 0; s < reads.size(); ++s) {
    std::vector<Fetch::Piece> pieces = streamed_of(reads[s], bytes, residency);
    largest = std::max(largest, size_of(pieces));
    if (!pieces.empty()) fetches.push_back({static_cast<int>(s), -1, std::move(pieces)});
  }
  if (fetches.empty()) return fetches;
  Ring ring(residency.ring_bytes, largest);
  int after = -1;
  for (Fetch& fetch : fetches) {
    const std::size_t begin = ring.place(size_of(fetch.pieces), fetch.step, after);
    for (Fetch::Piece& piece : fetch.pieces) piece.offset += begin;
    fetch.after = after;
  }
  return fetches;
}

}  // namespace tandem
