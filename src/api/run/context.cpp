#include "tandem/context.h"

#include <algorithm>
#include <map>
#include <thread>

#include "api/run/engine_data.h"
#include "api/run/step_time.h"
#include "api/run/through_host.h"
#include "comm/group.h"
#include "core/seconds.h"
#include "core/stop.h"
#include "device/upload.h"
#include "plan/measured.h"
#include "runtime/context.h"

namespace tandem {
namespace {

RankContextOptions checked(const Engine& engine, const ContextOptions& options) {
  if (options.rank < 0 || options.rank >= engine.ranks())
    fail(ErrorCode::invalid_argument, "there is no rank {} of {}", options.rank, engine.ranks());
  if (options.step_deadline_s < 1)
    fail(ErrorCode::invalid_argument, "the step deadline is {} s, the shortest is 1 s", options.step_deadline_s);
  if (options.threads < 0) fail(ErrorCode::invalid_argument, "a rank cannot have {} threads", options.threads);
  engine.data().require_weights();
  engine.data().check_budget(options.weight_budget_bytes);
  RankContextOptions out;
  out.threads = options.threads > 0 ? options.threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / engine.ranks());
  out.step_deadline = nanoseconds("step", options.step_deadline_s);
  out.rendezvous_deadline = nanoseconds("rendezvous", options.rendezvous_deadline_s);
  out.dependent_launch = options.dependent_launch;
  out.own_group = true;
  out.profile = options.profile;
  out.allocator = options.allocator;
  out.same_plan = engine.data().plans.size() == 1;
  return out;
}

LoadProgress loading(const ProgressCallback& told) {
  if (!told) return {};
  return [&told](double done) { told("loading weights", done); };
}

// The extent of the whole dimension of which every rank has `local`.
std::int64_t whole_extent(const Binding& input, int dim, std::int64_t local, const Mesh& mesh) {
  if (!input.sharding.is_split(dim)) return local;
  const DimSharding& factors = input.sharding.dim(dim);
  if (factors.size() == 1) return local * split_count(factors[0], mesh);
  if (input.type.dims[static_cast<std::size_t>(dim)].is_constant()) return input.type.dims[static_cast<std::size_t>(dim)].constant();
  fail(ErrorCode::invalid_argument, "dimension {} of input '{}' is split in parts of parts; set the shape of the whole input", dim,
       input.name);
}

bool has(const std::vector<bool>& measured) { return std::ranges::find(measured, true) != measured.end(); }

}  // namespace

struct Context::Data {
  Engine engine;
  ContextOptions options;
  std::shared_ptr<Group> group;  // outlives the context below
  RankContext context;
  std::vector<std::string> notices;
  std::string through_host;    // as the notices say it
  bool is_registered = false;  // and this
  std::map<std::size_t, std::shared_ptr<OutputAllocator>> allocators;

  Data(const Engine& of, const ContextOptions& given, const RankContextOptions& rank_options)
      : engine(of),
        options(given),
        context(of.data().rank_engine(given.rank, loading(given.progress), given.weight_budget_bytes), rank_options) {}
};

Context::Context(const Engine& engine, const ContextOptions& options)
    : data_(std::make_unique<Data>(engine, options, checked(engine, options))) {
  data_->options.progress = {};
}
Context::~Context() = default;
Context::Context(Context&&) noexcept = default;

int Context::rank() const { return data_->options.rank; }

int Context::gpu() const { return gpu_number(*data_->context.device()); }

void Context::set_communicator(std::shared_ptr<Group> group) {
  const EngineData& engine = data_->engine.data();
  const Plan& plan = *engine.plans.at(engine.plans.size() == 1 ? 0 : static_cast<std::size_t>(rank()));
  std::vector<std::string> notices;
  if (group && plan.collectives.empty())
    notices.push_back(fmt::format(
        "the program of this rank has no collectives: it does not communicate with the group of {} that was bound", group->size()));
  const bool alone = plan.world_size() == 1;
  data_->context.set_communicator(alone ? nullptr : group.get());
  data_->group = std::move(group);  // the one before is not in use any more
  data_->notices = std::move(notices);
  data_->through_host.clear();
  data_->is_registered = false;
}

const std::vector<std::string>& Context::notices() const {
  std::string& known = data_->through_host;
  if (const std::string why = data_->context.through_host(); why != known && !why.empty())
    data_->notices.push_back(through_host_notice(why));
  known = data_->context.through_host();
  const bool is_registered = data_->context.is_registered();
  if (is_registered && !data_->is_registered) data_->notices.push_back("activations are registered with NCCL");
  data_->is_registered = is_registered;
  return data_->notices;
}

void Context::set_profile(int profile) { data_->context.set_profile(profile); }

int Context::profile() const { return static_cast<int>(data_->context.profile()); }

void Context::set_input_shape(std::size_t input, Shape shape) {
  data_->context.set_input_shape(data_->context.program().inputs.at(input).name, std::move(shape));
}

