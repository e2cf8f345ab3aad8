// What Attention's kernels read from a call.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "graph/op_def.h"
#include "ops/attention/core_cpu.h"
#include "ops/attention/operands.h"

namespace tandem::attention {

// What none of the kernels can do.
std::optional<std::string> attention_refusal(const OpCall& call);
// Everything but pointers, lengths and diagonal; dense [B,H,S,D] operands as the call has them.
AttentionProblem problem_of(const OpCall& call);

// A FlatAttention as the Attention that it stands for, over columns of wider rows.
struct FlatProblem {
  OpCall call;
  AttentionProblem problem;             // as problem_of() has it
  std::array<std::size_t, 3> begins{};  // the bytes of q, k and v before their first element
};
FlatProblem flat_problem_of(const OpCall& flat_call);

Steps dense_steps(std::int64_t heads, std::int64_t rows, std::int64_t size);
// The lengths operand as numbers; empty if absent.
std::vector<std::int64_t> lengths_of(const OpCall& call, std::size_t operand, std::span<const std::byte* const> operands);
// Of the whole sequences; AttentionProblem::kNoDiagonal if not causal.
std::int64_t diagonal_of(const OpCall& call, std::span<const std::byte* const> operands, std::int64_t rows, std::int64_t columns);

}  // namespace tandem::attention
