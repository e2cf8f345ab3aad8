#include "team/team.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/check.h"
#include "core/stored_bytes.h"
#include "plan/measured.h"
#include "team/blocks.h"
#include "team/channel.h"
#include "team/engine_image.h"

namespace tandem {
namespace {

std::size_t padded(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

std::size_t local_bytes(const Program& program, const Binding& binding, const SymbolValues& symbols) {
  const Type& type = program.values[static_cast<std::size_t>(binding.value)].type;
  return stored_bytes(type.dtype, element_count(largest_dims(measured_of(program), type.dims, symbols)));
}

int open_file(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail(ErrorCode::io, "cannot open {}: {}", path.string(), std::strerror(errno));
  return fd;
}

}  // namespace

Team::Team(std::vector<std::shared_ptr<const Plan>> plans, const WeightSource& weights, TeamSettings settings)
    : plans_(std::move(plans)), settings_(std::move(settings)) {
  const int world = plan().world_size();
  if (plans_.size() > 1 && static_cast<int>(plans_.size()) != world)
    fail(ErrorCode::mismatch, "{} plans for a mesh of {} ranks", plans_.size(), world);
  region_ = ShmRegion::create(world);  // for one rank too: its progress is watched
  start(weights);
  try {
    wait_for_all(settings_.load_deadline, false);
    if (settings_.progress) settings_.progress(1);
  } catch (const Error& error) {
    const bool interrupted = error.code() == ErrorCode::interrupted;
    close_links(interrupted ? std::min(settings_.stop_deadline, settings_.drain_deadline) : settings_.drain_deadline);
    throw;
  } catch (...) {  // of settings.progress
    region_->abort(ErrorCode::aborted, -1, "the caller gave up loading");
    close_links(std::min(settings_.stop_deadline, settings_.drain_deadline));
    throw;
  }
  settings_.progress = {};
}

void Team::close_links(std::chrono::nanoseconds patience) {
  const Deadline deadline = Deadline::after(spawner_ ? std::chrono::nanoseconds(0) : patience);
  for (auto& link : links_) link->close(deadline);
}

void Team::start(const WeightSource& weights) {
  const bool processes = !settings_.rank_command.empty(), whole_file = !settings_.engine_file.empty() && plans_.size() == 1;
  if (processes) spawner_ = std::make_unique<Spawner>(settings_.rank_command);
  std::optional<Descriptor> file;
  if (processes && whole_file) file.emplace(open_file(settings_.engine_file));
  std::optional<SharedMemory> image, plan_text;
  if (file && settings_.own_plan) plan_text.emplace(make_plan_image(plan()));
  for (int rank = 0; rank < plan().world_size(); ++rank) {
    RankStart start{
        .rank = rank, .plan = plans_[plans_.size() == 1 ? 0 : static_cast<std::size_t>(rank)], .weights = weights, .region = region_};
    start.weight_budget = settings_.weight_budget;
    start.options.threads = settings_.threads;
    start.options.dependent_launch = settings_.dependent_launch;
    start.options.step_deadline = settings_.step_deadline;
    start.options.rendezvous_deadline = settings_.rendezvous_deadline;
    start.options.same_plan = plans_.size() == 1;
    if (!processes) {
      links_.push_back(start_thread_rank(std::move(start)));
      continue;
    }
    if (!file && (rank == 0 || plans_.size() > 1)) {
      image.reset();
      image.emplace(make_engine_image(*start.plan, weights, plans_.size() == 1 ? -1 : rank));
    }
    start.engine_file = file ? file->get() : image->fd();
    if (plan_text) start.plan_text = plan_text->fd();
    links_.push_back(start_process_rank(start, *spawner_));
  }
}

Team::~Team() {
  const Deadline deadline = Deadline::after(settings_.drain_deadline);
  for (auto& link : links_) link->close(deadline);
}

// After an error of a rank: a new world for the same ranks, for one that has failed stays so.
void Team::regroup() {
  if (!regroup_) return;
  running_ = false;
  region_ = ShmRegion::create(size());
  for (auto& link : links_) link->rejoin(region_);
  wait_for_all(settings_.rendezvous_deadline, false);
  regroup_ = false;
}

SymbolValues Team::check_inputs(const TeamTensors& inputs, int rank) const {
  std::vector<Shape> shapes;
  for (const Binding& input : program(rank).inputs) {
    const auto found = inputs.find(input.name);
    if (found == inputs.end()) fail(ErrorCode::invalid_argument, "input '{}' ({}) is missing", input.name, input.type.to_string());
    const auto& given = found->second;
    if (given.size() != 1 && static_cast<int>(given.size()) != size())
      fail(ErrorCode::invalid_argument, "input '{}' is given {} times, expected once or once per rank", input.name, given.size());
    if (given.size() != 1 && input.sharding.varying.empty())
      fail(ErrorCode::invalid_argument, "input '{}' is the same for all ranks, but is given per rank", input.name);
    const Tensor& tensor = given[given.size() == 1 ? 0 : static_cast<std::size_t>(rank)];
    if (!tensor.data() && tensor.count() > 0)
      throw Error(ErrorCode::invalid_argument, fmt::format("input '{}' is missing", input.name), {}, rank);
    if (tensor.dtype() != input.type.dtype)
      fail(ErrorCode::invalid_argument, "input '{}' has type {}, expected {}", input.name, to_string(tensor.dtype()),
           to_string(input.type.dtype));
    shapes.push_back(tensor.shape());
  }
  const auto takes = [&](const std::shared_ptr<const Plan>& of, const std::string& name) {
    return std::ranges::any_of(of->programs.at(0).inputs, [&](const Binding& b) { return b.name == name; });
  };
  for (const auto& [name, tensors] : inputs)
    if (std::ranges::none_of(plans_, [&](const auto& of) { return takes(of, name); }))
      fail(ErrorCode::invalid_argument, "there is no input '{}'", name);
  return bind_symbols(program(rank), shapes);
}

// One that fits on all ranks.
std::size_t Team::fitting_profile(const std::vector<SymbolValues>& symbols) const {
  if (plans_.size() == 1) return tandem::fitting_profile(plan(), symbols[0]);
  std::size_t profiles = plan().profiles();
  for (const auto& plan : plans_) profiles = std::min(profiles, plan->profiles());
  std::optional<std::pair<double, std::size_t>> nearest;
  for (std::size_t p = 0; p < profiles; ++p) {
    bool fits = true;
    for (std::size_t r = 0; fits && r < plans_.size(); ++r) fits = misfit(plans_[r]->programs[p], symbols[r]).empty();
    const std::pair here(distance(plan().programs[p], symbols[0]), p);
    if (fits && (!nearest || here < *nearest)) nearest = here;
  }
  if (nearest) return nearest->second;
  for (std::size_t r = 0; r < plans_.size(); ++r) tandem::fitting_profile(*plans_[r], symbols[r]);
  fail(ErrorCode::invalid_argument, "no optimization profile fits the input shapes of all ranks");
}

Team::OutputArrays Team::make_outputs(const std::vector<SymbolValues>& symbols, const OutputMemory& memory) const {
  OutputArrays arrays;
  const auto make = [&](const Binding& output, int rank, int of) {
    OutputArray made{output.type.dtype, largest_dims(measured_of(program(rank)), output.type.dims, symbols[static_cast<std::size_t>(rank)]),
                     nullptr};
    if (memory) {
      made.memory = memory(output.name, made.dtype, made.shape, of);
    } else {
      auto fresh = std::make_shared<Tensor>(made.dtype, made.shape);
      made.memory = std::shared_ptr<std::byte>(fresh, fresh->mutable_data());
    }
    return made;
  };
  for (int rank = 0; rank < size(); ++rank)
    for (const Binding& output : program(rank).outputs) {
      auto& list = arrays[output.name];
      const bool varying = !output.sharding.varying.empty();
      if (varying) list.resize(static_cast<std::size_t>(size()));
      if (varying) list[static_cast<std::size_t>(rank)] = make(output, rank, rank);
      else if (list.empty()) list.push_back(make(output, rank, -1));
    }
  return arrays;
}

namespace {

// The rank's block where the caller has it, if it lies there in one piece; else null. Where that is hangs on what is measured.
template <typename Byte>
Byte* direct_block(const Program& program, const Binding& binding, const Mesh& mesh, int rank, const SymbolValues& symbols, Byte* whole) {
  if (std::ranges::all_of(binding.sharding.dims, &DimSharding::empty)) return whole;
  if (is_measured(measured_of(program), binding.type.dims)) return nullptr;
  const auto place = BlockMap(binding.type, binding.sharding, mesh, rank, symbols).place_in_whole();
  return place && whole ? whole + bytes(binding.type.dtype, *place) : nullptr;
}

template <typename T>
const T& of_rank(const std::map<std::string, std::vector<T>>& all, const std::string& name, int rank) {
  const auto& list = all.at(name);
  return list[list.size() == 1 ? 0 : static_cast<std::size_t>(rank)];
}

bool writes(const Binding& output, const Mesh& mesh, int rank) {
  return !output.sharding.varying.empty() || owns_block(output.sharding, mesh, rank);
}

}  // namespace

RankRequest Team::place(int rank, const TeamTensors& inputs, const OutputArrays& outputs, const SymbolValues& symbols) {
  RankRequest request;
  request.symbols = symbols;
  RankLink& link = *links_[static_cast<std::size_t>(rank)];
  const Program& p = program(rank);
  const Mesh& mesh = plan(rank).mesh;
  std::size_t total = 0;
  for (const Binding& input : p.inputs) {
    const Tensor& tensor = of_rank(inputs, input.name, rank);
    request.inputs.push_back(link.direct() ? direct_block(p, input, mesh, rank, symbols, tensor.data()) : nullptr);
    if (request.inputs.back()) request.held.push_back(tensor);
    else total += padded(local_bytes(p, input, symbols));
  }
  for (const Binding& output : p.outputs) {
    const OutputArray& array = of_rank(outputs, output.name, rank);
    const bool direct = link.direct() && writes(output, mesh, rank);
    request.outputs.push_back(direct ? direct_block(p, output, mesh, rank, symbols, array.memory.get()) : nullptr);
    if (request.outputs.back()) request.held_outputs.push_back(array.memory);
    else total += padded(local_bytes(p, output, symbols));
  }
  std::byte* at = link.block(std::max<std::size_t>(total, kAlignment));
  for (std::size_t i = 0; i < p.inputs.size(); ++i) {
    if (request.inputs[i]) continue;
    const Tensor& tensor = of_rank(inputs, p.inputs[i].name, rank);
    if (tensor.size_bytes() > 0) {
      BlockMap(p.inputs[i].type, p.inputs[i].sharding, mesh, rank, symbols).scatter(tensor.data(), at);
      ++copies_;
    }
    request.inputs[i] = at;
    at += padded(local_bytes(p, p.inputs[i], symbols));
  }
  for (std::size_t i = 0; i < p.outputs.size(); ++i) {
    if (request.outputs[i]) continue;
    request.outputs[i] = at;
    at += padded(local_bytes(p, p.outputs[i], symbols));
  }
  return request;
}

void Team::collect(int rank, const RankRequest& request, const SymbolValues& symbols, const OutputArrays& outputs) {
  const Program& p = program(rank);
  const Mesh& mesh = plan(rank).mesh;
  for (std::size_t i = 0; i < p.outputs.size(); ++i) {
    const Binding& output = p.outputs[i];
    const OutputArray& array = of_rank(outputs, output.name, rank);
    if (element_count(array.shape) == 0 || !writes(output, mesh, rank)) continue;
    if (links_[static_cast<std::size_t>(rank)]->direct() &&
        direct_block(p, output, mesh, rank, symbols, array.memory.get()) == request.outputs[i])
      continue;
    BlockMap(output.type, output.sharding, mesh, rank, symbols).gather(request.outputs[i], array.memory.get());
    ++copies_;
  }
}

// What the ranks measured gives outputs their shapes.
void Team::settle_outputs(const std::vector<RankReply>& replies, std::vector<SymbolValues>& symbols, OutputArrays& outputs) const {
  for (int rank = 0; rank < size(); ++rank) {
    const auto r = static_cast<std::size_t>(rank);
    if (plans_.size() == 1 && replies[r].measured != replies[0].measured)
      throw Error(ErrorCode::mismatch, "the rank measured other extents than rank 0, from values that are to be the same", {}, rank);
    if (replies[r].measured.empty()) continue;
    for (const auto& [symbol, extent] : replies[r].measured) symbols[r][symbol] = extent;
    for (const Binding& output : program(rank).outputs) {
      auto& list = outputs.at(output.name);
      if (is_measured(measured_of(program(rank)), output.type.dims))
        list[list.size() == 1 ? 0 : r].shape = bound_dims(output.type.dims, symbols[r]);
    }
  }
}

// Holds the team for one call.
class Team::Turn {
 public:
  explicit Turn(std::atomic<bool>& busy) : busy_(busy) {
    if (busy_.exchange(true)) fail(ErrorCode::invalid_argument, "a model serves one thread at a time, and another call is still running");
  }
  ~Turn() { busy_ = false; }

