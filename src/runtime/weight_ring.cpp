#include "runtime/weight_ring.h"

namespace tandem {

WeightRing::WeightRing(std::shared_ptr<const RankEngine> engine, DeviceMemory memory)
    : engine_(std::move(engine)),
      memory_(std::move(memory)),
      copies_(engine_->device()->make_stream(1)),
      begun_(engine_->device()->make_event()),
      passed_(engine_->device()->make_event()) {}

void WeightRing::begin(std::size_t program, Stream& stream) {
  fetches_ = &engine_->streaming()->fetches[program];
  given_ = awaited_ = 0;
  while (arrived_.size() < fetches_->size()) arrived_.push_back(engine_->device()->make_event());
  if (fetches_->empty()) return;
  if (engine_->device()->is_recorded(*copies_)) {  // by a caller whose recording is not over
    held_.push_back(std::move(copies_));
    copies_ = engine_->device()->make_stream(1);
  }
  begun_->record(stream);
  begun_->wait(*copies_);
  give(0);
}

// Those that begin when so many steps are over. The copies are one after the other in their stream, so what one waits for all later ones
// have waited for too.
void WeightRing::give(std::size_t step_count) {
  const Streaming& streaming = *engine_->streaming();
  for (; given_ < fetches_->size() && (*fetches_)[given_].after < static_cast<int>(step_count); ++given_) {
    for (const Fetch::Piece& piece : (*fetches_)[given_].pieces) {
      const auto block = static_cast<std::size_t>(piece.block);
      engine_->device()->copy(memory_.data() + piece.offset, streaming.host[block], streaming.blocks.uses.bytes[block], *copies_);
    }
    arrived_[given_]->record(*copies_);
  }
}

void WeightRing::before(std::size_t step, Stream& stream) {
  if (awaited_ == fetches_->size() || (*fetches_)[awaited_].step != static_cast<int>(step)) return;
  arrived_[awaited_++]->wait(stream);
}

void WeightRing::after(std::size_t step, Stream& stream) {
  if (given_ == fetches_->size() || (*fetches_)[given_].after != static_cast<int>(step)) return;
  passed_->record(stream);
  passed_->wait(*copies_);
  give(step + 1);
}

void WeightRing::end(Stream& stream) noexcept {
  try {
    if (awaited_ < given_) arrived_[given_ - 1]->wait(stream);
  } catch (const Error&) {  // the next wait says what broke
  }
  awaited_ = given_;
}

}  // namespace tandem
