#include "comm/shm/call_log.h"

#include <algorithm>
#include <cstring>

#include "comm/shm/shm_group.h"
#include "core/check.h"

namespace tandem::shm {
namespace {

// A word: the number of the call, and a hash of this call and all before it. So a difference shows in every later call too, where a rank
// was too far ahead to be compared when it arose.
constexpr int kHashBits = 40;
constexpr std::uint64_t kHashMask = (std::uint64_t{1} << kHashBits) - 1;

// Never 0, which stands for none.
std::uint64_t word_of(std::uint64_t number, std::uint64_t chain) {
  return (number % (kHashMask >> 16) + 1) << kHashBits | (chain & kHashMask);
}

std::uint64_t extend(std::uint64_t chain, std::string_view what) {
  for (const char c : what) chain = (chain ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return (chain ^ (chain >> 29)) * 0x9e3779b97f4a7c15 + 1;
}

}  // namespace

CallLog::CallLog(ShmGroup* group) : group_(group) { clear(); }

void CallLog::clear() {
  if (!group_) return;
  for (auto& word : group_->calls(group_->rank()).word) word.store(0);
}

void CallLog::begin(std::string_view what) {
  if (!group_ || left_) return;
  ++number_;
  chain_before_ = chain_;
  chain_ = extend(chain_, what);
  chain_ ^= chain_ >> 32;
  const std::size_t slot = number_ % Calls::kKept;
  Calls& mine = group_->calls(group_->rank());
  std::uint64_t text[Calls::kTextWords] = {};
  std::memcpy(text, what.data(), std::min(what.size(), sizeof text - 1));
  for (std::size_t i = 0; i < std::size(text); ++i) mine.text[slot][i].store(text[i], std::memory_order_relaxed);
  const std::uint64_t word = word_of(number_, chain_);
  mine.word[slot].store(word);  // sequentially consistent, so that of two ranks one sees the other
  for (int r = 0; r < group_->size(); ++r) {
    const std::uint64_t other = group_->calls(r).word[slot].load();
    if (other != word && other >> kHashBits == word >> kHashBits) disagree(r);
  }
}

void CallLog::undo() {
  if (!group_ || left_) return;
  group_->calls(group_->rank()).word[number_ % Calls::kKept].store(0);
  --number_;
  chain_ = chain_before_;
}

void CallLog::leave() {
  left_ = true;
  clear();
}

void CallLog::disagree(int other) {
  const auto text = [&](int r) {
    std::uint64_t words[Calls::kTextWords];
    for (std::size_t i = 0; i < std::size(words); ++i)
      words[i] = group_->calls(r).text[number_ % Calls::kKept][i].load(std::memory_order_relaxed);
    const auto* first = reinterpret_cast<const char*>(words);
    return std::string(first, strnlen(first, sizeof words));
  };
  const int a = std::min(group_->rank(), other), b = std::max(group_->rank(), other);
  const int rank_a = group_->members()[static_cast<std::size_t>(a)], rank_b = group_->members()[static_cast<std::size_t>(b)];
  const std::string calls = text(a) == text(b) ? fmt::format("both run {} now, one of them ran something else before", text(a))
                                               : fmt::format("rank {} runs {}, rank {} runs {}", rank_a, text(a), rank_b, text(b));
  group_->give_up(ErrorCode::mismatch, rank_b, fmt::format("ranks {} and {} disagree in call {}: {}", rank_a, rank_b, number_, calls));
}

}  // namespace tandem::shm
