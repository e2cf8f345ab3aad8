// Attention on one GPU over strided views, for kernels that do more around it.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>

#include "device/cuda/runtime.h"
#include "ops/attention/problem_cpu.h"
#include "ops/kernel.h"

namespace tandem::attention {

// What an attention gives: its result, or what is merged with results over other columns (AttentionRun has both forms).
enum class Gives : std::uint8_t {
  result,
  logarithms,  // the result and, as a second one, AttentionRun::lse
  sums         // AttentionRun::sums and ::lines
};

using OperandBegins = std::array<std::size_t, 3>;  // the bytes of q, k and v before their first element

// Why our own kernels cannot run a call, over however many ranks.
std::optional<std::string> own_attention_refusal(const OpCall& call);

// `call` (bound, of one rank) says what is meant, `problem` how it lies in memory; where causal rows do not begin at the corner that the
// call names, problem.diagonal. run() takes the call's operands and the memory of what it gives.
std::unique_ptr<PreparedKernel> prepare_own_attention(cuda::CudaDevice& device, const OpCall& call, const AttentionProblem& problem,
                                                      OperandBegins begins, Gives gives = Gives::result);
// The same by cuDNN where it can, `args` (of what attends over ranks) allow it and our own kernel would be slower; sums are always our own
// kernel's.
std::unique_ptr<PreparedKernel> prepare_attention(const PrepareArgs& args, const OpCall& call, const AttentionProblem& problem,
                                                  Gives gives = Gives::result);

}  // namespace tandem::attention
