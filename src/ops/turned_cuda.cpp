#include "ops/turned_cuda.h"

#include <utility>
#include <vector>

#include "core/numeric.h"
#include "device/cuda/runtime.h"

namespace tandem::kernels {
namespace {

class TurnedBack final : public PreparedKernel {
 public:
  TurnedBack(const TurnedFormat& format, const PackedBlock& packed, std::unique_ptr<PreparedKernel> plain)
      : format_(format), packed_(packed), plain_(std::move(plain)) {}

  std::size_t workspace_bytes() const override { return room() + plain_->workspace_bytes(); }

  void run(const RunArgs& args) const override {
    cuda::launch_turn(packed_.in(args), args.workspace, format_.n, format_.k, format_.element_bytes, cuda::handle_of(args.stream));
    cuda::check_launch("transposing a weight");
    std::vector<const std::byte*> operands(args.operands.begin(), args.operands.end());
    operands[format_.operand] = args.workspace;
    plain_->run({.operands = operands,
                 .results = args.results,
                 .workspace = args.workspace + room(),
                 .stream = args.stream,
                 .deadline = args.deadline});
  }

 private:
  std::size_t room() const { return static_cast<std::size_t>(round_up(static_cast<std::int64_t>(format_.size_bytes()), 256)); }

  TurnedFormat format_;
  const PackedBlock& packed_;
  std::unique_ptr<PreparedKernel> plain_;
};

}  // namespace

// Other streams of the device may be recorded meanwhile, so only this thread's own is waited for.
std::unique_ptr<PackedBlock> turned(const std::byte* from, const TurnedFormat& format) {
  auto to = std::make_unique<PackedBlock>(format.size_bytes());
  cuda::launch_turn(from, to->data(), format.k, format.n, format.element_bytes, cudaStreamPerThread);
  cuda::check_launch("transposing a weight");
  cuda::finish(cudaStreamPerThread, "transposing a weight");
  return to;
}

std::unique_ptr<PreparedKernel> turn_back(const TurnedFormat& format, const PrepareArgs& args,
                                          std::unique_ptr<PreparedKernel> (*plain)(const PrepareArgs&)) {
  const std::vector<const std::byte*> weights(args.weights.size(), nullptr);  // none lies where `plain` could read it now
  auto kernel = plain({.call = args.call, .weights = weights, .threads = args.threads, .device = args.device});
  return std::make_unique<TurnedBack>(format, static_cast<const PackedBlock&>(*args.packed), std::move(kernel));
}

}  // namespace tandem::kernels
