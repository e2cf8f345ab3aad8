#include "ops/shape/iota_cuda.h"

#include "device/cuda/runtime.h"
#include "ops/kernel.h"
#include "ops/shape_rules.h"
#include "ops/start_cuda.h"

namespace tandem::kernels {
namespace {

class Iota final : public PreparedKernel {
 public:
  explicit Iota(const OpCall& call)
      : dtype_(call.results.at(0).dtype),
        count_(element_count(shape_of(call.results[0]))),
        offset_(call.attributes.dim("offset").constant()) {}

  void run(const RunArgs& args) const override {
    if (count_ == 0) return;
    cuda::launch_iota(dtype_, args.results[0], count_, offset_, cuda::start_of(args));
    cuda::check_launch("iota");
  }

 private:
  DType dtype_;
  std::int64_t count_, offset_;
};

std::optional<std::string> refuse(const OpCall& call) {
  const DType dtype = call.results.at(0).dtype;
  if (!is_integer(dtype) || bits(dtype) < 8) return "its result is not of integers of whole bytes";
  return std::nullopt;
}

}  // namespace

extern const KernelDef cuda_iota;
const KernelDef cuda_iota = {
    .name = "cuda_iota",
    .op = "Iota",
    .refuse = refuse,
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<Iota>(args.call); },
    .device = "cuda",
    .dependent = true,
};

}  // namespace tandem::kernels
