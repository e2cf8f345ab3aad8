// Rows with NaN and infinities for kernels that need one device: the small shapes, and what they leave out.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kernels/kernel_case.h"

namespace tandem::test {

struct NonFiniteRow {
  std::string name, group;  // rows of a group are tested together
  std::string_view kernel;  // of GPUs, that the row stands for
  KernelCase row;           // finite, without a kernel
  double roundings = 2;     // of the result's dtype
};

std::vector<NonFiniteRow> nonfinite_rows();
// Their groups, each once.
std::vector<std::string> nonfinite_groups();

// The operands of a row that can hold the number.
std::vector<std::size_t> operands_for(const KernelCase& row, double special);
// The row with the number in one operand: at both ends, and in all of a stretch in the middle where there is room for one.
KernelCase spiked(const KernelCase& row, std::size_t operand, double special);

}  // namespace tandem::test
