// Every kernel that can wait for other ranks is loaded when a group is made: those that the program is linked with, as it tells CUDA of
// them before main(), against those listed for loading. The linker hands us what goes to CUDA (--wrap), so no GPU is needed.
#include "comm/peer/spinning.h"

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "ops/kernel.h"

namespace {

std::map<const void*, std::string>& kernels_of_program() {
  static std::map<const void*, std::string> all;  // its name by what it is launched by
  return all;
}

}  // namespace

extern "C" {

void __real___cudaRegisterFunction(void**, const char*, char*, const char*, int, uint3*, uint3*, dim3*, dim3*, int*);

void __wrap___cudaRegisterFunction(void** handle, const char* host, char* device, const char* name, int threads, uint3* thread,
                                   uint3* block, dim3* block_size, dim3* grid_size, int* warp) {
  kernels_of_program()[host] = name;
  __real___cudaRegisterFunction(handle, host, device, name, threads, thread, block, block_size, grid_size, warp);
}
}

namespace tandem {
namespace {

// A kernel that waits has a view of its group to do it with.
bool can_wait(const std::string& name) { return name.find("4ViewE") != std::string::npos; }

TEST(SpinningKernels, AllAreListed) {
  ASSERT_NE(find_kernel("cuda_attention_all_to_all"), nullptr) << "kernels of other folders are part of the program";
  const std::set<const void*> listed(peer::spinning_kernels().begin(), peer::spinning_kernels().end());
  std::map<std::string, int> found;
  for (const auto& [launched_by, name] : kernels_of_program()) {
    if (!can_wait(name)) continue;
    EXPECT_TRUE(listed.contains(launched_by)) << name << " is started by another name than spinning<…>()";
    for (const char* part : {"at_once", "by_parts", "reduce_and_norm", "move_lines", "await"})
      found[part] += name.find(part) != std::string::npos;
  }
  for (const auto& [part, count] : found) EXPECT_GT(count, 0) << part;
  EXPECT_EQ(found.size(), 5u);
}

TEST(SpinningKernels, NothingElseIs) {
  for (const void* kernel : peer::spinning_kernels()) {
    const auto known = kernels_of_program().find(kernel);
    ASSERT_NE(known, kernels_of_program().end());
    EXPECT_TRUE(can_wait(known->second)) << known->second;
  }
  const std::set<const void*> once(peer::spinning_kernels().begin(), peer::spinning_kernels().end());
  EXPECT_EQ(once.size(), peer::spinning_kernels().size());
  EXPECT_LT(once.size(), 200u) << "each takes part of a millisecond when a group is made";
}

}  // namespace
}  // namespace tandem
