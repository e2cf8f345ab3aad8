// The model as its file has it, run by plain loops: a reference that no pass and no kernel has touched.
#pragma once

#include "graph/profile.h"
#include "tandem/build.h"

namespace tandem {

// Per optimization profile the ranges that the options give.
std::vector<InputRanges> ranges_of_profiles(const BuildOptions& options);

// `inputs` as Engine::random_inputs() gives them for the profile. Slow. Throws Error(unsupported) naming a node that only a kernel can run.
Arrays run_plainly(const std::string& path, const BuildOptions& options, const Arrays& inputs, std::size_t profile = 0);

}  // namespace tandem
