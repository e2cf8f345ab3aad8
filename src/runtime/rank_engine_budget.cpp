// Loading weights within a budget of the device's memory: what is not resident goes to pinned memory of the host.
#include <algorithm>

#include "core/check.h"
#include "device/upload.h"
#include "runtime/rank_engine.h"

namespace tandem {
namespace {

const std::byte kSomewhere{};  // where a kernel asks only whether an operand is a weight

std::vector<const std::byte*> marks(const std::vector<int>& weights) {
  std::vector<const std::byte*> out;
  for (const int weight : weights) out.push_back(weight < 0 ? nullptr : &kSomewhere);
  return out;
}

}  // namespace

WeightSizes RankEngine::weigh(std::shared_ptr<const Plan> plan, int rank, std::optional<std::size_t> budget) {
  const std::shared_ptr<RankEngine> engine = bare(std::move(plan), rank);
  const OnDevice on_device(*engine->device_);
  for (const Program& program : engine->plan_->programs) engine->packed_.emplace_back(program.steps.size());
  const WeightBlocks blocks = engine->find_blocks();
  const std::size_t total = total_bytes(blocks.uses);
  const Residency residency = choose_residents(blocks.uses, budget.value_or(total));
  return {total, least_budget(blocks.uses), residency.ring_bytes, total - residency.resident_bytes};
}

const std::byte* RankEngine::weight_anywhere(std::size_t w) const {
  const int block = streaming_ ? streaming_->blocks.of_weight[w] : -1;
  return weight_data_[w] || block < 0 ? weight_data_[w] : streaming_->host[static_cast<std::size_t>(block)];
}

void RankEngine::load_within(std::size_t budget, const LoadProgress& progress) {
  for (const Program& program : plan_->programs) packed_.emplace_back(program.steps.size());
  pack_unmoved();
  streaming_ = std::make_unique<Streaming>();
  streaming_->blocks = find_blocks();
  const WeightUses& uses = streaming_->blocks.uses;
  streaming_->residency = choose_residents(uses, budget);
  for (const auto& reads : uses.reads) streaming_->fetches.push_back(plan_fetches(reads, uses.bytes, streaming_->residency));
  place_blocks();
  pack_blocks(progress);
  for (Tensor& weight : weights_) weight = Tensor();
  if (streaming_->residency.ring_bytes == 0) streaming_.reset();
}

// Where the weights of one step are as they are, until they are packed.
struct RankEngine::PackRoom {
  PackRoom(const std::shared_ptr<Device>& device, std::size_t bytes)
      : pinned(device, bytes), there(device, bytes), stream(device->make_stream(1)) {}
  PinnedMemory pinned;
  DeviceMemory there;
  std::unique_ptr<Stream> stream;
};

// What kernels keep as only they know: beside the budget, as nobody knows how large that is before it is made.
void RankEngine::pack_unmoved() {
  for (std::size_t p = 0; p < plan_->programs.size(); ++p)
    for (std::size_t s = 0; s < plan_->programs[p].steps.size(); ++s) {
      if (!kernels_[p][s]->pack || kernels_[p][s]->packed_bytes) continue;
      if (const auto like = packed_like(p, s)) {
        packed_[p][s] = packed_[*like][s];
        continue;
      }
      PackRoom room(device_, plain_bytes(p, s));
      packed_[p][s] = pack_in(room, p, s);
    }
}

std::size_t RankEngine::plain_bytes(std::size_t p, std::size_t s) const {
  std::size_t size = 0;
  for (const int weight : weight_operands(p, s))
    size += weight < 0 ? 0 : aligned_size(weights_[static_cast<std::size_t>(weight)].size_bytes());
  return size;
}

// Whether the kernel makes something of its weights that no program before it has.
bool RankEngine::packs(std::size_t p, std::size_t s) const {
  const KernelDef& kernel = *kernels_[p][s];
  if (!kernel.pack || packed_like(p, s)) return false;
  return !kernel.packed_bytes || kernel.packed_bytes(call(p, s), marks(weight_operands(p, s))) > 0;
}

WeightBlocks RankEngine::find_blocks() const {
  WeightBlocks out;
  out.of_weight.assign(plan_->weights.size(), -1);
  for (std::size_t p = 0; p < plan_->programs.size(); ++p) {
    const Program& program = plan_->programs[p];
    out.of_packed.emplace_back(program.steps.size(), -1);
    out.uses.reads.emplace_back(program.steps.size());
    for (std::size_t s = 0; s < program.steps.size(); ++s) add_blocks(out, p, s);
    for (const Binding& output : program.outputs)
      if (const int weight = weight_of_value(p, output.value); weight >= 0)
        out.uses.stays[static_cast<std::size_t>(plain_block(out, weight))] = true;
  }
  return out;
}

// Those that a step reads.
void RankEngine::add_blocks(WeightBlocks& out, std::size_t p, std::size_t s) const {
  const KernelDef& kernel = *kernels_[p][s];
  const std::vector<int> operands = weight_operands(p, s);
  const OpCall bare = call(p, s);
  std::vector<int>& reads = out.uses.reads[p][s];
  const std::size_t size = kernel.packed_bytes ? kernel.packed_bytes(bare, marks(operands)) : 0;
  if (size > 0) {
    const auto like = packed_like(p, s);
    reads.push_back(out.of_packed[p][s] = like ? out.of_packed[*like][s] : out.add(size, {-1, p, s}));
  }
  for (std::size_t i = 0; i < operands.size(); ++i) {
    const bool copied = (size > 0 || packed_[p][s]) && kernel.packs_operand && kernel.packs_operand(bare, i);
    if (operands[i] >= 0 && !copied) reads.push_back(plain_block(out, operands[i]));
  }
  std::ranges::sort(reads);
  reads.erase(std::ranges::unique(reads).begin(), reads.end());
}

int RankEngine::plain_block(WeightBlocks& out, int weight) const {
  const PlanWeight& w = plan_->weights[static_cast<std::size_t>(weight)];
  int& block = out.of_weight[static_cast<std::size_t>(weight)];
  if (block < 0) block = out.add(bytes(w.dtype, element_count(w.shape)), {weight});
  return block;
}

// Weights as they are, and room for what kernels make of others.
void RankEngine::place_blocks() {
  const WeightBlocks& blocks = streaming_->blocks;
  const std::vector<bool>& resident = streaming_->residency.resident;
  std::size_t there = 0, here = 0;
  for (std::size_t b = 0; b < blocks.sources.size(); ++b) {
    if (!resident[b]) here += blocks.uses.bytes[b];
    else if (blocks.sources[b].weight >= 0) there += blocks.uses.bytes[b];
  }
  uploaded_ = DeviceMemory(device_, there);
  pinned_ = PinnedMemory(device_, here);
  weight_data_.assign(weights_.size(), nullptr);
  std::vector<Upload> uploads, copies;
  std::byte *on_device = uploaded_.data(), *on_host = pinned_.data();
  for (std::size_t b = 0; b < blocks.sources.size(); ++b) {
    const int weight = blocks.sources[b].weight;
    const Tensor* data = weight < 0 ? nullptr : &weights_[static_cast<std::size_t>(weight)];
    streaming_->host.push_back(resident[b] ? nullptr : on_host);
    if (resident[b] && data) {
      uploads.push_back({on_device, data->data(), data->size_bytes()});
      weight_data_[static_cast<std::size_t>(weight)] = on_device;
      on_device += blocks.uses.bytes[b];
    } else if (!resident[b]) {
      if (data) copies.push_back({on_host, data->data(), data->size_bytes()});
      on_host += blocks.uses.bytes[b];
    }
  }
  upload(*device_, uploads, Deadline::after(kLoadDeadline));
  copy_on_host(copies, Deadline::after(kLoadDeadline));
}

// One weight at a time comes to the device, is packed there and, where it is streamed, goes back.
void RankEngine::pack_blocks(const LoadProgress& progress) {
  const WeightBlocks& blocks = streaming_->blocks;
  std::size_t most = 0;
  for (const WeightBlocks::Source& source : blocks.sources)
    if (source.weight < 0) most = std::max(most, plain_bytes(source.program, source.step));
  PackRoom room(device_, most);
  for (std::size_t b = 0; b < blocks.sources.size(); ++b) {
    const WeightBlocks::Source& source = blocks.sources[b];
    if (progress) progress(0.5 + 0.5 * static_cast<double>(b + 1) / static_cast<double>(blocks.sources.size()));
    if (source.weight >= 0) continue;
    std::unique_ptr<Packed> made = pack_in(room, source.program, source.step);
    check(made && aligned_size(made->size_bytes()) == blocks.uses.bytes[b], "a kernel packed other bytes than it said");
    if (std::byte* host = streaming_->host[b]) {
      device_->copy(host, made->data(), made->size_bytes(), *room.stream);
      room.stream->wait(Deadline::after(kLoadDeadline));
      made->release();
    }
    packed_[source.program][source.step] = std::move(made);
  }
  for (std::size_t p = 0; p < packed_.size(); ++p)
    for (std::size_t s = 0; s < packed_[p].size(); ++s) {
      if (blocks.of_packed[p][s] < 0) continue;
      const WeightBlocks::Source& source = blocks.sources[static_cast<std::size_t>(blocks.of_packed[p][s])];
      packed_[p][s] = packed_[source.program][source.step];
    }
}

std::unique_ptr<Packed> RankEngine::pack_in(PackRoom& room, std::size_t p, std::size_t s) const {
  std::vector<const std::byte*> pointers;
  std::vector<Upload> pieces;
  std::size_t size = 0;
  for (const int weight : weight_operands(p, s)) {
    pointers.push_back(weight < 0 ? nullptr : room.there.data() + size);
    if (weight < 0) continue;
    const Tensor& data = weights_[static_cast<std::size_t>(weight)];
    pieces.push_back({room.pinned.data() + size, data.data(), data.size_bytes()});
    size += aligned_size(data.size_bytes());
  }
  copy_on_host(pieces, Deadline::after(kLoadDeadline));
  device_->copy(room.there.data(), room.pinned.data(), size, *room.stream);
  room.stream->wait(Deadline::after(kLoadDeadline));
  return kernels_[p][s]->pack(call(p, s), pointers);
}

}  // namespace tandem
