#include "runtime/context.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "core/check.h"
#include "core/stop.h"
#include "runtime/symbols.h"

namespace tandem {
namespace {

constexpr std::size_t kKeptRecordings = 8;  // per bound shape

std::string label(const Step& step) { return fmt::format("{} \"{}\"", step.op, step.node); }

const CollectiveUse* use_of(const Plan& plan, std::size_t program, std::size_t step) {
  for (const CollectiveUse& use : plan.collectives)
    if (use.program == static_cast<int>(program) && use.step == static_cast<int>(step)) return &use;
  return nullptr;
}

std::string group_key(const CollectiveUse& use) { return use.axis.empty() ? fmt::format("{}", use.groups) : use.axis; }

std::vector<int> everyone(int size) {
  std::vector<int> ranks(static_cast<std::size_t>(size));
  std::iota(ranks.begin(), ranks.end(), 0);
  return ranks;
}

std::vector<std::vector<int>> rank_lists(const CollectiveUse& use, const Mesh& mesh) {
  if (!use.axis.empty()) return mesh.groups(use.axis);
  std::vector<std::vector<int>> lists;
  for (const auto& list : use.groups) lists.emplace_back(list.begin(), list.end());
  if (lists.empty()) lists.push_back(everyone(mesh.size()));
  return lists;
}

bool is_world(const std::vector<std::vector<int>>& lists, int size) {
  return lists.size() == 1 && lists[0] == everyone(size);
}

// Files made per rank each name their own group only: the k-th groups of all ranks form one split.
void merge_lists(Group& world, std::vector<std::vector<std::vector<int>>>& lists, Deadline deadline) {
  std::vector<int> mine;  // per key: length, members
  for (const auto& key : lists) {
    mine.push_back(static_cast<int>(key.at(0).size()));
    mine.insert(mine.end(), key[0].begin(), key[0].end());
  }
  std::vector<std::vector<std::vector<int>>> merged;
  for (const auto& blob : world.exchange(std::as_bytes(std::span(mine)), deadline)) {
    std::vector<int> theirs(blob.size() / sizeof(int));
    std::memcpy(theirs.data(), blob.data(), theirs.size() * sizeof(int));
    for (std::size_t at = 0, k = 0; at < theirs.size(); ++k) {
      const auto length = static_cast<std::size_t>(theirs[at]);
      const auto first = theirs.begin() + static_cast<std::ptrdiff_t>(at) + 1;
      const std::vector<int> list(first, first + static_cast<std::ptrdiff_t>(length));
      if (merged.size() <= k) merged.resize(k + 1);
      if (std::ranges::find(merged[k], list) == merged[k].end()) merged[k].push_back(list);
      at += length + 1;
    }
  }
  lists = std::move(merged);
}

}  // namespace

struct RankContext::Bound {
  struct Launch {
    std::unique_ptr<PreparedKernel> kernel;
    std::uint32_t operands = 0, results = 0;
  };
  SymbolValues symbols;
  MemoryPlan memory;
  std::size_t workspace_bytes = 0;
  std::vector<Launch> launches;  // per step
  // Where inputs and outputs of run() lie on a device that does not read the host's memory.
  DeviceMemory staging;
  std::vector<std::byte*> staged;  // inputs, then outputs
  // The work as it was recorded for the addresses of a call: inputs, outputs, arena. Empty after the first call with them.
  struct Recorded {
    std::vector<const std::byte*> addresses;
    std::unique_ptr<Recording> recording;
  };
  std::list<Recorded> recorded;  // most recently used first
};

// Holds the RankContext for one call.
class RankContext::Turn {
 public:
  explicit Turn(std::atomic<bool>& busy) : busy_(busy) {
    if (busy_.exchange(true)) fail(ErrorCode::invalid_argument, "a context serves one thread at a time, and another call is still running");
  }
  ~Turn() { busy_ = false; }

