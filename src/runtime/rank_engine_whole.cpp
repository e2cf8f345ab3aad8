// Loading weights without a budget: kernels make what they want of a part of them at a time; then those come that steps read as they are.
#include <algorithm>

#include "device/upload.h"
#include "runtime/rank_engine.h"

namespace tandem {
namespace {

constexpr std::size_t kMostAtOnce = std::size_t{4} << 30;
constexpr std::size_t kParts = 4;  // that all weights come in at most, unless one of them is larger

}  // namespace

void RankEngine::load_whole(const LoadProgress& progress) {
  const bool host = device_->is_host();
  weight_data_.assign(weights_.size(), nullptr);
  for (std::size_t w = 0; w < weights_.size() && host; ++w) weight_data_[w] = weights_[w].data();
  std::vector<StepAt> steps;
  for (std::size_t p = 0; p < plan_->programs.size(); ++p) {
    packed_.emplace_back(plan_->programs[p].steps.size());
    for (std::size_t s = 0; s < packed_[p].size(); ++s) steps.push_back({p, s});
  }
  std::vector<bool> read_plain(weights_.size(), false);
  DeviceMemory room(device_, host ? 0 : room_for(steps));
  for (std::size_t done = 0, there = host ? steps.size() : 0; done < steps.size(); ++done) {
    if (done == there) there = bring(room, steps, done);
    pack_step(steps[done], read_plain);
    if (progress) progress(0.5 + 0.5 * static_cast<double>(done + 1) / static_cast<double>(steps.size() + 1));
  }
  room = DeviceMemory();
  for (std::size_t p = 0; p < plan_->programs.size(); ++p)
    for (const Binding& output : plan_->programs[p].outputs)
      if (const int weight = weight_of_value(p, output.value); weight >= 0) read_plain[static_cast<std::size_t>(weight)] = true;
  keep_plain(read_plain);
  if (progress) progress(1);
}

// Bytes for the weights that kernels pack, while they do.
std::size_t RankEngine::room_for(std::span<const StepAt> steps) const {
  std::size_t total = 0, most = 0;
  for (const auto& [p, s] : steps) {
    const std::size_t size = packs(p, s) ? plain_bytes(p, s) : 0;
    total += size;
    most = std::max(most, size);
  }
  return std::max(most, std::min(total / kParts, kMostAtOnce));
}

// The weights that steps from `at` on pack, as many as have room. Gives the first step whose weights are not there.
std::size_t RankEngine::bring(const DeviceMemory& room, std::span<const StepAt> steps, std::size_t at) {
  std::ranges::fill(weight_data_, nullptr);
  std::vector<Upload> pieces;
  std::size_t used = 0;
  for (; at < steps.size(); ++at) {
    const auto [p, s] = steps[at];
    if (!packs(p, s)) continue;
    if (used + plain_bytes(p, s) > room.bytes()) break;
    for (const int weight : weight_operands(p, s)) {
      const auto w = static_cast<std::size_t>(weight);
      if (weight < 0 || weight_data_[w]) continue;
      weight_data_[w] = room.data() + used;
      pieces.push_back({room.data() + used, weights_[w].data(), weights_[w].size_bytes()});
      used += aligned_size(weights_[w].size_bytes());
    }
  }
  upload(*device_, pieces, Deadline::after(kLoadDeadline));
  return at;
}

// Marks in `read_plain` the weights that this step still reads as they are.
void RankEngine::pack_step(const StepAt& at, std::vector<bool>& read_plain) {
  const auto [p, s] = at;
  const KernelDef& kernel = *kernels_[p][s];
  const std::vector<int> numbers = weight_operands(p, s);
  const OpCall bare = call(p, s);
  if (const auto like = kernel.pack ? packed_like(p, s) : std::nullopt) {
    packed_[p][s] = packed_[*like][s];
  } else if (packs(p, s)) {
    std::vector<const std::byte*> pointers;
    for (const int weight : numbers) pointers.push_back(weight < 0 ? nullptr : weight_data_[static_cast<std::size_t>(weight)]);
    packed_[p][s] = kernel.pack(bare, pointers);
  }
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const bool copied = packed_[p][s] && kernel.packs_operand && kernel.packs_operand(bare, i);
    if (numbers[i] >= 0 && !copied) read_plain[static_cast<std::size_t>(numbers[i])] = true;
  }
}

// Of the others nothing is left. On a device that does not read the host's memory they lie one after the other.
void RankEngine::keep_plain(const std::vector<bool>& read_plain) {
  const bool host = device_->is_host();
  std::size_t total = 0;
  for (std::size_t w = 0; w < weights_.size(); ++w) total += read_plain[w] ? aligned_size(weights_[w].size_bytes()) : 0;
  if (!host) uploaded_ = DeviceMemory(device_, total);
  std::vector<Upload> pieces;
  std::byte* to = uploaded_.data();
  for (std::size_t w = 0; w < weights_.size(); ++w) {
    if (!read_plain[w]) {
      weights_[w] = Tensor(), weight_data_[w] = nullptr;
    } else if (!host) {
      pieces.push_back({to, weights_[w].data(), weights_[w].size_bytes()});
      weight_data_[w] = to;
      to += aligned_size(weights_[w].size_bytes());
    }
  }
  if (host) return;
  upload(*device_, pieces, Deadline::after(kLoadDeadline));
  for (Tensor& weight : weights_) weight = Tensor();
}

}  // namespace tandem
