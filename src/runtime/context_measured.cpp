// Extents that are measured in a run: a step gives them, the host reads them, and the steps behind it are prepared for what was read.
#include <algorithm>
#include <cstring>

#include "core/stored_bytes.h"
#include "runtime/context_bound.h"
#include "runtime/symbols.h"

namespace tandem {
namespace {

constexpr std::size_t kKeptTails = 8;  // per bound shape

// Behind the operands and results of the steps before `step`.
std::size_t first_argument(const Program& program, std::size_t step) {
  std::size_t count = 0;
  for (std::size_t s = 0; s < step; ++s) count += program.steps[s].operands.size() + program.steps[s].results.size();
  return count;
}

}  // namespace

void RankContext::forget_measured() {
  measured_.clear();
  ran_.clear();
}

Shape RankContext::last_output_shape(std::size_t index) {
  const std::vector<Dim>& dims = program().values.at(static_cast<std::size_t>(program().outputs.at(index).value)).type.dims;
  if (measures_.empty()) return output_shape(index);
  if (ran_.empty()) fail(ErrorCode::invalid_argument, "the shape of output '{}' is known after a run", program().outputs[index].name);
  return bound_dims(dims, ran_);
}

std::size_t RankContext::output_bytes(const Bound& bound, std::size_t index) const {
  const auto v = static_cast<std::size_t>(program().outputs[index].value);
  if (measures_.empty()) return bound.memory.size[v];
  const Type& type = program().values[v].type;
  return stored_bytes(type.dtype, element_count(bound_dims(type.dims, ran_)));
}

// Once the step that measures it is done; the device's stream is empty then.
std::int64_t RankContext::read_extent(const Measured& measured, std::int64_t bound) {
  const std::byte* from = address_[static_cast<std::size_t>(measured.value)];
  std::int64_t extent = 0;
  if (device_.is_host()) {
    std::memcpy(&extent, from, sizeof extent);
  } else {
    wait_for_stream();  // a copy to the host holds the thread without a deadline
    device_.copy(reinterpret_cast<std::byte*>(&extent), from, sizeof extent, *stream_);
    wait_for_stream();
  }
  check(0 <= extent && extent <= bound, fmt::format("{} is measured as {}, expected 0 to {}", measured.symbol, extent, bound));
  return extent;
}

const RankContext::Tail& RankContext::tail(Bound& bound, std::size_t first, std::size_t last, const SymbolValues& symbols) {
  std::list<Tail>& tails = bound.tails;
  const auto known = std::ranges::find_if(tails, [&](const Tail& t) { return t.first == first && t.symbols == symbols; });
  if (known != tails.end()) {
    tails.splice(tails.begin(), tails, known);
    return tails.front();
  }
  Tail made{first, symbols, {}, 0};
  made.workspace_bytes = prepare_steps(bound, symbols, first, last, made.launches);
  tails.push_front(std::move(made));
  if (tails.size() > kKeptTails * measures_.size()) tails.pop_back();
  if (tails.front().workspace_bytes > bound.workspace_bytes && tails.front().workspace_bytes > bound.tail_workspace.bytes()) {
    bound.tail_workspace = DeviceMemory();  // first, for both need not fit
    bound.tail_workspace = make_memory(tails.front().workspace_bytes);
  }
  return tails.front();
}

// Reads what was measured and runs the steps behind, to before `end`. The last of these may measure another symbol: it is given the most
// that this can be.
void RankContext::run_tail(Bound& bound, const Measured& measured, std::size_t end, SymbolValues& symbols, Timing* timing) {
  const auto step = static_cast<std::size_t>(measured.step);
  const Tail* behind = nullptr;
  try {
    if (timing) wait_with_others([&](Deadline deadline) { timing->cut(deadline); });
    const std::int64_t extent = read_extent(measured, measured.bound.evaluate(symbols));
    measured_[measured.symbol] = symbols[measured.symbol] = extent;
    check_constraints(program(), symbols, measured.symbol);
    SymbolValues known = symbols;
    for (const Measured& m : measures_)
      if (!known.contains(m.symbol)) known[m.symbol] = m.bound.evaluate(known);
    behind = &tail(bound, step + 1, end, known);
  } catch (const Error& error) {
    failed(step, error);
  }
  const bool fits = behind->workspace_bytes <= bound.workspace_bytes;
  std::byte* workspace = fits ? arena_->data() + bound.memory.arena_bytes : bound.tail_workspace.data();
  run_launches(behind->launches, step + 1, pointers_.data() + first_argument(program(), step + 1), workspace, timing);
}

void RankContext::run_tails(Bound& bound, Timing* timing) {
  SymbolValues symbols = bound.symbols;
  for (const Measured& m : measures_) symbols.erase(m.symbol);  // not known yet
  for (std::size_t i = 0; i < measures_.size(); ++i) {
    const bool last = i + 1 == measures_.size();
    const std::size_t end = last ? program().steps.size() : static_cast<std::size_t>(measures_[i + 1].step) + 1;
    run_tail(bound, measures_[i], end, symbols, timing);
  }
  ran_ = std::move(symbols);
}

}  // namespace tandem
