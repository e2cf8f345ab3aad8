#include "api/run/step_waiting.h"

#include <algorithm>
#include <array>
#include <numeric>

namespace tandem {
namespace {

// Whether no rank leaves before all have come. In others ranks that only send do not wait; attention computes as well.
bool ends_together(const CollectiveUse& use) {
  constexpr std::array<std::string_view, 4> kOperations = {"all_reduce", "reduce_scatter", "all_gather", "all_to_all"};
  return std::ranges::find(kOperations, use.operation) != kOperations.end();
}

std::vector<std::vector<int>> groups_of(const CollectiveUse& use, const Mesh& mesh) {
  if (!use.axis.empty()) return mesh.groups(use.axis);
  std::vector<std::vector<int>> groups;
  for (const auto& list : use.groups) groups.emplace_back(list.begin(), list.end());
  if (!groups.empty()) return groups;
  groups.emplace_back(static_cast<std::size_t>(mesh.size()));
  std::iota(groups[0].begin(), groups[0].end(), 0);
  return groups;
}

}  // namespace

void tell_waiting(const Plan& plan, std::size_t program, std::vector<std::vector<TraceEvent>>& ranks) {
  for (const CollectiveUse& use : plan.collectives) {
    if (use.program != static_cast<int>(program) || !ends_together(use)) continue;
    for (const std::vector<int>& group : groups_of(use, plan.mesh)) {
      std::vector<TraceEvent*> events;
      for (const int rank : group) {
        auto& of_rank = ranks.at(static_cast<std::size_t>(rank));
        const auto found = std::ranges::find(of_rank, use.step, &TraceEvent::step);
        if (found != of_rank.end()) events.push_back(&*found);
      }
      const auto duration = [](const TraceEvent* event) { return event->end_ns - event->begin_ns; };
      if (events.size() != group.size()) continue;
      const std::int64_t moving = duration(std::ranges::min(events, {}, duration));
      for (TraceEvent* event : events) event->waited_ns = duration(event) - moving;
    }
  }
}

}  // namespace tandem
