#include "kernels/kernel_ranks.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <numeric>

#include "comm/gpu_group.h"
#include "comm/ranks.h"
#include "core/check.h"
#include "device/device.h"
#include "kernels/kernel_case.h"

namespace tandem::test {
namespace {

// A rank's group of GPUs, where each rank has one; what the ranks have anyway else.
class RankGroup {
 public:
  explicit RankGroup(Group& host) : host_(host) {
    if (!on_cuda() || cuda_device_count() < host.size()) return;
    device_ = open_device("cuda", host.rank());
    const OnDevice on_device(*device_);
    std::string why;
    gpus_ = make_gpu_group(host, *device_, {}, &why);
    EXPECT_TRUE(gpus_) << why;
  }
  Group& get() { return gpus_ ? *gpus_ : host_; }

 private:
  Group& host_;
  std::shared_ptr<Device> device_;
  std::unique_ptr<Group> gpus_;
};

// The processes that run these tests together; null where this one runs them alone.
Group* processes() {
  const char* how = std::getenv("TANDEM_TEST_RANKS_AS");
  if (!how || how != std::string("processes")) return nullptr;
  static const std::unique_ptr<Group> all = Group::from_env();
  return all.get();
}

// Every rank's, by rank.
std::vector<Tensor> exchanged(Group& group, const Tensor& mine) {
  std::vector<Tensor> all;
  for (const auto& blob : group.exchange({mine.data(), mine.size_bytes()})) {
    check(blob.size() == mine.size_bytes(), "results have the same shape on all ranks");
    Tensor& tensor = all.emplace_back(mine.dtype(), mine.shape());
    if (!blob.empty()) std::memcpy(tensor.mutable_data(), blob.data(), blob.size());
  }
  return all;
}

}  // namespace

std::vector<std::vector<Tensor>> results_of_ranks(int ranks, const std::function<std::vector<Tensor>(Group&)>& body) {
  std::vector<std::vector<Tensor>> results(static_cast<std::size_t>(ranks));
  const auto life = [&](Group& host) {
    RankGroup group(host);
    results[static_cast<std::size_t>(host.rank())] = body(group.get());
  };
  Group* const world = processes();
  if (!world) {
    run_ranks(ranks, life);
    return results;
  }
  check(world->size() == ranks, fmt::format("{} processes run tests of {} ranks", world->size(), ranks));
  std::vector<int> everyone(static_cast<std::size_t>(ranks));
  std::iota(everyone.begin(), everyone.end(), 0);
  const std::unique_ptr<Group> part = world->split({everyone});
  life(*part);
  const std::vector<Tensor> mine = results[static_cast<std::size_t>(part->rank())];
  for (auto& list : results) list.clear();
  for (const Tensor& tensor : mine) {
    const std::vector<Tensor> all = exchanged(*part, tensor);
    for (std::size_t r = 0; r < all.size(); ++r) results[r].push_back(all[r]);
  }
  return results;
}

}  // namespace tandem::test
