// One kernel on given tensors, as a plan would run it, and comparison of its results.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/tensor.h"
#include "ops/kernel.h"

namespace tandem::test {

struct KernelCase {
  std::string kernel;
  std::string op;
  std::vector<std::pair<std::string, AttributeValue>> attributes;
  std::vector<std::optional<Tensor>> operands;
  std::vector<std::size_t> weights;  // operands given to pack()
  int threads = 1;
  bool in_place = false;  // result 0 in the memory of the kernel's in-place operand
  Group* group = nullptr;
  bool exact = false;          // no kernel of a GPU that is weaker than docs/ops.md, as --exact has it
  std::string algorithm = {};  // one of algorithms_of()
  bool tf32 = false;           // PrepareArgs::tf32
};

OpCall call_of(const KernelCase& c);
// Whether the rows of this run are for a GPU: TANDEM_TEST_DEVICE=cuda.
bool on_cuda();
// Why the kernel that the row names cannot run it; null if it can.
std::optional<std::string> refusal_of(const KernelCase& c);
// Whether the kernel needs others of a group: its rows are among those of ranks.
bool is_for_ranks(const KernelDef& kernel);
// KernelDef::algorithms of the kernel that the row names; none where it has none.
std::vector<std::string> algorithms_of(const KernelCase& c);
// Results have the extents that were measured, where an op measures any. Throws if the kernel refuses the call. With
// TANDEM_TEST_DEVICE=cuda in the environment, the rows of CPU kernels are run by the kernel that a GPU would take for the op instead; at
// the end the program says how many of its rows fell back to the host. With TANDEM_TEST_UNALIGNED as well, operands (not weights) and
// results lie one element past an aligned address.
std::vector<Tensor> run_kernel(const KernelCase& c);
// The op's own evaluator.
std::vector<Tensor> evaluate(const KernelCase& c);

// Normally distributed, the same for the same seed.
Tensor random_tensor(DType dtype, Shape shape, unsigned seed, double scale = 1);

// Fails the running test unless shapes, dtypes and NaN positions agree and the largest difference is at most
// tolerance · (largest magnitude of `expected`, at least 1e-3).
void expect_close(const Tensor& actual, const Tensor& expected, double tolerance, const std::string& what);
// Results of the kernel against those of the evaluator.
void expect_kernel_matches_op(const KernelCase& c, double tolerance);

// What one rounding of the dtype may cost.
double tolerance_of(DType dtype);

}  // namespace tandem::test
