// A context that is one rank of a small model over GPUs, and what tests of ranks in trouble look at.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/nccl/api.h"
#include "tandem/tandem.h"

namespace tandem::test {

// The MLP of the recorded models. `rows` 0: any number of them.
Engine engine_of(const std::string& device, const std::string& mesh, std::int64_t rows);

// One rank of it over as many GPUs as the group has ranks, with memory of the host.
struct ContextRank {
  ContextRank(Group& group, std::int64_t rows = 8, double step_deadline_s = 30);
  explicit ContextRank(const std::shared_ptr<Group>& group, std::int64_t rows = 8, double step_deadline_s = 30);
  // `options.rank` is the group's.
  ContextRank(const Engine& of, const std::shared_ptr<Group>& group, ContextOptions options);
  void set_shape(const Shape& shape);
  void run();
  // With other rows, where the engine takes any number of them.
  void run_rows(std::int64_t rows);
  bool has_notice(std::string_view words) const;

  Engine engine;
  Arrays inputs;
  std::optional<Context> context;
  std::vector<float> out, values;
};

// A few calls give what the CPU gives.
void check_calls(ContextRank& rank, std::int64_t rows);

// A communicator of the caller's, of the first `size` ranks; null on the others.
ncclComm_t communicator(Group& group, int size);

// `work` ends in an error of this kind with these words: else Error(internal).
void check_refused(ErrorCode code, std::string_view words, const std::function<void()>& work);

// On the current GPU.
std::size_t free_bytes();
// It works on, has no error left, and gives so much as free again. What another process has opened comes back once that has let go.
void check_gpu_is_well(std::size_t free_before);
// By GPU, as a process of its own sees it: the least that a process can have included.
std::vector<std::size_t> used_bytes();

}  // namespace tandem::test
