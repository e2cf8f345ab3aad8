#include "core/readable.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vector>

namespace tandem {
namespace {

TEST(Readable, WhatAProcessHas) {
  const int here = 1;
  static const char text[] = "text";
  const std::vector<char> much(4096);
  EXPECT_TRUE(is_readable(&here, sizeof here));
  EXPECT_TRUE(is_readable(text, sizeof text));
  EXPECT_TRUE(is_readable(much.data(), much.size()));
}

TEST(Readable, WhatNobodyHas) {
  for (const std::uintptr_t number : {std::uintptr_t{0}, std::uintptr_t{8}, std::uintptr_t{1} << 46, ~std::uintptr_t{7}})
    EXPECT_FALSE(is_readable(reinterpret_cast<const void*>(number), 8)) << number;
}

TEST(Readable, WhatIsThereNoMore) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  void* const memory = mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  const char* const second = static_cast<char*>(memory) + page;
  EXPECT_TRUE(is_readable(second, 8));
  ASSERT_EQ(mprotect(static_cast<char*>(memory) + page, page, PROT_NONE), 0);
  EXPECT_FALSE(is_readable(second, 8));
  EXPECT_FALSE(is_readable(second - 4, 8));  // the first half is
  EXPECT_TRUE(is_readable(second - 8, 8));
  munmap(memory, 2 * page);
  EXPECT_FALSE(is_readable(memory, 8));
}

}  // namespace
}  // namespace tandem