 private:
  std::atomic<bool>& busy_;
};

TeamTensors Team::run(const TeamTensors& inputs, bool trace, TeamTimes* times, const OutputMemory& memory) {
  const Turn turn(busy_);
  if (broken_) throw *broken_;
  std::vector<SymbolValues> symbols;
  for (int rank = 0; rank < size(); ++rank) symbols.push_back(plans_.size() == 1 && rank > 0 ? symbols[0] : check_inputs(inputs, rank));
  const std::size_t profile = fitting_profile(symbols);
  OutputArrays arrays = make_outputs(symbols, memory);
  regroup();
  copies_ = 0;
  std::vector<RankRequest> requests;
  for (int rank = 0; rank < size(); ++rank) {
    requests.push_back(place(rank, inputs, arrays, symbols[static_cast<std::size_t>(rank)]));
    requests.back().profile = static_cast<int>(profile);
    requests.back().trace = trace;
  }
  running_ = true;
  for (int rank = 0; rank < size(); ++rank) region_->page(rank).step = -1;  // so that what is told is of this run
  for (std::size_t r = 0; r < links_.size(); ++r) links_[r]->send(requests[r]);
  std::vector<RankReply> replies = wait_for_all(settings_.step_deadline, true);
  settle_outputs(replies, symbols, arrays);
  for (int rank = 0; rank < size(); ++rank)
    collect(rank, requests[static_cast<std::size_t>(rank)], symbols[static_cast<std::size_t>(rank)], arrays);
  if (times) {
    times->rank_ns.clear();
    times->trace.clear();
    times->copies = copies_;
    times->profile = profile;
    times->through_host = replies[0].through_host;
    for (RankReply& reply : replies) {
      times->rank_ns.push_back(reply.nanoseconds);
      times->trace.push_back(std::move(reply.trace));
      times->copies += reply.copies;
    }
  }
  TeamTensors outputs;
  for (const auto& [name, list] : arrays)
    for (const OutputArray& array : list) outputs[name].emplace_back(array.dtype, array.shape, array.memory.get(), array.memory);
  return outputs;
}

}  // namespace tandem
