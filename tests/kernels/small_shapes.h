// One small shape for each way that a kernel of ours goes on a GPU.
#pragma once

#include <string>
#include <vector>

#include "kernels/kernel_case.h"

namespace tandem::test {

struct SmallShape {
  std::string name;
  std::string_view kernel;  // of GPUs
  KernelCase row;           // without a kernel
  double roundings = 2;     // of the result's dtype
};

// Of kernels that need one GPU.
std::vector<SmallShape> small_shapes();

}  // namespace tandem::test
