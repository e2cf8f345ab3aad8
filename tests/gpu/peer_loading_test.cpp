// Making a group loads what may wait in it; nothing else would have.
#include <cuda.h>

#include <map>

#include "comm/peer/spinning.h"
#include "comm/ranks.h"
#include "gpu/peer_rank.h"

namespace tandem::test {
namespace {

// A function of the driver, of type F.
template <typename F>
F of_driver(const char* name) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  cuda::check(cudaGetDriverEntryPointByVersion(name, &found, 12040, cudaEnableDefault, &result), name);
  check(found != nullptr, fmt::format("the driver has {}", name));
  return reinterpret_cast<F>(found);
}

void done(CUresult status) { check(status == CUDA_SUCCESS, fmt::format("the driver answers {}", static_cast<int>(status))); }

// Of the kernels that wait and were compiled together with the first of the list, by name: whether each is loaded on the current GPU.
std::map<std::string, bool> are_loaded() {
  cudaFunction_t first = nullptr;
  CUmodule module = nullptr;
  unsigned count = 0;
  cuda::check(cudaGetFuncBySymbol(&first, peer::spinning_kernels().at(0)), "asking for a kernel");
  done(of_driver<decltype(&cuFuncGetModule)>("cuFuncGetModule")(&module, first));
  done(of_driver<decltype(&cuModuleGetFunctionCount)>("cuModuleGetFunctionCount")(&count, module));
  std::vector<CUfunction> functions(count);
  done(of_driver<decltype(&cuModuleEnumerateFunctions)>("cuModuleEnumerateFunctions")(functions.data(), count, module));
  const auto name_of = of_driver<decltype(&cuFuncGetName)>("cuFuncGetName");
  const auto is_loaded = of_driver<decltype(&cuFuncIsLoaded)>("cuFuncIsLoaded");
  std::map<std::string, bool> loaded;
  for (const CUfunction function : functions) {
    const char* name = nullptr;
    CUfunctionLoadingState state = CU_FUNCTION_LOADING_STATE_UNLOADED;
    done(name_of(&name, function));
    done(is_loaded(&state, function));
    if (std::string(name).find("4ViewE") != std::string::npos) loaded[name] = state == CU_FUNCTION_LOADING_STATE_LOADED;
  }
  return loaded;
}

int count_loaded(const std::map<std::string, bool>& kernels) {
  return static_cast<int>(std::ranges::count_if(kernels, [](const auto& kernel) { return kernel.second; }));
}

// In a process of its own, in which nothing has run.
TEST_F(Peers, AGroupLoadsItsKernels) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto life = [] {
    try {
      run_ranks(rank_count(), [](Group& control) {
        if (control.rank() == 0) {
          const auto device = open_device("cuda", 0);
          const OnDevice current(*device);
          cuda::check(cudaFree(nullptr), "making the GPU's context");
          const auto before = are_loaded();
          check(before.size() > 4 && count_loaded(before) < 3,
                fmt::format("{} of {} are loaded before", count_loaded(before), before.size()));
        }
        control.exchange({});
        const PeerRank rank(control);
        const auto after = are_loaded();
        check(count_loaded(after) == static_cast<int>(after.size()),
              fmt::format("{} of {} are loaded after", count_loaded(after), after.size()));
      });
      fmt::print(stderr, "all are loaded\n");
      std::exit(0);
    } catch (const std::exception& error) {
      fmt::print(stderr, "{}\n", error.what());
      std::exit(1);
    }
  };
  EXPECT_EXIT(life(), ::testing::ExitedWithCode(0), "all are loaded");
}

}  // namespace
}  // namespace tandem::test
