// Two ranks whose engines differ.
#pragma once

#include <gtest/gtest.h>

#include <span>
#include <string>
#include <thread>
#include <vector>

#include "support/thrown.h"
#include "tandem/tandem.h"

namespace tandem::testing {

// Engines of mlp_legacy for tp=2, one for each rank: at the collective point both ranks are refused since their plans differ.
inline void expect_plans_differ(std::span<const Engine, 2> engines) {
  auto groups = Group::in_process(2);
  std::vector<std::string> said(2);
  std::vector<std::thread> ranks;
  for (std::size_t r = 0; r < 2; ++r)
    ranks.emplace_back([&, r, group = std::shared_ptr<Group>(std::move(groups[r]))] {
      Context context(engines[r], {.rank = static_cast<int>(r), .threads = 1});
      context.set_communicator(group);
      context.set_input_shape(0, {2, 32});
      said[r] = thrown([&] { context.prepare(); }).what();
    });
  for (std::thread& rank : ranks) rank.join();
  for (const std::string& text : said) EXPECT_NE(text.find("the plan"), std::string::npos) << text;
}

}  // namespace tandem::testing
