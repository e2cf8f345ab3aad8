#include "core/tensor.h"
#include "ops/kernel.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

class Iota final : public PreparedKernel {
 public:
  explicit Iota(const OpCall& call)
      : dtype_(call.results.at(0).dtype),
        count_(element_count(shape_of(call.results[0]))),
        offset_(call.attributes.dim("offset").constant()) {}

  void run(const RunArgs& args) const override {
    if (dtype_ == DType::i64)
      for (std::int64_t i = 0; i < count_; ++i) reinterpret_cast<std::int64_t*>(args.results[0])[i] = offset_ + i;
    else
      for (std::int64_t i = 0; i < count_; ++i) store_int(dtype_, args.results[0], i, offset_ + i);
  }

 private:
  DType dtype_;
  std::int64_t count_, offset_;
};

}  // namespace

extern const KernelDef iota;
const KernelDef iota = {
    .name = "iota",
    .op = "Iota",
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<Iota>(args.call); },
};

}  // namespace tandem::kernels