 private:
  std::atomic<bool>& busy_;
};

RankContext::RankContext(std::shared_ptr<const RankEngine> engine, RankContextOptions options)
    : engine_(std::move(engine)), options_(options), device_(*engine_->device()), stream_(device_.make_stream(options.threads)), done_(device_.make_event()), direct_(direct_outputs(engine_->program(options.program))),
      shapes_(program().inputs.size()), shape_set_(program().inputs.size(), false), arena_(std::make_shared<DeviceMemory>()), address_(program().values.size(), nullptr) {
  for (const Step& step : program().steps) {
    arguments_.insert(arguments_.end(), step.operands.begin(), step.operands.end());
    arguments_.insert(arguments_.end(), step.results.begin(), step.results.end());
  }
  pointers_.resize(arguments_.size());
}

RankContext::~RankContext() = default;

const Program& RankContext::program() const { return engine_->program(options_.program); }

void RankContext::set_communicator(Group* group) {
  const Turn turn(busy_);
  if (group && group->size() != engine_->plan().world_size())
    fail(ErrorCode::mismatch, "the engine is for {} ranks, the group has {}", engine_->plan().world_size(), group->size());
  if (group && group->rank() != engine_->rank())
    fail(ErrorCode::mismatch, "the engine is loaded for rank {}, the group says {}", engine_->rank(), group->rank());
  bounds_.clear();  // prepared collectives keep their group
  groups_.clear();
  own_group_.reset();
  bound_group_ = group;
  group_ = options_.own_group ? nullptr : group;
  joined_ = false;
}

void RankContext::set_input_shape(const std::string& name, Shape shape) {
  const Turn turn(busy_);
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
  const Turn turn(busy_);
  symbols_ = symbols;
  for (const auto& [axis, position] : coordinates(engine_->plan().mesh, engine_->rank())) (*symbols_)[axis] = position;
}

void RankContext::require_bound() {
  if (symbols_) return;
  for (std::size_t i = 0; i < shapes_.size(); ++i) {
    if (shape_set_[i]) continue;
    for (const Dim& dim : program().inputs[i].type.dims)
      if (!dim.is_constant()) fail(ErrorCode::invalid_argument, "the shape of input '{}' ({}) is not set", program().inputs[i].name, program().inputs[i].type.to_string());
    shapes_[i] = bound_dims(program().inputs[i].type.dims, {});
    shape_set_[i] = true;
  }
  SymbolValues symbols = bind_symbols(program(), shapes_);
  symbols.merge(coordinates(engine_->plan().mesh, engine_->rank()));
  symbols_ = std::move(symbols);
}

Shape RankContext::input_shape(std::size_t index) {
  require_bound();
  return bound_dims(program().values.at(static_cast<std::size_t>(program().inputs.at(index).value)).type.dims, *symbols_);
}

Shape RankContext::output_shape(std::size_t index) {
  require_bound();
  return bound_dims(program().values.at(static_cast<std::size_t>(program().outputs.at(index).value)).type.dims, *symbols_);
}

// The collective point: agreement first, then every group in the order in which the plan first uses it.
void RankContext::join_group() {
  if (joined_) return;
  const Plan& plan = engine_->plan();
  if (bound_group_ && options_.own_group) {
    own_group_ = bound_group_->split({everyone(bound_group_->size())}, Deadline::after(options_.rendezvous_deadline));
    group_ = own_group_.get();
  }
  if (plan.world_size() > 1 && !group_ && !plan.collectives.empty())
    throw Error(ErrorCode::invalid_argument, fmt::format("the engine is for {} ranks and communicates, but no group is bound", plan.world_size()));
  if (group_ && group_->size() > 1) {
    const std::uint64_t values[] = {options_.same_plan ? engine_->plan_digest() : 0, options_.program};
    const std::string names[] = {"the plan", "the program"};
    require_agreement(*group_, values, names, Deadline::after(options_.rendezvous_deadline));
    std::vector<std::string> keys;
    std::vector<std::vector<std::vector<int>>> lists;  // per key
    std::vector<std::vector<CollectiveUse>> uses;      // per key
    for (const CollectiveUse& use : plan.collectives) {
      const auto found = std::ranges::find(keys, group_key(use));
      const auto k = static_cast<std::size_t>(found - keys.begin());
      if (found == keys.end()) {
        keys.push_back(group_key(use));
        lists.push_back(rank_lists(use, plan.mesh));
        uses.emplace_back();
      }
      uses[k].push_back(use);
    }
    if (!options_.same_plan) merge_lists(*group_, lists, Deadline::after(options_.rendezvous_deadline));
    for (std::size_t k = 0; k < lists.size(); ++k) {
      std::unique_ptr<Group> made;
      if (!is_world(lists[k], group_->size())) made = group_->split(lists[k], Deadline::after(options_.rendezvous_deadline));
      if (k >= keys.size()) continue;
      // Plans that differ must at least communicate alike.
      Group* members = is_world(lists[k], group_->size()) ? group_ : made.get();
      if (!options_.same_plan && members) {
        const std::uint64_t list[] = {digest(uses[k])};
        const std::string name[] = {fmt::format("the collectives over {}", keys[k])};
        require_agreement(*members, list, name, Deadline::after(options_.rendezvous_deadline));
      }
      groups_[keys[k]] = std::move(made);
    }
  }
  joined_ = true;
}

Group* RankContext::group_of(std::size_t step) {
  const CollectiveUse* use = use_of(engine_->plan(), options_.program, step);
  if (!use || !group_) return nullptr;
  if (is_world(rank_lists(*use, engine_->plan().mesh), group_->size())) return group_;
  const auto found = groups_.find(group_key(*use));
  return found == groups_.end() ? nullptr : found->second.get();
}

std::shared_ptr<RankContext::Bound> RankContext::prepare_bound() {
  auto bound = std::make_shared<Bound>();
  bound->symbols = *symbols_;
  std::vector<bool> outside;
  for (int output : direct_) outside.push_back(output >= 0);
  bound->memory = plan_memory(program(), *symbols_, outside);
  for (std::size_t s = 0; s < program().steps.size(); ++s) {
    const Step& step = program().steps[s];
    try {
      const OpCall call = engine_->call(options_.program, s).bound(*symbols_);
      std::vector<const std::byte*> weights;
      for (int v : step.operands) {
        const int root = v < 0 ? -1 : bound->memory.root[static_cast<std::size_t>(v)];
        const int weight = root < 0 ? -1 : program().values[static_cast<std::size_t>(root)].weight;
        weights.push_back(weight < 0 ? nullptr : engine_->weight(static_cast<std::size_t>(weight)));
      }
      const PrepareArgs args{call, weights, engine_->packed(options_.program, s), options_.threads, step.communicates ? group_of(s) : nullptr, &device_};
      bound->launches.push_back({engine_->kernel(options_.program, s).prepare(args), static_cast<std::uint32_t>(step.operands.size()),
                                 static_cast<std::uint32_t>(step.results.size())});
      bound->workspace_bytes = std::max(bound->workspace_bytes, bound->launches.back().kernel->workspace_bytes());
    } catch (const Error& error) {
      throw error.at_node(label(step));
    }
  }
  return bound;
}

const std::shared_ptr<RankContext::Bound>& RankContext::bound() {
  require_bound();
  for (auto it = bounds_.begin(); it != bounds_.end(); ++it)
    if ((*it)->symbols == *symbols_) {
      bounds_.splice(bounds_.begin(), bounds_, it);
      return bounds_.front();
    }
  join_group();
  bounds_.push_front(prepare_bound());
  if (bounds_.size() > options_.kept_shapes) bounds_.pop_back();
  return bounds_.front();
}

void RankContext::prepare() {
  const Turn turn(busy_);
  const std::shared_ptr<Bound> ready = bound();
  if (device_.is_host()) return;
  // Once for nothing: what libraries and drivers do the first time cannot be recorded.
  stage(*ready);
  device_.clear(ready->staging.data(), ready->staging.bytes(), *stream_);
  const std::span<std::byte* const> staged(ready->staged);
  const std::vector<const std::byte*> inputs(staged.begin(), staged.begin() + static_cast<std::ptrdiff_t>(program().inputs.size()));
  enqueue_bound(ready, inputs, staged.subspan(inputs.size()));
  stream_->wait(Deadline::after(options_.step_deadline));
}

void RankContext::place(Bound& bound, std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs) {
  const std::size_t needed = bound.memory.arena_bytes + bound.workspace_bytes + kAlignment;
  if (needed > arena_->bytes()) {
    *arena_ = {};
    arena_ = std::make_shared<DeviceMemory>(engine_->device(), needed);
  }
  for (std::size_t v = 0; v < address_.size(); ++v) {
    const auto root = static_cast<std::size_t>(bound.memory.root[v]);
    const PlanValue& value = program().values[root];
    if (root != v)
      continue;
    else if (value.weight >= 0)
      address_[v] = const_cast<std::byte*>(engine_->weight(static_cast<std::size_t>(value.weight)));
    else if (direct_[v] >= 0)
      address_[v] = outputs[static_cast<std::size_t>(direct_[v])];
    else
      address_[v] = arena_->data() + bound.memory.offset[v];
  }
  for (std::size_t i = 0; i < inputs.size(); ++i) address_[static_cast<std::size_t>(program().inputs[i].value)] = const_cast<std::byte*>(inputs[i]);
  for (std::size_t v = 0; v < address_.size(); ++v) address_[v] = address_[static_cast<std::size_t>(bound.memory.root[v])];
  for (std::size_t i = 0; i < arguments_.size(); ++i) pointers_[i] = arguments_[i] < 0 ? nullptr : address_[static_cast<std::size_t>(arguments_[i])];
}

// Peers need not wait for a rank that goes no further.
void RankContext::interrupted(std::size_t step) {
  if (group_) group_->abort("its caller interrupted it");
  throw Error(ErrorCode::interrupted, "interrupted", label(program().steps[step]));
}

// Between two kernels everything is cold, so a step reads what lies one after the other: its launch and its pointers.
void RankContext::run_steps(Bound& bound) {
  std::byte* workspace = arena_->data() + bound.memory.arena_bytes;
  std::byte* const* next = pointers_.data();
  for (std::size_t s = 0; s < bound.launches.size(); ++s) {
    const Bound::Launch& launch = bound.launches[s];
    const std::span<const std::byte* const> operands(next, launch.operands);
    const std::span<std::byte* const> results(next + launch.operands, launch.results);
    next += launch.operands + launch.results;
    if (StopScope::wanted()) interrupted(s);
    const std::int64_t begin = hook_ ? monotonic_ns() : 0;
    try {
      launch.kernel->run({operands, results, workspace, *stream_, Deadline::after(options_.step_deadline)});
    } catch (const Error& error) {
      const Error named = error.at_node(label(program().steps[s]));
      if (own_group_) own_group_->abort(named.what());  // so that no peer waits for this rank
      throw named;
    }
    if (hook_) hook_(s, begin, monotonic_ns());
    if (group_) group_->mark(static_cast<std::int64_t>(s));
  }
}

void RankContext::copy_outputs(const Bound& bound, std::span<std::byte* const> outputs) {
  copied_outputs_ = 0;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const auto v = static_cast<std::size_t>(program().outputs[i].value);
    const int direct = direct_[static_cast<std::size_t>(bound.memory.root[v])];
    if (direct >= 0 || bound.memory.size[v] == 0) continue;
    device_.copy(outputs[i], address_[v], bound.memory.size[v], *stream_);
    ++copied_outputs_;
  }
}

