// What every module must survive: to text and back.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

#include "graph/random_module.h"

#include "graph/text.h"
#include "tandem/error.h"

namespace tandem::testing {

inline void expect_round_trip(const Module& module, const std::string& label) {
  const std::string text = print(module);
  std::unique_ptr<Module> back;
  try {
    back = parse_module(text, module.ops());
  } catch (const Error& error) {
    FAIL() << label << ": " << error.what() << "\n" << text;
  }
  std::string why;
  ASSERT_TRUE(same(module, *back, &why)) << label << ": " << why << "\n" << text;
  ASSERT_EQ(text, print(*back)) << label;
}

// `count` random modules from seed 0, which every run shares, and as many from a seed of its own that it prints; TANDEM_SEED repeats it.
inline void expect_round_trips(const OpSet& ops, std::uint64_t count) {
  const char* given = std::getenv("TANDEM_SEED");
  const std::uint64_t own = given ? std::strtoull(given, nullptr, 10) : 1000000 + std::random_device{}();
  std::printf("seeds 0 to %llu and TANDEM_SEED=%llu onwards\n", static_cast<unsigned long long>(count - 1),
              static_cast<unsigned long long>(own));
  for (const std::uint64_t first : {std::uint64_t{0}, own})
    for (std::uint64_t seed = first; seed < first + count; ++seed) {
      expect_round_trip(*random_module(seed, ops), "seed " + std::to_string(seed));
      if (::testing::Test::HasFatalFailure()) return;
    }
}

}  // namespace tandem::testing
