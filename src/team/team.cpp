#include "team/team.h"

#include <algorithm>

#include "core/check.h"
#include "team/blocks.h"

namespace tandem {
namespace {

std::size_t padded(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

std::size_t local_bytes(const Program& program, const Binding& binding, const SymbolValues& symbols) {
  const Type& type = program.values[static_cast<std::size_t>(binding.value)].type;
  return bytes(type.dtype, element_count(bound_dims(type.dims, symbols)));
}

// An error that only repeats what happened elsewhere.
bool is_echo(const Error& error) { return error.code() == ErrorCode::rank_failed || error.code() == ErrorCode::aborted; }

}  // namespace

Team::Team(std::vector<std::shared_ptr<const Plan>> plans, const WeightSource& weights, TeamSettings settings)
    : plans_(std::move(plans)), settings_(settings) {
  const int world = plan().world_size();
  if (plans_.size() > 1 && static_cast<int>(plans_.size()) != world)
    fail(ErrorCode::mismatch, "{} plans for a mesh of {} ranks", plans_.size(), world);
  region_ = ShmRegion::create(world);  // for one rank too: its progress is watched
  for (int rank = 0; rank < world; ++rank) {
    RankStart start{rank, plans_[plans_.size() == 1 ? 0 : static_cast<std::size_t>(rank)], weights, {}, region_};
    start.options.threads = settings_.threads;
    start.options.step_deadline = settings_.step_deadline;
    start.options.same_plan = plans_.size() == 1;
    links_.push_back(settings_.processes ? start_process_rank(std::move(start)) : start_thread_rank(std::move(start)));
  }
  wait_for_all(settings_.load_deadline, false);
}

Team::~Team() {
  const Deadline deadline = Deadline::after(settings_.drain_deadline);
  for (auto& link : links_) link->close(broken_ && settings_.processes ? Deadline::after(std::chrono::seconds(0)) : deadline);
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
    if (!tensor.data() && tensor.count() > 0) throw Error(ErrorCode::invalid_argument, fmt::format("input '{}' is missing", input.name), {}, rank);
    if (tensor.dtype() != input.type.dtype)
      fail(ErrorCode::invalid_argument, "input '{}' has type {}, expected {}", input.name, to_string(tensor.dtype()), to_string(input.type.dtype));
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

RankRequest Team::place(int rank, const TeamTensors& inputs, const SymbolValues& symbols) {
  RankRequest request;
  request.symbols = symbols;
  RankLink& link = *links_[static_cast<std::size_t>(rank)];
  const Program& p = program(rank);
  const auto direct = [&](const Binding& b) { return link.direct() && std::ranges::none_of(b.sharding.dims, [](const DimSharding& d) { return !d.empty(); }); };
  std::size_t total = 0;
  for (const Binding& input : p.inputs) total += direct(input) ? 0 : padded(local_bytes(p, input, symbols));
  for (const Binding& output : p.outputs) total += padded(local_bytes(p, output, symbols));
  std::byte* at = link.block(std::max<std::size_t>(total, kAlignment));
  for (const Binding& input : p.inputs) {
    const auto& given = inputs.at(input.name);
    const Tensor& tensor = given[given.size() == 1 ? 0 : static_cast<std::size_t>(rank)];
    if (direct(input)) {
      request.inputs.push_back(tensor.data());
      continue;
    }
    if (tensor.size_bytes() > 0) BlockMap(input.type, input.sharding, plan(rank).mesh, rank, symbols).scatter(tensor.data(), at);
    request.inputs.push_back(at);
    at += padded(local_bytes(p, input, symbols));
  }
  for (const Binding& output : p.outputs) {
    request.outputs.push_back(at);
    at += padded(local_bytes(p, output, symbols));
  }
  return request;
}

void Team::fail_all(const std::vector<std::optional<RankReply>>& replies, const std::vector<int>& silent, std::chrono::nanoseconds limit) {
  const Error* found = nullptr;
  for (const auto& reply : replies)
    if (reply && reply->error && (!found || (is_echo(*found) && !is_echo(*reply->error)))) found = &*reply->error;
  if (found) {
    broken_ = *found;
  } else {
    const int rank = silent.at(0);
    const std::int64_t step = region_ ? region_->progress(rank).step : -1;
    broken_ = Error(ErrorCode::timeout, fmt::format("no progress for {:.1f} s; its last completed step is {}", std::chrono::duration<double>(limit).count(), step),
                    {}, rank);
  }
  if (region_) region_->abort(ErrorCode::aborted, broken_->rank(), broken_->what());
  throw *broken_;
}

std::vector<RankReply> Team::wait_for_all(std::chrono::nanoseconds limit, bool counted_from_progress) {
  const Deadline start = Deadline::after(limit);
  std::optional<Deadline> grace;  // once one rank has failed: what the others get to say why
  std::vector<std::optional<RankReply>> replies(links_.size());
  for (;;) {
    std::vector<int> silent;
    bool failed = false;
    for (std::size_t r = 0; r < links_.size(); ++r) {
      if (!replies[r]) replies[r] = links_[r]->receive(silent.empty() ? std::chrono::milliseconds(20) : std::chrono::milliseconds(0));
      if (!replies[r]) silent.push_back(static_cast<int>(r));
      if (replies[r] && replies[r]->error) {
        failed = true;
        if (region_) region_->abort(ErrorCode::rank_failed, static_cast<int>(r), replies[r]->error->message());
      }
    }
    if (failed && !grace) grace = Deadline::after(std::chrono::seconds(1));
    if (failed && (silent.empty() || grace->expired())) fail_all(replies, silent, limit);
    if (silent.empty()) break;
    const auto late = [&](int rank) {
      return (counted_from_progress && region_ ? start.counted_from(region_->progress(rank).marked_at_ns) : start).expired();
    };
    // A rank that sleeps for another is not the laggard.
    std::vector<int> laggards;
    for (int rank : silent)
      if (late(rank) && (!region_ || region_->progress(rank).waiting_for < 0)) laggards.push_back(rank);
    const bool all_late = std::ranges::all_of(silent, late);
    if (!laggards.empty() || (all_late && !silent.empty())) fail_all(replies, laggards.empty() ? silent : laggards, limit);
  }
  std::vector<RankReply> out;
  for (auto& reply : replies) out.push_back(std::move(*reply));
  return out;
}

void Team::collect(int rank, const RankRequest& request, const SymbolValues& symbols, TeamTensors& outputs) const {
  const Program& p = program(rank);
  const Mesh& mesh = plan(rank).mesh;
  for (std::size_t i = 0; i < p.outputs.size(); ++i) {
    const Binding& output = p.outputs[i];
    std::vector<Tensor>& whole = outputs[output.name];
    const bool varying = !output.sharding.varying.empty();
    if (varying) whole.resize(static_cast<std::size_t>(size()));
    if (varying || whole.empty()) {
      Tensor fresh(output.type.dtype, bound_dims(output.type.dims, symbols));
      if (varying) whole[static_cast<std::size_t>(rank)] = fresh;
      else whole.push_back(fresh);
    }
    Tensor& target = varying ? whole[static_cast<std::size_t>(rank)] : whole[0];
    if (target.size_bytes() > 0 && (varying || owns_block(output.sharding, mesh, rank)))
      BlockMap(output.type, output.sharding, mesh, rank, symbols).gather(request.outputs[i], target.mutable_data());
  }
}

TeamTensors Team::run(const TeamTensors& inputs, bool trace, TeamTimes* times) {
  if (broken_) throw *broken_;
  std::vector<SymbolValues> symbols;
  for (int rank = 0; rank < size(); ++rank) symbols.push_back(plans_.size() == 1 && rank > 0 ? symbols[0] : check_inputs(inputs, rank));
  std::vector<RankRequest> requests;
  for (int rank = 0; rank < size(); ++rank) {
    requests.push_back(place(rank, inputs, symbols[static_cast<std::size_t>(rank)]));
    requests.back().trace = trace;
  }
  for (std::size_t r = 0; r < links_.size(); ++r) links_[r]->send(requests[r]);
  std::vector<RankReply> replies = wait_for_all(settings_.step_deadline, true);
  TeamTensors outputs;
  for (int rank = 0; rank < size(); ++rank) collect(rank, requests[static_cast<std::size_t>(rank)], symbols[static_cast<std::size_t>(rank)], outputs);
  if (times) {
    times->rank_ns.clear();
    times->trace.clear();
    for (RankReply& reply : replies) {
      times->rank_ns.push_back(reply.nanoseconds);
      times->trace.push_back(std::move(reply.trace));
    }
  }
  return outputs;
}

}  // namespace tandem