void RankContext::check_counts(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs) const {
  if (inputs.size() != program().inputs.size() || outputs.size() != program().outputs.size())
    fail(ErrorCode::invalid_argument, "{} inputs and {} outputs given, the program has {} and {}", inputs.size(), outputs.size(),
         program().inputs.size(), program().outputs.size());
}

void RankContext::run(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs) {
  const Turn turn(busy_);
  check_counts(inputs, outputs);
  const std::shared_ptr<Bound>& ready = bound();
  if (device_.is_host()) {
    place(*ready, inputs, outputs);
    run_steps(*ready);
    copy_outputs(*ready, outputs);
  } else {
    run_staged(std::shared_ptr<Bound>(ready), inputs, outputs);
  }
}

void RankContext::enqueue(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs, void* stream) {
  const Turn turn(busy_);
  check_counts(inputs, outputs);
  const std::shared_ptr<Bound> ready = bound();
  stream_->redirect(stream);
  try {
    enqueue_bound(ready, inputs, outputs);
  } catch (...) {
    stream_->redirect(nullptr);
    throw;
  }
  stream_->redirect(nullptr);
}

void RankContext::synchronize() {
  const Turn turn(busy_);
  stream_->wait(Deadline::after(options_.step_deadline));
}

// Memory of the device for inputs and outputs that lie on the host.
void RankContext::stage(Bound& bound) {
  std::vector<std::size_t> sizes;
  for (const auto* bindings : {&program().inputs, &program().outputs})
    for (const Binding& binding : *bindings) sizes.push_back(aligned_size(bound.memory.size[static_cast<std::size_t>(binding.value)]));
  if (bound.staged.size() == sizes.size()) return;
  bound.staging = DeviceMemory(engine_->device(), std::accumulate(sizes.begin(), sizes.end(), std::size_t{0}));
  std::byte* next = bound.staging.data();
  for (const std::size_t size : sizes) {
    bound.staged.push_back(next);
    next += size;
  }
}

