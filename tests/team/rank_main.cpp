// main() of tests that start rank processes: the program itself serves as a rank.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string_view>

#include "team/rank_link.h"

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "rank") return tandem::serve_rank_process(std::atoi(argv[2]));
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
