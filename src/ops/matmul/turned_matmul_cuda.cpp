// MatMul by cuBLASLt with a weight that is kept as its transpose: on some GPUs the library's faster kernels are those that read both
// matrices along k, as PyTorch's Linear has them.
#include "ops/matmul/cublaslt_matmul_cuda.h"
#include "ops/matmul/matmul_cuda.h"
#include "ops/turned_cuda.h"

namespace tandem::kernels {

extern const KernelDef cublaslt_matmul;

namespace {

constexpr int kElement = 2;  // bytes

TurnedFormat format_of(const OpCall& call) {
  const Type& b = call.operand(kMatMulB);
  return {kMatMulB, b.dims[b.dims.size() - 2].constant(), b.dims.back().constant(), kElement};
}

const PackedBlock* packed_of(const PrepareArgs& args) { return static_cast<const PackedBlock*>(args.packed); }

std::optional<std::string> refuse(const OpCall& call) {
  if (auto reason = cublaslt_matmul_refusal(call)) return reason;
  if (auto reason = matmul_refusal(call)) return reason;
  const Type &a = call.operand(kMatMulA), &b = call.operand(kMatMulB);
  if (a.dtype != DType::f16 && a.dtype != DType::bf16) return "it multiplies f16 and bf16 only";
  if (!is_single_matrix(b) || !b.dims.back().is_constant() || !b.dims[b.dims.size() - 2].is_constant())
    return "its second operand is not one matrix of known extents";
  if (format_of(call).size_bytes() == 0) return "its second operand is empty";
  return std::nullopt;
}

std::size_t packed_bytes(const OpCall& call, std::span<const std::byte* const> weights) {
  return weights.size() > kMatMulB && weights[kMatMulB] ? format_of(call).size_bytes() : 0;
}

std::unique_ptr<Packed> pack(const OpCall& call, std::span<const std::byte* const> weights) {
  if (packed_bytes(call, weights) == 0) return nullptr;
  return turned(weights[kMatMulB], format_of(call));
}

// For what cuBLASLt does not take.
std::unique_ptr<PreparedKernel> prepare_back(const PrepareArgs& args) { return turn_back(format_of(args.call), args, prepare_cuda_matmul); }

std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  if (!args.packed) return cublaslt_matmul.prepare(args);
  if (auto kernel = prepare_cublaslt_matmul(args, packed_of(args), prepare_back)) return kernel;
  return prepare_back(args);
}

std::vector<std::string> algorithms(const PrepareArgs& args) {
  if (!args.packed) return {};
  const auto kernel = prepare_cublaslt_matmul(args, packed_of(args), prepare_back);
  return kernel ? kernel->algorithms() : std::vector<std::string>{};
}

}  // namespace

extern const KernelDef cublaslt_turned_matmul;
const KernelDef cublaslt_turned_matmul = {
    .name = "cublaslt_turned_matmul",
    .op = "MatMul",
    .refuse = refuse,
    .prepare = prepare,
    .pack = pack,
    .packed_bytes = packed_bytes,
    .packs_operand = [](const OpCall&, std::size_t operand) { return operand == kMatMulB; },
    .rank = 6,  // which of the two is faster timing finds
    .library = "cublaslt",
    .device = "cuda",
    .algorithms = algorithms,
};

}  // namespace tandem::kernels
