// What a TensorRT program takes from MPI, NCCL and CUDA, for ranks that are threads of this process.
#pragma once

#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "tandem/group.h"

using ncclComm_t = std::shared_ptr<tandem::Group>;

// Runs `rank_program` on as many ranks; 0 if every one gave 0.
inline int run_ranks(int count, const std::function<int(int rank, ncclComm_t comm)>& rank_program) {
  auto groups = tandem::Group::in_process(count);
  std::vector<int> status(groups.size(), 1);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < count; ++rank)
    threads.emplace_back([&, rank] {
      const auto at = static_cast<std::size_t>(rank);
      try {
        status[at] = rank_program(rank, std::move(groups[at]));
      } catch (const std::exception& error) {
        std::fprintf(stderr, "rank %d: %s\n", rank, error.what());
      }
    });
  for (std::thread& thread : threads) thread.join();
  for (const int one : status)
    if (one != 0) return 1;
  return 0;
}
