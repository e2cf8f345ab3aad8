// What every backend of a Group needs, and what can be done with any Group.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/collective.h"
#include "tandem/group.h"

namespace tandem {

// Collective: ranks of equal color form a group, ordered by rank; a negative color is in none (null).
std::unique_ptr<Group> split_by_color(Group& group, int color, Deadline deadline = Deadline::after(kRendezvousDeadline));

// Collective: throws Error(mismatch) on every rank, naming the first rank that differs from rank 0 and what it differs in, unless all
// ranks pass equal values. `names` says what each value is; the group stays usable.
void require_agreement(Group& group, std::span<const std::uint64_t> values, std::span<const std::string> names,
                       Deadline deadline = Deadline::after(kRendezvousDeadline));

// Checks everything about a call that one rank can see alone; throws as run() does.
void check_call(const CollectiveCall& call, int size);

// What a rank outside every group does instead of run(): copies `in` to `out` where the collective keeps the shape (all_reduce, reduce,
// broadcast, all_to_all along one axis), else Error(invalid_argument).
void pass_through(const CollectiveCall& call);

// "all_reduce(sum f32 [4,8])", for messages.
std::string to_string(const CollectiveCall& call);

}  // namespace tandem
