#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "comm/run_count.h"
#include "core/stop.h"
#include "plan/typical.h"
#include "runtime/context_bound.h"
#include "runtime/context_marks.h"
#include "runtime/symbols.h"

namespace tandem {
namespace {

// Seen by tools that look from outside. A null device has none, and no name is made for it.
class NamedRange {
 public:
  NamedRange(Device* device, const Step& step) : device_(device) {
    if (device_) device_->begin_range(label(step).c_str());
  }
  ~NamedRange() {
    if (device_) device_->end_range();
  }
  NamedRange(const NamedRange&) = delete;

 private:
  Device* device_;
};

// Copies of weights beside the steps of one run.
class StreamedRun {
 public:
  StreamedRun(WeightRing* ring, std::size_t program, Stream& stream) : ring_(ring), stream_(stream) {
    if (ring_) ring_->begin(program, stream_);
  }
  ~StreamedRun() {
    if (ring_) ring_->end(stream_);
  }
  StreamedRun(const StreamedRun&) = delete;

 private:
  WeightRing* ring_;
  Stream& stream_;
};

bool is_set(const char* name) {
  const char* value = std::getenv(name);
  return value && *value && std::string_view(value) != "0";
}

}  // namespace

RankContext::RankContext(std::shared_ptr<const RankEngine> engine, RankContextOptions options)
    : engine_(std::move(engine)),
      options_(options),
      device_(*engine_->device()),
      stream_(device_.make_stream(options.threads)),
      auxiliary_(std::make_shared<AuxiliaryStreams>(device_, tandem::auxiliary_streams(engine_->plan()))),
      done_(device_.make_end_event()),
      marks_(std::make_unique<Marks>(device_)),
      shapes_(program().inputs.size()),
      shape_set_(program().inputs.size(), false),
      arena_(std::make_shared<DeviceMemory>()) {
  check_profile(engine_->plan(), options_.profile, true);
  fits_ = options_.profile < 0;
  named_ranges_ = is_set("TANDEM_NVTX");
  use_profile(static_cast<std::size_t>(std::max(0, options_.profile)));
}

void RankContext::use_profile(std::size_t profile) {
  if (profile == profile_ && !direct_.empty()) return;
  profile_ = profile;
  direct_ = direct_outputs(program());
  measures_ = measured_of(program());
  arguments_.clear();
  for (const Step& step : program().steps) {
    arguments_.insert(arguments_.end(), step.operands.begin(), step.operands.end());
    arguments_.insert(arguments_.end(), step.results.begin(), step.results.end());
  }
  pointers_.assign(arguments_.size(), nullptr);
  address_.assign(program().values.size(), nullptr);
  placed_.clear();
  last_read_ = last_step_that_reads_inputs(program());
  find_streamed();
}

// Operands that are in the ring, at another place for each step that reads them.
void RankContext::find_streamed() {
  streamed_.clear();
  const Streaming* streaming = engine_->streaming();
  if (!streaming) return;
  const std::vector<int> root = alias_roots(program());
  std::size_t argument = 0;
  for (std::size_t s = 0; s < program().steps.size(); ++s) {
    for (const int v : program().steps[s].operands) {
      const int weight = v < 0 ? -1 : program().values[static_cast<std::size_t>(root[static_cast<std::size_t>(v)])].weight;
      if (weight >= 0)
        if (const auto at = streaming->offset(profile_, s, streaming->blocks.of_weight[static_cast<std::size_t>(weight)]))
          streamed_.push_back({argument, *at});
      ++argument;
    }
    argument += program().steps[s].results.size();
  }
}

std::optional<std::size_t> RankContext::packed_offset(std::size_t s) const {
  const Streaming* streaming = engine_->streaming();
  if (!streaming || streaming->blocks.of_packed[profile_][s] < 0) return std::nullopt;
  return streaming->offset(profile_, s, streaming->blocks.of_packed[profile_][s]);
}

void RankContext::set_profile(int profile) {
  const Turn turn(*this);
  check_profile(engine_->plan(), profile, true);
  fits_ = profile < 0;
  symbols_.reset();
  if (!fits_) use_profile(static_cast<std::size_t>(profile));
}

void RankContext::set_communicator(Group* group) {
  const Turn turn(*this);
  if (group && group->size() != engine_->plan().world_size())
    fail(ErrorCode::mismatch, "the engine is for {} ranks, the group has {}", engine_->plan().world_size(), group->size());
  if (group && group->rank() != engine_->rank())
    fail(ErrorCode::mismatch, "the engine is loaded for rank {}, the group says {}", engine_->rank(), group->rank());
  leave_group();
  bound_group_ = group;
}

void RankContext::set_input_shape(const std::string& name, Shape shape) {
  const Turn turn(*this);
  for (std::size_t i = 0; i < program().inputs.size(); ++i) {
    if (program().inputs[i].name != name) continue;
    shapes_[i] = std::move(shape);
    shape_set_[i] = true;
    symbols_.reset();
    return;
  }
  fail(ErrorCode::invalid_argument, "there is no input '{}'", name);
}

void RankContext::bind(const SymbolValues& symbols) {
  const Turn turn(*this);
  symbols_ = symbols;
  for (const auto& [axis, position] : coordinates(engine_->plan().mesh, engine_->rank())) (*symbols_)[axis] = position;
}

void RankContext::require_bound() {
  if (symbols_) return;
  for (std::size_t i = 0; i < shapes_.size(); ++i) {
    if (shape_set_[i]) continue;
    for (const Dim& dim : program().inputs[i].type.dims)
      if (!dim.is_constant())
        fail(ErrorCode::invalid_argument, "the shape of input '{}' ({}) is not set", program().inputs[i].name,
             program().inputs[i].type.to_string());
    shapes_[i] = bound_dims(program().inputs[i].type.dims, {});
    shape_set_[i] = true;
  }
  SymbolValues symbols = bind_symbols(program(), shapes_);
  use_profile(fitting_profile(engine_->plan(), symbols, fits_ ? -1 : static_cast<int>(profile_)));
  symbols.merge(coordinates(engine_->plan().mesh, engine_->rank()));
  symbols_ = std::move(symbols);
}

Shape RankContext::input_shape(std::size_t index) {
  require_bound();
  return bound_dims(program().values.at(static_cast<std::size_t>(program().inputs.at(index).value)).type.dims, *symbols_);
}

Shape RankContext::output_shape(std::size_t index) {
  require_bound();
  return largest_dims(measures_, program().values.at(static_cast<std::size_t>(program().outputs.at(index).value)).type.dims, *symbols_);
}

// `typical`: the symbols of the shapes for which algorithms were timed.
bool RankContext::is_as_timed(std::size_t s, const OpCall& call, const SymbolValues& typical) const {
  if (program().steps[s].algorithm.empty()) return false;
  const OpCall timed = engine_->call(profile_, s).bound(typical);
  return timed.operands == call.operands && timed.results == call.results;
}

// Of a launch of the steps from `first` on that are prepared together. It starts early only after a step of these that launches something
// for these shapes: else it would be beside whatever came before that, and what the plan calls resident might not be. Nor does a step that
// waits for its weights.
void RankContext::set_edge(Launch& launch, std::size_t number, std::size_t first, const SymbolValues& symbols) const {
  const Step& step = program().steps[number];
  const auto has_elements = [&](int value) {
    return element_count(bound_dims(program().values[static_cast<std::size_t>(value)].type.dims, symbols)) > 0;
  };
  const bool waits = engine_->streaming() && engine_->streaming()->fetches_for(profile_, number);
  launch.starts_early = step.starts_early && !waits && options_.dependent_launch && can_start_early(device_) && number > first &&
                        engine_->kernel(profile_, number - 1).dependent &&
                        std::ranges::any_of(program().steps[number - 1].results, has_elements);
  for (const int operand : step.resident)
    if (launch.starts_early && operand < 64) launch.resident |= std::uint64_t{1} << operand;
}

std::shared_ptr<RankContext::Bound> RankContext::prepare_bound(const SymbolValues& symbols) {
  auto bound = std::make_shared<Bound>();
  bound->profile = profile_;
  bound->symbols = symbols;
  if (engine_->plan().profiles() > 1) bound->shapes = fmt::format("profile {}", profile_);
  for (const Binding& input : program().inputs)
    bound->shapes += fmt::format("{}{} {}", bound->shapes.empty() ? "" : ", ", input.name,
                                 to_string(bound_dims(program().values[static_cast<std::size_t>(input.value)].type.dims, symbols)));
  std::vector<bool> outside;
  for (int output : direct_) outside.push_back(output >= 0);
  bound->memory = plan_memory(program(), symbols, outside);
  if (engine_->streaming() && !ring_)
    ring_ = std::make_shared<WeightRing>(engine_, make_memory(engine_->streaming()->residency.ring_bytes));
  const std::size_t end = measures_.empty() ? program().steps.size() : static_cast<std::size_t>(measures_[0].step) + 1;
  bound->workspace_bytes = prepare_steps(*bound, symbols, 0, end, bound->launches);
  return bound;
}

// The steps from `first` to before `last`, added to `launches`; gives the workspace that they need.
std::size_t RankContext::prepare_steps(const Bound& bound, const SymbolValues& symbols, std::size_t first, std::size_t last,
                                       std::vector<Launch>& launches) {
  std::size_t workspace = 0;
  SymbolValues typical = typical_symbols(program());
  typical.merge(coordinates(engine_->plan().mesh, engine_->rank()));
  for (std::size_t s = first; s < last; ++s) {
    const Step& step = program().steps[s];
    try {
      const OpCall call = engine_->call(profile_, s).bound(symbols);
      std::vector<const std::byte*> weights;
      for (int v : step.operands) {
        const int root = v < 0 ? -1 : bound.memory.root[static_cast<std::size_t>(v)];
        const int weight = root < 0 ? -1 : program().values[static_cast<std::size_t>(root)].weight;
        weights.push_back(weight < 0 ? nullptr : engine_->weight_anywhere(static_cast<std::size_t>(weight)));
      }
      const PrepareArgs args{call,
                             weights,
                             engine_->packed(profile_, s),
                             options_.threads,
                             step.communicates ? group_of(s) : nullptr,
                             &device_,
                             is_as_timed(s, call, typical) ? std::string_view(step.algorithm) : std::string_view(),
                             engine_->plan().tf32,
                             engine_->plan().exact};
      launches.push_back({engine_->kernel(profile_, s).prepare(args), static_cast<std::uint32_t>(step.operands.size()),
                          static_cast<std::uint32_t>(step.results.size()), step.communicates});
      set_edge(launches.back(), s, first, symbols);
      if (const auto at = packed_offset(s)) launches.back().packed = ring_->data() + *at;
      workspace = std::max(workspace, launches.back().kernel->workspace_bytes());
    } catch (const Error& error) {
      throw error.at_node(label(step));
    }
  }
  return workspace;
}

bool RankContext::is_prepared() {
  require_bound();
  return std::ranges::any_of(
      bounds_, [&](const std::shared_ptr<Bound>& bound) { return bound->profile == profile_ && bound->symbols == *symbols_; });
}

const std::shared_ptr<RankContext::Bound>& RankContext::bound() {
  require_bound();
  agree_on_profile();
  for (auto it = bounds_.begin(); it != bounds_.end(); ++it)
    if ((*it)->profile == profile_ && (*it)->symbols == *symbols_) {
      bounds_.splice(bounds_.begin(), bounds_, it);
      return bounds_.front();
    }
  join_group();
  bounds_.push_front(prepare_bound(*symbols_));
  placed_.clear();  // one that is gone may have lain where this one does
  if (bounds_.size() > options_.kept_shapes) {
    wait_until_done();
    bounds_.pop_back();
  }
  return bounds_.front();
}

void RankContext::prepare() {
  const Turn turn(*this);
  const std::shared_ptr<Bound> ready = bound();
  if (device_.is_host()) return;
  // Once for nothing: what libraries and drivers do the first time cannot be recorded.
  stage(*ready);
  device_.clear(ready->staging.data(), ready->staging.bytes(), *stream_);
  const std::span<std::byte* const> staged(ready->staged);
  const std::vector<const std::byte*> inputs(staged.begin(), staged.begin() + static_cast<std::ptrdiff_t>(program().inputs.size()));
  const SymbolValues measured = measured_, ran = ran_;
  guarded([&] {
    enqueue_bound(ready, inputs, staged.subspan(inputs.size()));
    wait_for_stream();
  });
  measured_ = measured, ran_ = ran;  // those of zeros are nobody's
}

std::size_t RankContext::memory_bytes() {
  const Turn turn(*this);
  return bound()->needed_bytes();
}

std::size_t RankContext::largest_memory_bytes(std::size_t profile) {
  const Turn turn(*this);
  SymbolValues symbols = largest_symbols(engine_->plan(), profile);
  symbols.merge(coordinates(engine_->plan().mesh, engine_->rank()));
  join_group();
  struct Back {
    ~Back() { context.use_profile(profile); }
    RankContext& context;
    std::size_t profile;
  } back{*this, profile_};
  use_profile(profile);
  return prepare_bound(symbols)->needed_bytes();
}

void RankContext::set_inputs_consumed_event(void* event) {
  const Turn turn(*this);
  if (event && device_.is_host())
    fail(ErrorCode::unsupported, "ranks of the CPU have no events: their inputs are read when the call returns");
  consumed_ = event;
}

void RankContext::set_auxiliary_streams(std::span<void* const> streams) {
  const Turn turn(*this);
  auxiliary_->lend(streams);
  forget_recordings();
}

void RankContext::place(Bound& bound, std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs) {
  reserve(bound.needed_bytes());
  given_.assign({&bound, arena_->data()});
  given_.insert(given_.end(), inputs.begin(), inputs.end());
  given_.insert(given_.end(), outputs.begin(), outputs.end());
  if (given_ == placed_) return;
  for (std::size_t v = 0; v < address_.size(); ++v) {
    const auto root = static_cast<std::size_t>(bound.memory.root[v]);
    const PlanValue& value = program().values[root];
    if (root != v) continue;
    else if (value.weight >= 0) address_[v] = const_cast<std::byte*>(engine_->weight(static_cast<std::size_t>(value.weight)));
    else if (direct_[v] >= 0) address_[v] = outputs[static_cast<std::size_t>(direct_[v])];
    else address_[v] = arena_->data() + bound.memory.offset[v];
  }
  for (std::size_t i = 0; i < inputs.size(); ++i)
    address_[static_cast<std::size_t>(program().inputs[i].value)] = const_cast<std::byte*>(inputs[i]);
  for (std::size_t v = 0; v < address_.size(); ++v) address_[v] = address_[static_cast<std::size_t>(bound.memory.root[v])];
  for (std::size_t i = 0; i < arguments_.size(); ++i)
    pointers_[i] = arguments_[i] < 0 ? nullptr : address_[static_cast<std::size_t>(arguments_[i])];
  for (const Streamed& operand : streamed_) pointers_[operand.argument] = ring_->data() + operand.offset;
  std::swap(placed_, given_);
}

// Peers need not wait for a rank that goes no further.
void RankContext::interrupted(std::size_t step) {
  if (group_) group_->abort("its caller interrupted it");
  throw Error(ErrorCode::interrupted, "interrupted", label(program().steps[step]));
}

void RankContext::failed(std::size_t step, const Error& error) {
  const Error named = error.at_node(label(program().steps[step]));
  if (joined_->own || joined_->gpu) group_->abort(named.what());  // so that no peer waits for this rank
  throw named;
}

// Between two kernels everything is cold, so a step reads what lies one after the other: its launch and, from `next` on, its pointers.
void RankContext::run_launches(const std::vector<Launch>& launches, std::size_t first, std::byte* const* next, std::byte* workspace,
                               Timing* timing) {
  const std::span<Stream* const> auxiliary = auxiliary_->streams();
  const bool host = device_.is_host();
  Device* const ranges = !host && (timing || named_ranges_) ? &device_ : nullptr;
  for (std::size_t i = 0; i < launches.size(); ++i) {
    const std::size_t s = first + i;
    const Launch& launch = launches[i];
    const std::span<const std::byte* const> operands(next, launch.operands);
    const std::span<std::byte* const> results(next + launch.operands, launch.results);
    next += launch.operands + launch.results;
    if (StopScope::wanted()) interrupted(s);
    const NamedRange range(ranges, program().steps[s]);
    if (timing) timing->begin_step(s, launch.communicates);
    if (ring_) ring_->before(s, *stream_);
    try {
      launch.kernel->run({operands, results, workspace, *stream_, Deadline::after(options_.step_deadline), launch.starts_early,
                          launch.resident, launch.packed, auxiliary});
    } catch (const Error& error) {
      failed(s, error);
    }
    __builtin_prefetch(&launch + 1);  // arrive while the step is marked as done
    __builtin_prefetch(next);
    if (timing) timing->end_step(launch.communicates);
    if (ring_) ring_->after(s, *stream_);
    if (!host) marks_->pass(s, *stream_);
    if (consumed_ && last_read_ == static_cast<int>(s)) device_.record_event(consumed_, *stream_);
    if (group_) group_->mark(static_cast<std::int64_t>(s));
  }
}

void RankContext::run_steps(Bound& bound, Timing* timing) {
  const RunCount counted;
  if (consumed_ && last_read_ < 0) device_.record_event(consumed_, *stream_);
  const StreamedRun streamed(ring_.get(), profile_, *stream_);
  run_launches(bound.launches, 0, pointers_.data(), arena_->data() + bound.memory.arena_bytes, timing);
  if (!measures_.empty()) run_tails(bound, timing);
}

void RankContext::copy_outputs(const Bound& bound, std::span<std::byte* const> outputs) {
  copied_outputs_ = 0;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const auto v = static_cast<std::size_t>(program().outputs[i].value);
    const int direct = direct_[static_cast<std::size_t>(bound.memory.root[v])];
    const std::size_t size = output_bytes(bound, i);
    if (direct >= 0 || size == 0) continue;
    device_.copy(outputs[i], address_[v], size, *stream_);
    ++copied_outputs_;
  }
  if (consumed_ && last_read_ == static_cast<int>(program().steps.size())) device_.record_event(consumed_, *stream_);
}

