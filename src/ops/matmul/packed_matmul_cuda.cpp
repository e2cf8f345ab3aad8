// MatMul of 2 to 16 rows with a weight, as decoding of several sequences has it: the weight is kept a second time, in the order in which
// tensor cores take it, and read at the speed of memory.
#include "ops/matmul/packed_matmul_cuda.h"

#include "device/cuda/library.h"
#include "device/cuda/runtime.h"
#include "ops/matmul/matmul_cuda.h"
#include "ops/matmul/packed_tiles_cuda.h"
#include "ops/matmul/problem_cpu.h"
#include "ops/start_cuda.h"

namespace tandem::kernels {

extern const KernelDef cublaslt_matmul;

namespace {

constexpr TileFormat kFormat = {.bits = 16, .chunk = cuda::kMatMulChunk};

class PackedMatMul final : public PreparedKernel {
 public:
  PackedMatMul(const PrepareArgs& args, const MatMulProblem& p)
      : dtype_(p.dtype),
        b_(static_cast<const PackedTiles&>(*args.packed)),
        product_(*args.device, kFormat, cuda::kMatMulTiles, {p.m, p.k, p.n, p.activation, p.bias, p.residual}) {
    cuda::check(cuda::prepare_packed_matmul(dtype_, product_.tiles()), "preparing a product of few rows");
  }

  std::size_t workspace_bytes() const override { return product_.workspace_bytes(); }

  void run(const RunArgs& args) const override {
    cuda::launch_packed_matmul(dtype_, product_.tiles(), product_.rows(args, b_), cuda::start_of(args));
    cuda::check_launch("a product of few rows");
  }

 private:
  DType dtype_;
  const PackedTiles& b_;
  PackedProduct product_;
};

std::optional<std::string> refuse(const OpCall& call) {
  if (auto reason = matmul_refusal(call)) return reason;
  const Type &a = call.operand(kMatMulA), &b = call.operand(kMatMulB);
  if (a.dtype != DType::f16 && a.dtype != DType::bf16) return "it multiplies f16 and bf16 only";
  const auto rows = known_rows(a);
  if (!rows || *rows < 2 || *rows > cuda::kPackedRows) return "its first operand is not known to be 2 to 16 rows";
  if (!is_single_matrix(b) || !b.dims.back().is_constant() || !a.dims.back().is_constant())
    return "its second operand is not one matrix of known extents";
  const std::int64_t k = a.dims.back().constant(), n = b.dims.back().constant();
  if (k == 0 || n == 0 || k > cuda::kPackedMost || n > cuda::kPackedMost)
    return "its second operand is empty, or too large for its numbers";
  return std::nullopt;
}

// A second copy is worth its memory for weights alone.
std::size_t packed_bytes(const OpCall& call, std::span<const std::byte* const> weights) {
  if (weights.size() <= kMatMulB || !weights[kMatMulB]) return 0;
  return tile_bytes(kFormat, call.operand(kMatMulA).dims.back().constant(), call.operand(kMatMulB).dims.back().constant());
}

std::unique_ptr<Packed> pack(const OpCall& call, std::span<const std::byte* const> weights) {
  if (packed_bytes(call, weights) == 0) return nullptr;
  return std::make_unique<PackedTiles>(weights[kMatMulB], kFormat, call.operand(kMatMulA).dims.back().constant(),
                                       call.operand(kMatMulB).dims.back().constant());
}

bool packs_operand(const OpCall&, std::size_t operand) { return operand == kMatMulB; }

std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  if (!args.packed) return cuda::find_library(cuda::Which::cublaslt) ? cublaslt_matmul.prepare(args) : prepare_cuda_matmul(args);
  return std::make_unique<PackedMatMul>(args, matmul_problem(args.call));
}

}  // namespace

extern const KernelDef cuda_packed_matmul;
const KernelDef cuda_packed_matmul = {
    .name = "cuda_packed_matmul",
    .op = "MatMul",
    .refuse = refuse,
    .prepare = prepare,
    .pack = pack,
    .packed_bytes = packed_bytes,
    .packs_operand = packs_operand,
    .rank = 5,  // on an H200 it is faster than cuBLASLt for narrow matrices only, which timing finds
    .device = "cuda",
    .dependent = true,
    .reads_early = packs_operand,
};

}  // namespace tandem::kernels
