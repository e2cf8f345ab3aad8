// Up to four rows times one matrix, as decoding has it: bound by reading the matrix, so split over enough blocks to read at full speed.
#include "ops/matmul/matvec_cuda.h"

#include <algorithm>

#include "core/check.h"
#include "core/numeric.h"
#include "device/cuda/runtime.h"
#include "ops/arrivals_cuda.h"
#include "ops/kernel.h"
#include "ops/matmul/matmul_cuda.h"
#include "ops/matmul/problem_cpu.h"
#include "ops/start_cuda.h"

namespace tandem::kernels {
namespace {

class CudaMatVec final : public PreparedKernel {
 public:
  CudaMatVec(const PrepareArgs& args, const MatMulProblem& problem) : p_(problem) {
    auto& device = static_cast<cuda::CudaDevice&>(*args.device);
    const std::int64_t column_blocks = ceil_divide(p_.n * size(), cuda::kMatVecColumns);
    const std::int64_t at_once = std::int64_t{cuda::matvec_blocks_at_once(p_.dtype, p_.m)} * device.multiprocessors();
    // One wave of blocks, or several of blocks that read long enough for their start not to matter.
    const std::int64_t wanted =
        std::max({at_once / column_blocks, std::min(ceil_divide(4 * at_once, column_blocks), p_.k / 512), std::int64_t{1}});
    depth_ = round_up(ceil_divide(p_.k, wanted), cuda::kMatVecDepth);
    splits_ = ceil_divide(p_.k, depth_);
    if (splits_ == 1) return;
    arrived_ = cuda::Arrivals(device, column_blocks);
  }

  std::size_t workspace_bytes() const override {
    return splits_ == 1 ? 0 : static_cast<std::size_t>(splits_ * p_.m * p_.n) * sizeof(float);
  }

  void run(const RunArgs& args) const override {
    const cuda::Start start = cuda::start_of(args);
    const std::byte *a = args.operands[kMatMulA], *b = args.operands[kMatMulB];
    const std::byte *bias = p_.bias ? args.operands[kMatMulBias] : nullptr,
                    *residual = p_.residual ? args.operands[kMatMulResidual] : nullptr;
    if (reinterpret_cast<std::uintptr_t>(b) % 16 != 0) {
      cuda::launch_matmul(p_.dtype, p_.activation, {p_.m, p_.n, p_.k, 1, 0, 0}, a, b, bias, residual, args.results[0], start);
    } else {
      cuda::launch_matvec(p_.dtype,
                          {.a = a,
                           .b = b,
                           .bias = bias,
                           .residual = residual,
                           .c = args.results[0],
                           .partials = reinterpret_cast<float*>(args.workspace),
                           .arrived = arrived_.counters(),
                           .m = p_.m,
                           .n = p_.n,
                           .k = p_.k,
                           .depth = depth_,
                           .splits = splits_,
                           .activation = p_.activation,
                           .b_resident = start.early && (args.resident >> kMatMulB & 1) != 0},
                          start);
    }
    cuda::check_launch("a product of few rows");
  }

 private:
  std::int64_t size() const { return static_cast<std::int64_t>(bytes(p_.dtype, 1)); }

  MatMulProblem p_;
  std::int64_t depth_ = 0, splits_ = 1;
  cuda::Arrivals arrived_;
};

}  // namespace

std::unique_ptr<PreparedKernel> prepare_matvec(const PrepareArgs& args, const MatMulProblem& p) {
  const bool is_float16_or_32 = p.dtype == DType::f16 || p.dtype == DType::bf16 || p.dtype == DType::f32;
  if (!is_float16_or_32 || p.products.size() != 1 || p.m == 0 || p.m > cuda::kMatVecRows || p.n == 0 || p.k == 0) return nullptr;
  if (bytes(p.dtype, p.n) % 16 != 0) return nullptr;
  return std::make_unique<CudaMatVec>(args, p);
}

}  // namespace tandem::kernels
