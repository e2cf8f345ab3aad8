// The collective point of a RankContext: agreement of the ranks, and the groups of its collectives.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <sstream>

#include "comm/shm/shm_group.h"
#include "core/check.h"
#include "runtime/context_bound.h"

namespace tandem {
namespace {

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

bool is_world(const std::vector<std::vector<int>>& lists, int size) { return lists.size() == 1 && lists[0] == everyone(size); }

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

// Throws on all ranks of the group, which stays usable, unless all have the same lines.
void require_same_calls(Group& group, const std::vector<std::string>& mine, Deadline deadline) {
  const std::string text = fmt::format("{}", fmt::join(mine, "\n"));
  std::vector<std::vector<std::string>> lists;
  for (const auto& blob : group.exchange(std::as_bytes(std::span(text)), deadline)) {
    std::istringstream lines(std::string(reinterpret_cast<const char*>(blob.data()), blob.size()));
    lists.emplace_back();
    for (std::string line; std::getline(lines, line);) lists.back().push_back(line);
  }
  for (std::size_t r = 1; r < lists.size(); ++r) {
    if (lists[r] == lists[0]) continue;
    const auto [a, b] = std::ranges::mismatch(lists[0], lists[r]);
    const auto word = [](const auto& at, const std::vector<std::string>& list) { return at == list.end() ? std::string("nothing") : *at; };
    throw Error(ErrorCode::mismatch,
                fmt::format("ranks {} and {} disagree in collective {} of these shapes: {} and {}", group.members()[0], group.members()[r],
                            a - lists[0].begin(), word(a, lists[0]), word(b, lists[r])),
                {}, group.members()[r]);
  }
}

shm::ShmGroup* shared_memory_of(Group* group) {
  auto* gpu = dynamic_cast<GpuGroup*>(group);
  return dynamic_cast<shm::ShmGroup*>(gpu ? &gpu->control() : group);
}

}  // namespace

// The collective point: agreement first, then every group in the order in which the plan first uses it.
void RankContext::join_group() {
  if (joined_) return;
  const Plan& plan = engine_->plan();
  auto joined = std::make_shared<Joined>();
  Group* group = bound_group_;
  if (bound_group_ && options_.own_group) {
    joined->own = bound_group_->split({everyone(bound_group_->size())}, Deadline::after(options_.rendezvous_deadline));
    group = joined->own.get();
  }
  if (plan.world_size() > 1 && !group && !plan.collectives.empty())
    throw Error(ErrorCode::invalid_argument,
                fmt::format("the engine is for {} ranks and communicates, but no group is bound", plan.world_size()));
  if (group && group->size() > 1) {
    if (options_.same_plan) joined->calls = shm::CallLog(shared_memory_of(group));  // before they tell one another anything
    const std::uint64_t values[] = {options_.same_plan ? engine_->plan_digest() : 0, profile_};
    const std::string names[] = {"the plan", "the optimization profile"};
    require_agreement(*group, values, names, Deadline::after(options_.rendezvous_deadline));
    const bool communicates = !plan.collectives.empty() || !options_.same_plan;  // the same on all ranks
    if (!device_.is_host() && communicates && !dynamic_cast<GpuGroup*>(group)) {
      joined->gpu =
          make_gpu_group(*group, device_, {.deadline = Deadline::after(options_.rendezvous_deadline), .refuse_threads_on_one_gpu = true},
                         &joined->through_host);
      if (joined->gpu) group = joined->gpu.get();
    }
    make_parts(*joined, *group);
  }
  agreed_profile_ = profile_;
  group_ = group;
  joined_ = std::move(joined);
}

// Programs of two profiles may communicate in other ways, with the same shapes too. Ranks of a team are told by their leader.
void RankContext::agree_on_profile() {
  if (!joined_ || agreed_profile_ == profile_) return;
  if (options_.own_group && group_ && group_->size() > 1 && !engine_->plan().collectives.empty()) {
    const std::uint64_t values[] = {profile_};
    const std::string names[] = {"the optimization profile"};
    require_agreement(*group_, values, names, Deadline::after(options_.rendezvous_deadline));
  }
  agreed_profile_ = profile_;
}

void RankContext::make_parts(Joined& joined, Group& world) {
  const Plan& plan = engine_->plan();
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
  if (!options_.same_plan) merge_lists(world, lists, Deadline::after(options_.rendezvous_deadline));
  for (std::size_t k = 0; k < lists.size(); ++k) {
    std::unique_ptr<Group> made;
    if (!is_world(lists[k], world.size())) made = world.split(lists[k], Deadline::after(options_.rendezvous_deadline));
    if (k >= keys.size()) continue;
    // Plans that differ must at least communicate alike.
    Group* members = is_world(lists[k], world.size()) ? &world : made.get();
    if (!options_.same_plan && members) {
      const std::uint64_t list[] = {digest(uses[k])};
      const std::string name[] = {fmt::format("the collectives over {}", keys[k])};
      require_agreement(*members, list, name, Deadline::after(options_.rendezvous_deadline));
    }
    joined.parts[keys[k]] = std::move(made);
  }
}

// A GPU is not told what another one does in a collective, so ranks compare theirs before shapes run for the first time, and then make what
// they hold together. Steps behind a measured extent have no part in it: on GPUs none of these communicates (refuse_measured()).
void RankContext::agree_on_collectives(Bound& bound) {
  if (bound.agreed || !others()) return;
  std::vector<std::pair<Group*, std::vector<std::string>>> lists;  // in the order of first use, as the groups were made
  for (const CollectiveUse& use : engine_->plan().collectives) {
    if (use.program != static_cast<int>(profile_)) continue;
    const auto step = static_cast<std::size_t>(use.step);
    Group* group = group_of(step);
    if (!group || group->size() == 1) continue;
    const OpCall call = engine_->call(profile_, step).bound(bound.symbols);
    auto list = std::ranges::find(lists, group, &std::pair<Group*, std::vector<std::string>>::first);
    if (list == lists.end()) list = lists.insert(lists.end(), {group, {}});
    list->second.push_back(fmt::format("{}{}{} {}{}", use.operation, use.reduce.empty() ? "" : " ", use.reduce,
                                       call.has_operand(0) ? call.operand(0).to_string() : "",
                                       use.root < 0 ? "" : fmt::format(" root {}", use.root)));
  }
  for (const auto& [group, calls] : lists) {
    require_same_calls(*group, calls, Deadline::after(options_.rendezvous_deadline));
    register_arena(*group);
  }
  for (std::size_t s = 0; s < bound.launches.size(); ++s) {
    if (!bound.launches[s].communicates) continue;
    try {
      bound.launches[s].kernel->meet(Deadline::after(options_.rendezvous_deadline));
    } catch (const Error& error) {
      throw error.at_node(label(program().steps[s]));
    }
  }
  bound.agreed = true;
}

// Prepared collectives keep their group, and graphs must be gone before the communicators whose kernels they hold.
void RankContext::leave_group() {
  if (others() && !bounds_.empty()) {
    try {
      guarded([&] {
        done_->wait(*stream_);  // what callers' streams have to do
        wait_for_stream();
      });
    } catch (const Error&) {  // told of where it was waited for, or of no more use to anybody
    }
  }
  bounds_.clear();
  registered_.clear();
  joined_.reset();
  group_ = nullptr;
}

Group* RankContext::group_of(std::size_t step) {
  const CollectiveUse* use = use_of(engine_->plan(), profile_, step);
  if (!use || !group_) return nullptr;
  if (is_world(rank_lists(*use, engine_->plan().mesh), group_->size())) return group_;
  const auto found = joined_->parts.find(group_key(*use));
  return found == joined_->parts.end() ? nullptr : found->second.get();
}

}  // namespace tandem
