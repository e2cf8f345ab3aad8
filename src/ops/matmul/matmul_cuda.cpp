// MatMul by a kernel of ours: any type, any shape, no library; far from the GPU's limit.
#include "ops/matmul/matmul_cuda.h"

#include <limits>

#include "core/check.h"
#include "device/cuda/runtime.h"
#include "ops/kernel.h"
#include "ops/matmul/matvec_cuda.h"
#include "ops/matmul/products_cuda.h"
#include "ops/shape_rules.h"
#include "ops/start_cuda.h"

namespace tandem::kernels {
namespace {

class CudaMatMul final : public PreparedKernel {
 public:
  explicit CudaMatMul(const PrepareArgs& args) : p_(matmul_problem(args.call)) {
    if (!p_.products.empty()) batches_ = batches_of(p_, std::numeric_limits<std::int64_t>::max());
  }

  void run(const RunArgs& args) const override {
    const auto at = [this](std::int64_t elements) { return static_cast<std::size_t>(bytes(p_.dtype, elements)); };
    const cuda::MatMulShape shape = {p_.m, p_.n, p_.k, batches_.count, batches_.a_stride, batches_.b_stride};
    for (const MatMulProblem::Offsets& first : batches_.first)
      cuda::launch_matmul(p_.dtype, p_.activation, shape, args.operands[kMatMulA] + at(first.a), args.operands[kMatMulB] + at(first.b),
                          p_.bias ? args.operands[kMatMulBias] : nullptr,
                          p_.residual ? args.operands[kMatMulResidual] + at(first.c) : nullptr, args.results[0] + at(first.c),
                          cuda::start_of(args));
    cuda::check_launch("a product");
  }

 private:
  MatMulProblem p_;
  ProductBatches batches_;
};

std::optional<std::string> refuse(const OpCall& call) {
  const DType dtype = call.results.at(0).dtype;
  if (dtype == DType::f8e4m3 || dtype == DType::f8e5m2 || bits(dtype) < 8)
    return "it does not multiply numbers of less than 16 bits but i8 and u8";
  return std::nullopt;
}

}  // namespace

std::unique_ptr<PreparedKernel> prepare_cuda_matmul(const PrepareArgs& args) {
  if (auto few_rows = prepare_matvec(args, matmul_problem(args.call))) return few_rows;
  return std::make_unique<CudaMatMul>(args);
}

extern const KernelDef cuda_matmul;
const KernelDef cuda_matmul = {
    .name = "cuda_matmul",
    .op = "MatMul",
    .refuse = refuse,
    .prepare = prepare_cuda_matmul,
    .rank = 10,
    .device = "cuda",
    .dependent = true,
    .reads_early = [](const OpCall&, std::size_t operand) { return operand == kMatMulB; },
};

}  // namespace tandem::kernels
