// What Attention's kernels read from a call.
#pragma once

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
Steps dense_steps(std::int64_t heads, std::int64_t rows, std::int64_t size);
// The lengths operand as numbers; empty if absent.
std::vector<std::int64_t> lengths_of(const OpCall& call, std::size_t operand, std::span<const std::byte* const> operands);
// Of the whole sequences; AttentionProblem::kNoDiagonal if not causal.
std::int64_t diagonal_of(const OpCall& call, std::span<const std::byte* const> operands, std::int64_t rows, std::int64_t columns);

}  // namespace tandem::attention