void Context::set_local_input_shape(std::size_t input, const Shape& shape) {
  const Binding& binding = data_->context.program().inputs.at(input);
  Shape whole = shape;
  for (std::size_t d = 0; d < whole.size() && static_cast<int>(d) < binding.type.rank(); ++d)
    whole[d] = whole_extent(binding, static_cast<int>(d), shape[d], data_->engine.data().plan().mesh);
  set_input_shape(input, std::move(whole));
}

Shape Context::input_shape(std::size_t input) { return data_->context.input_shape(input); }
Shape Context::output_shape(std::size_t output) { return data_->context.output_shape(output); }

std::vector<bool> Context::measured_dims(std::size_t output) const {
  const Program& program = data_->context.program();
  std::vector<bool> measured;
  for (const Dim& dim : program.values[static_cast<std::size_t>(program.outputs.at(output).value)].type.dims)
    measured.push_back(is_measured(data_->context.measures(), {dim}));
  return measured;
}

Shape Context::last_output_shape(std::size_t output) { return data_->context.last_output_shape(output); }

void Context::prepare() {
  const StopScope scope(data_->options.stop);
  data_->context.prepare();
}

void Context::set_output_allocator(std::size_t output, std::shared_ptr<OutputAllocator> allocator) {
  const std::size_t count = data_->context.program().outputs.size();
  if (output >= count) fail(ErrorCode::invalid_argument, "there is no output {} of {}", output, count);
  if (allocator) data_->allocators[output] = std::move(allocator);
  else data_->allocators.erase(output);
}

void Context::set_inputs_consumed_event(void* event) { data_->context.set_inputs_consumed_event(event); }

int Context::auxiliary_streams() const { return data_->context.auxiliary_streams(); }

void Context::set_auxiliary_streams(std::span<void* const> streams) { data_->context.set_auxiliary_streams(streams); }

// `outputs` with what their allocators give.
std::vector<void*> Context::allocated(std::span<void* const> outputs, void* stream) {
  std::vector<void*> given(outputs.begin(), outputs.end());
  for (const auto& [output, allocator] : data_->allocators) {
    if (output >= given.size()) continue;  // run() says what is wrong
    const Shape shape = output_shape(output);
    const Binding& binding = data_->context.program().outputs[output];
    const std::size_t needed = bytes(binding.type.dtype, element_count(shape));
    given[output] = allocator->reallocate(output, given[output], needed, stream);
    if (!given[output] && needed > 0)
      fail(ErrorCode::out_of_memory, "{} bytes are needed for output '{}', its allocator has none", needed, binding.name);
    if (!has(measured_dims(output))) allocator->notify_shape(output, shape);
  }
  return given;
}

// Of outputs whose shapes were not known before the run.
void Context::notify_measured() {
  for (const auto& [output, allocator] : data_->allocators)
    if (has(measured_dims(output))) allocator->notify_shape(output, last_output_shape(output));
}

void Context::run(std::span<const void* const> inputs, std::span<void* const> outputs) {
  const StopScope scope(data_->options.stop);
  if (!data_->allocators.empty()) {
    const std::vector<void*> given = allocated(outputs, nullptr);
    data_->context.run({reinterpret_cast<const std::byte* const*>(inputs.data()), inputs.size()},
                       {reinterpret_cast<std::byte* const*>(given.data()), given.size()});
    return notify_measured();
  }
  data_->context.run({reinterpret_cast<const std::byte* const*>(inputs.data()), inputs.size()},
                     {reinterpret_cast<std::byte* const*>(outputs.data()), outputs.size()});
}

void Context::enqueue(std::span<const void* const> inputs, std::span<void* const> outputs, void* stream) {
  const StopScope scope(data_->options.stop);
  if (!data_->allocators.empty()) {
    const std::vector<void*> given = allocated(outputs, stream);
    data_->context.enqueue({reinterpret_cast<const std::byte* const*>(inputs.data()), inputs.size()},
                           {reinterpret_cast<std::byte* const*>(given.data()), given.size()}, stream);
    return notify_measured();
  }
  data_->context.enqueue({reinterpret_cast<const std::byte* const*>(inputs.data()), inputs.size()},
                         {reinterpret_cast<std::byte* const*>(outputs.data()), outputs.size()}, stream);
}

void Context::synchronize() {
  const StopScope scope(data_->options.stop);
  data_->context.synchronize();
}

void Context::set_profiler(StepProfiler profiler) {
  RankContext& context = data_->context;
  if (!profiler) return context.set_step_hook({});
  context.set_step_hook([&context, profiler = std::move(profiler)](std::span<const RankContext::StepClock> clocks) {
    for (const RankContext::StepClock& clock : clocks)
      profiler(step_time(context.program().steps[clock.step], clock, clocks.front().begin_ns));
  });
}

std::size_t Context::device_memory_bytes() {
  const StopScope scope(data_->options.stop);
  return data_->context.memory_bytes();
}

std::size_t Context::max_device_memory_bytes(std::size_t profile) {
  const StopScope scope(data_->options.stop);
  return data_->context.largest_memory_bytes(profile);
}

void Context::set_device_memory(void* memory, std::size_t bytes) { data_->context.set_memory(static_cast<std::byte*>(memory), bytes); }

int Context::last_copies() const { return data_->context.copied_outputs(); }

}  // namespace tandem