// Inputs to the device, the steps there, outputs back.
void RankContext::run_staged(const std::shared_ptr<Bound>& bound, std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs) {
  const auto size = [&](const Binding& binding) { return bound->memory.size[static_cast<std::size_t>(binding.value)]; };
  stage(*bound);
  const std::span<std::byte* const> to(bound->staged), from = to.subspan(inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) device_.copy(to[i], inputs[i], size(program().inputs[i]), *stream_);
  enqueue_bound(bound, std::vector<const std::byte*>(to.begin(), to.begin() + static_cast<std::ptrdiff_t>(inputs.size())), from);
  for (std::size_t i = 0; i < outputs.size(); ++i) device_.copy(outputs[i], from[i], size(program().outputs[i]), *stream_);
  stream_->wait(Deadline::after(options_.step_deadline));
}

// What a call with the same addresses needs is recorded the second time; the first one does what libraries do once.
void RankContext::enqueue_bound(const std::shared_ptr<Bound>& bound, std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs) {
  place(*bound, inputs, outputs);
  const auto work = [&] {
    run_steps(*bound);
    copy_outputs(*bound, outputs);
  };
  if (device_.is_host()) return work();
  struct Needed {
    std::shared_ptr<const RankEngine> engine;
    std::shared_ptr<void> bound, arena, stream;
  };
  if (device_.is_recorded(*stream_, std::make_shared<Needed>(engine_, bound, arena_, stream_))) return work();
  done_->wait(*stream_);  // the arena is one
  if (hook_) {
    work();
    return done_->record(*stream_);
  }
  std::vector<const std::byte*> addresses(inputs.begin(), inputs.end());
  addresses.insert(addresses.end(), outputs.begin(), outputs.end());
  addresses.push_back(arena_->data());
  auto& recorded = bound->recorded;
  const auto known = std::ranges::find(recorded, addresses, &Bound::Recorded::addresses);
  if (known == recorded.end()) {
    recorded.push_front({std::move(addresses), nullptr});
    if (recorded.size() > kKeptRecordings) recorded.pop_back();
    work();
  } else {
    recorded.splice(recorded.begin(), recorded, known);
    if (!known->recording) known->recording = device_.record(*stream_, work);
    known->recording->launch(*stream_);
  }
  done_->record(*stream_);
}

}  // namespace tandem
