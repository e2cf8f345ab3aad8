// MatMul by cuBLASLt. Our row-major matrices are its column-major ones transposed, so c = a·b is given to it as cᵀ = bᵀ·aᵀ.
#include "ops/matmul/cublaslt_matmul_cuda.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "core/check.h"
#include "device/cuda/library.h"
#include "device/cuda/runtime.h"
#include "ops/matmul/finish_cuda.h"
#include "ops/matmul/matmul_cuda.h"

namespace tandem::kernels {

using namespace cuda;

namespace {

constexpr std::int64_t kMostProducts = 65535;  // of one call

}  // namespace

CublasLtMatMul::CublasLtMatMul(const PrepareArgs& args, const PackedBlock* turned,
                               std::unique_ptr<PreparedKernel> (*plain)(const PrepareArgs&))
    : p_(matmul_problem(args.call)), turned_(turned), batches_(batches_of(p_, kMostProducts)) {
  const auto& device = static_cast<const CudaDevice&>(*args.device);
  handle_ = cublaslt_handle(device.ordinal());
  split_epilogue();
  describe(args.tf32);
  most_workspace_ = most_workspace_of(device.sm());
  aligned_ = choose_algorithm(product(kWideAlignment), args.algorithm);
  if (!aligned_) return;
  anywhere_ = choose_algorithm(product(static_cast<std::int64_t>(bytes(p_.dtype, 1))), {});
  if (!anywhere_) plain_ = plain(args);
}

std::size_t CublasLtMatMul::workspace_bytes() const {
  return std::max(aligned_->workspaceSize, plain_ ? plain_->workspace_bytes() : anywhere_->workspaceSize);
}

void CublasLtMatMul::run(const RunArgs& args) const {
  const cudaStream_t stream = handle_of(args.stream);
  const bool wide_moves = fits(args.results[0]) && std::ranges::all_of(args.operands, fits);  // what is not there is at 0
  if (!wide_moves && plain_) return plain_->run(args);
  const LtAlgorithm& chosen = wide_moves ? *aligned_ : *anywhere_;
  if (bias_inside_) set(desc_, CUBLASLT_MATMUL_DESC_BIAS_POINTER, args.operands[kMatMulBias]);
  const auto at = [this](std::int64_t elements) { return static_cast<std::size_t>(bytes(p_.dtype, elements)); };
  const std::byte* all_b = turned_ ? turned_->in(args) : args.operands[kMatMulB];
  const float one = 1, added = residual_inside_ ? 1 : 0;
  const double wide_one = 1, wide_added = added;
  const bool wide = p_.dtype == DType::f64;
  for (const MatMulProblem::Offsets& first : batches_.first) {
    const std::byte *a = args.operands[kMatMulA] + at(first.a), *b = all_b + at(first.b);
    std::byte* c = args.results[0] + at(first.c);
    const std::byte* add = residual_inside_ ? args.operands[kMatMulResidual] + at(first.c) : c;
    check_cublas(cublaslt().matmul(handle_, desc_.get(), wide ? static_cast<const void*>(&wide_one) : &one, b, b_.get(), a, a_.get(),
                                   wide ? static_cast<const void*>(&wide_added) : &added, add, c_.get(), c, c_.get(), &chosen.algo,
                                   args.workspace, chosen.workspaceSize, stream),
                 "a product");
  }
  if (finish_ == Activation::none && !bias_after_ && !residual_after_) return;
  const auto count = static_cast<std::int64_t>(p_.products.size()) * p_.m * p_.n;
  launch_finish(p_.dtype, finish_, args.results[0], bias_after_ ? args.operands[kMatMulBias] : nullptr,
                residual_after_ ? args.operands[kMatMulResidual] : nullptr, count, p_.n, stream);
  check_launch("finishing a product");
}

// What cuBLASLt does after the sums, and what a kernel of ours does after it. Its GELU is the tanh form, with a tanh that is good enough
// for 16-bit results; what its ReLU does with NaN is not documented. An addend inside is added before the activation, so the residual
// may be inside only where there is none.
void CublasLtMatMul::split_epilogue() {
  const bool wide = p_.dtype == DType::f64;
  gelu_inside_ = p_.activation == Activation::gelu_tanh && (p_.dtype == DType::f16 || p_.dtype == DType::bf16);
  finish_ = gelu_inside_ ? Activation::none : p_.activation;
  bias_inside_ = p_.bias && !wide;
  bias_after_ = p_.bias && wide;
  residual_inside_ = p_.residual && p_.activation == Activation::none && !bias_after_;
  residual_after_ = p_.residual && !residual_inside_;
}

void CublasLtMatMul::describe(bool tf32) {
  desc_ = make_desc(p_.dtype, tf32);
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  if (bias_inside_) epilogue = gelu_inside_ ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_BIAS;
  else if (gelu_inside_) epilogue = CUBLASLT_EPILOGUE_GELU;
  set(desc_, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
  if (turned_) set(desc_, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  b_ = turned_ ? make_layout(p_.dtype, p_.k, p_.n, 1, 0) : make_layout(p_.dtype, p_.n, p_.k, batches_.count, batches_.b_stride);
  a_ = make_layout(p_.dtype, p_.k, p_.m, batches_.count, batches_.a_stride);
  c_ = make_layout(p_.dtype, p_.n, p_.m, batches_.count, p_.m * p_.n);
}

// For operands and results that begin at multiples of `alignment` bytes.
LtProduct CublasLtMatMul::product(std::int64_t alignment) const {
  // The bias is known by the alignment of an address; run() puts the real one in its place.
  if (bias_inside_) set(desc_, CUBLASLT_MATMUL_DESC_BIAS_POINTER, reinterpret_cast<const void*>(alignment));
  auto a = static_cast<std::uint32_t>(alignment), b = a, c = a;
  const auto within = [this](std::uint32_t so_far, std::int64_t elements) {
    return static_cast<std::uint32_t>(std::gcd(std::size_t{so_far}, bytes(p_.dtype, elements)));
  };
  for (const MatMulProblem::Offsets& first : batches_.first) a = within(a, first.a), b = within(b, first.b), c = within(c, first.c);
  return {handle_, desc_, b_, a_, c_, b, a, c, most_workspace_};
}

std::unique_ptr<CublasLtMatMul> prepare_cublaslt_matmul(const PrepareArgs& args, const PackedBlock* turned,
                                                        std::unique_ptr<PreparedKernel> (*plain)(const PrepareArgs&)) {
  cublaslt();  // says what is missing before anything else
  const MatMulProblem p = matmul_problem(args.call);
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();  // extents of its matrices
  if (p.m == 0 || p.n == 0 || p.k == 0 || p.products.empty() || p.m > kMost || p.n > kMost || p.k > kMost) return nullptr;
  auto kernel = std::make_unique<CublasLtMatMul>(args, turned, plain);
  return kernel->is_able() ? std::move(kernel) : nullptr;
}

std::optional<std::string> cublaslt_matmul_refusal(const OpCall& call) {
  std::string why;
  if (!find_library(Which::cublaslt, &why)) return "cuBLASLt cannot be used: " + why;
  const DType dtype = call.results.at(0).dtype;
  if (dtype != DType::f16 && dtype != DType::bf16 && dtype != DType::f32 && dtype != DType::f64)
    return "it multiplies f16, bf16, f32 and f64 only";
  return std::nullopt;
}

namespace {

std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  if (auto kernel = prepare_cublaslt_matmul(args, nullptr, prepare_cuda_matmul)) return kernel;
  return prepare_cuda_matmul(args);
}

std::vector<std::string> algorithms(const PrepareArgs& args) {
  const auto kernel = prepare_cublaslt_matmul(args, nullptr, prepare_cuda_matmul);
  return kernel ? kernel->algorithms() : std::vector<std::string>{};
}

}  // namespace

extern const KernelDef cublaslt_matmul;
const KernelDef cublaslt_matmul = {
    .name = "cublaslt_matmul",
    .op = "MatMul",
    .refuse = cublaslt_matmul_refusal,
    .prepare = prepare,
    .library = "cublaslt",
    .device = "cuda",
    .algorithms = algorithms,
};

}  // namespace tandem::kernels