void RankContext::check_counts(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs) const {
  if (inputs.size() != program().inputs.size() || outputs.size() != program().outputs.size())
    fail(ErrorCode::invalid_argument, "{} inputs and {} outputs given, the program has {} and {}", inputs.size(), outputs.size(),
         program().inputs.size(), program().outputs.size());
}

// Of values that have bytes.
void RankContext::check_pointers(const Bound& bound, std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs) const {
  const auto require = [&](const char* kind, const Binding& binding, const std::byte* given) {
    const std::size_t size = bound.memory.size[static_cast<std::size_t>(binding.value)];
    if (!given && size > 0)
      fail(ErrorCode::invalid_argument, "{} '{}' is given as a null pointer, expected memory of {} bytes", kind, binding.name, size);
  };
  for (std::size_t i = 0; i < inputs.size(); ++i) require("input", program().inputs[i], inputs[i]);
  for (std::size_t i = 0; i < outputs.size(); ++i) require("output", program().outputs[i], outputs[i]);
}

void RankContext::run(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs) {
  const Turn turn(*this);
  forget_measured();
  check_counts(inputs, outputs);
  const std::shared_ptr<Bound>& ready = bound();
  check_pointers(*ready, inputs, outputs);
  if (device_.is_host()) {
    place(*ready, inputs, outputs);
    if (hook_) return run_timed(*ready, outputs);
    run_steps(*ready);
    copy_outputs(*ready, outputs);
  } else {
    guarded([&, bound = std::shared_ptr<Bound>(ready)] { run_staged(bound, inputs, outputs); });
  }
}

}  // namespace tandem
