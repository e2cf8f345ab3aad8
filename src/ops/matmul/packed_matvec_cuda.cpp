// MatMul of one row with a weight, as decoding has it: the weight is kept a second time, by columns, and read at the speed of memory.
#include "ops/matmul/packed_matvec_cuda.h"

#include "core/check.h"
#include "device/cuda/library.h"
#include "device/cuda/runtime.h"
#include "ops/kernel.h"
#include "ops/matmul/matmul_cuda.h"
#include "ops/matmul/problem_cpu.h"
#include "ops/packed_cuda.h"
#include "ops/start_cuda.h"

namespace tandem::kernels {

extern const KernelDef cublaslt_matmul;

namespace {

class PackedMatVec final : public PreparedKernel {
 public:
  PackedMatVec(const MatMulProblem& p, const PackedBlock& columns) : p_(p), columns_(columns) {}

  void run(const RunArgs& args) const override {
    cuda::launch_packed_matvec(p_.dtype,
                               {.x = args.operands[kMatMulA],
                                .packed = columns_.in(args),
                                .bias = p_.bias ? args.operands[kMatMulBias] : nullptr,
                                .residual = p_.residual ? args.operands[kMatMulResidual] : nullptr,
                                .y = args.results[0],
                                .n = static_cast<int>(p_.n),
                                .k = static_cast<int>(p_.k),
                                .activation = p_.activation,
                                .resident = args.may_start_early && (args.resident >> kMatMulB & 1) != 0},
                               cuda::start_of(args));
    cuda::check_launch("a product of one row");
  }

 private:
  MatMulProblem p_;
  const PackedBlock& columns_;
};

bool is_one_row(const Type& a) {
  for (std::size_t i = 0; i + 1 < a.dims.size(); ++i)
    if (a.dims[i] != Dim(1)) return false;
  return a.dims.size() >= 2;
}

std::optional<std::string> refuse(const OpCall& call) {
  if (auto reason = matmul_refusal(call)) return reason;
  const Type &a = call.operand(kMatMulA), &b = call.operand(kMatMulB);
  if (a.dtype != DType::f16 && a.dtype != DType::bf16) return "it multiplies f16 and bf16 only";
  if (!is_one_row(a)) return "its first operand is not known to be one row";
  if (!is_single_matrix(b) || !b.dims.back().is_constant() || !a.dims.back().is_constant())
    return "its second operand is not one matrix of known extents";
  const std::int64_t k = a.dims.back().constant(), n = b.dims.back().constant();
  if (k == 0 || k % 8 != 0 || n == 0 || k > cuda::kPackedMatVecMost || n > cuda::kPackedMatVecMost)
    return "its columns are not of a multiple of 8 elements";
  return std::nullopt;
}

// A second copy is worth its memory for weights alone.
std::size_t packed_bytes(const OpCall& call, std::span<const std::byte* const> weights) {
  if (weights.size() <= kMatMulB || !weights[kMatMulB]) return 0;
  return static_cast<std::size_t>(call.operand(kMatMulA).dims.back().constant() * call.operand(kMatMulB).dims.back().constant()) * 2;
}

std::unique_ptr<Packed> pack(const OpCall& call, std::span<const std::byte* const> weights) {
  const std::size_t size = packed_bytes(call, weights);
  if (size == 0) return nullptr;
  auto columns = std::make_unique<PackedBlock>(size);
  cuda::launch_pack_columns(weights[kMatMulB], columns->data(), call.operand(kMatMulA).dims.back().constant(),
                            call.operand(kMatMulB).dims.back().constant(), cudaStreamPerThread);
  cuda::finish(cudaStreamPerThread, "storing a weight by columns");
  return columns;
}

bool packs_operand(const OpCall&, std::size_t operand) { return operand == kMatMulB; }

std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  if (!args.packed) return cuda::find_library(cuda::Which::cublaslt) ? cublaslt_matmul.prepare(args) : prepare_cuda_matmul(args);
  return std::make_unique<PackedMatVec>(matmul_problem(args.call), static_cast<const PackedBlock&>(*args.packed));
}

}  // namespace

extern const KernelDef cuda_packed_matvec;
const KernelDef cuda_packed_matvec = {
    .name = "cuda_packed_matvec",
    .op = "MatMul",
    .refuse = refuse,
    .prepare = prepare,
    .pack = pack,
    .packed_bytes = packed_bytes,
    .packs_operand = packs_operand,
    .rank = -1,
    .device = "cuda",
    .dependent = true,
    .reads_early = packs_operand,
};

}  // namespace tandem::kernels
