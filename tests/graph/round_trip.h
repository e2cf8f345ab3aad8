// What every module must survive: to text and back.
#pragma once

#include <gtest/gtest.h>

#include <string>

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

}  // namespace tandem::testing
