// QuantMatMul by cuBLASLt, whose tensor cores multiply codes as they are. Our row-major matrices are its column-major ones transposed, so
// that it is given yᵀ = bᵀ·aᵀ; of both it wants the elements of a sum side by side, so that b is kept transposed.
#include <algorithm>
#include <limits>
#include <optional>

#include "core/check.h"
#include "core/numeric.h"
#include "device/cuda/library.h"
#include "device/cuda/runtime.h"
#include "ops/kernel.h"
#include "ops/matmul/cublaslt_cuda.h"
#include "ops/matmul/finish_cuda.h"
#include "ops/quantize/dequant_problem.h"
#include "ops/quantize/quant_matmul_cuda.h"
#include "ops/turned_cuda.h"

namespace tandem::kernels {

extern const KernelDef cuda_quant_matmul;

namespace {

using namespace cuda;

constexpr std::int64_t kAlignment = 16;      // of what it reads and writes, and so of rows of codes
constexpr std::int64_t kMostDepth = 131071;  // products of i8 that i32 has room to add
constexpr std::int64_t kPieceRows = 256;     // that are copied at a time where memory is not aligned
constexpr int kFirstWithSmallFloats = 89;

bool fits(const std::byte* address) { return reinterpret_cast<std::uintptr_t>(address) % kAlignment == 0; }

int current_sm() {
  int device = 0, major = 0, minor = 0;
  cuda::check(cudaGetDevice(&device), "finding the GPU");
  cuda::check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "asking a GPU for its kind");
  cuda::check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "asking a GPU for its kind");
  return major * 10 + minor;
}

class CublasLtQuantMatMul final : public PreparedKernel {
 public:
  explicit CublasLtQuantMatMul(const PrepareArgs& args)
      : p_(dequant_problem(args.call)),
        b_codes_(static_cast<const PackedBlock&>(*args.packed)),
        sums_(is_integer(p_.a) ? DType::i32 : DType::f32) {
    const auto& device = static_cast<const CudaDevice&>(*args.device);
    handle_ = cublaslt_handle(device.ordinal());
    most_workspace_ = most_workspace_of(device.sm());
    scales_inside_ = sums_ == DType::f32 && p_.scale_column == 0 && p_.scale == DType::f32 && p_.scale_a == DType::f32;
    const bool aligned_bias = args.weights.size() > kDequantBias && args.weights[kDequantBias];
    bias_inside_ = scales_inside_ && p_.bias && aligned_bias && p_.type != DType::f32;
    result_ = scales_inside_ ? p_.type : sums_;
    describe();
    whole_ = cut(p_.m, args.algorithm);
    piece_ = cut(std::min(p_.m, kPieceRows), {});
    lay_out_workspace();
  }

  // Whether cuBLASLt has an algorithm for it.
  bool is_able() const { return whole_.algorithm && piece_.algorithm; }

  std::vector<std::string> algorithms() const { return words_of_algorithms(product(whole_)); }

  std::size_t workspace_bytes() const override { return workspace_bytes_; }

  void run(const RunArgs& args) const override {
    if (scales_inside_) {
      set(desc_, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, aligned_scale(args, kDequantScale, scales_at_));
      set(desc_, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, aligned_scale(args, kQuantScaleA, scales_at_ + kAlignment));
    }
    if (bias_inside_) set(desc_, CUBLASLT_MATMUL_DESC_BIAS_POINTER, args.operands[kDequantBias]);
    if (fits(args.operands[kDequantA]) && (!scales_inside_ || fits(args.results[0]))) return run_rows(args, whole_, 0);
    // The last piece does some rows again.
    for (std::int64_t row = 0; row < p_.m; row += piece_.rows) run_rows(args, piece_, std::min(row, p_.m - piece_.rows));
  }

 private:
  // That many rows of a and of the result.
  struct Cut {
    std::int64_t rows = 0;
    LtLayout a, c;
    std::optional<LtAlgorithm> algorithm;
  };

  void describe() {
    desc_ = make_desc(sums_);
    set(desc_, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    if (bias_inside_) set(desc_, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    b_ = make_layout(p_.b, p_.k, p_.n, 1, 0);
  }

  Cut cut(std::int64_t rows, std::string_view words) const {
    Cut cut{rows, make_layout(p_.a, p_.k, rows, 1, 0), make_layout(result_, p_.n, rows, 1, 0), std::nullopt};
    cut.algorithm = choose_algorithm(product(cut), words);
    return cut;
  }

  LtProduct product(const Cut& cut) const {
    // Only the alignment of these addresses matters here; run() puts the real ones in their place.
    const auto* anywhere = reinterpret_cast<const void*>(kAlignment);
    if (bias_inside_) set(desc_, CUBLASLT_MATMUL_DESC_BIAS_POINTER, anywhere);
    if (scales_inside_) {
      set(desc_, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, anywhere);
      set(desc_, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, anywhere);
    }
    return {handle_, desc_, b_, cut.a, cut.c, kAlignment, kAlignment, kAlignment, most_workspace_};
  }

  // The library's, then sums (of a piece, where the result itself takes the whole), then a piece of a.
  void lay_out_workspace() {
    const auto place = [this](std::size_t size) {
      const std::size_t here = workspace_bytes_;
      workspace_bytes_ += static_cast<std::size_t>(round_up(static_cast<std::int64_t>(size), 256));
      return here;
    };
    for (const Cut* cut : {&whole_, &piece_})
      if (cut->algorithm) library_bytes_ = std::max(library_bytes_, cut->algorithm->workspaceSize);
    place(library_bytes_);
    c_at_ = place(bytes(result_, (scales_inside_ ? piece_.rows : p_.m) * p_.n));
    a_at_ = place(bytes(p_.a, piece_.rows * p_.k));
    scales_at_ = place(2 * kAlignment);
  }

  // The library refuses scales that are not aligned either.
  static const std::byte* aligned_scale(const RunArgs& args, std::size_t operand, std::size_t at) {
    const std::byte* scale = args.operands[operand];
    if (fits(scale)) return scale;
    copy(args.workspace + at, scale, sizeof(float), handle_of(args.stream));
    return args.workspace + at;
  }

  // cut.rows rows from `row` on, through copies where they do not begin where the library wants them.
  void run_rows(const RunArgs& args, const Cut& cut, std::int64_t row) const {
    const cudaStream_t stream = handle_of(args.stream);
    const std::byte* a = args.operands[kDequantA] + bytes(p_.a, row * p_.k);
    if (!fits(a)) {
      copy(args.workspace + a_at_, a, bytes(p_.a, cut.rows * p_.k), stream);
      a = args.workspace + a_at_;
    }
    const std::size_t at = bytes(p_.type, row * p_.n);
    std::byte* y = args.results[0] + at;
    std::byte* c = scales_inside_ && fits(y) ? y : args.workspace + c_at_;
    multiply(a, b_codes_.in(args), c, cut, args.workspace, stream);
    const std::byte* bias = p_.bias && !bias_inside_ ? args.operands[kDequantBias] : nullptr;
    const std::byte* residual = p_.residual ? args.operands[kDequantResidual] + at : nullptr;
    if (!scales_inside_) {
      launch_finish_codes({.sums = c,
                           .scale_a = args.operands[kQuantScaleA],
                           .scale = args.operands[kDequantScale],
                           .bias = bias,
                           .residual = residual,
                           .y = y,
                           .count = cut.rows * p_.n,
                           .columns = p_.n,
                           .scale_step = p_.scale_column,
                           .sums_type = sums_,
                           .type = p_.type,
                           .scale_a_type = p_.scale_a,
                           .scale_type = p_.scale,
                           .activation = p_.activation},
                          stream);
    } else {
      if (p_.activation != Activation::none || bias || residual)
        launch_finish(p_.type, p_.activation, c, bias, residual, cut.rows * p_.n, p_.n, stream);
      if (c != y) copy(y, c, bytes(p_.type, cut.rows * p_.n), stream);
    }
    check_launch("finishing a product");
  }

  void multiply(const std::byte* a, const std::byte* b, std::byte* c, const Cut& cut, std::byte* workspace, cudaStream_t stream) const {
    const float one = 1, none = 0;
    const std::int32_t whole_one = 1, whole_none = 0;
    const bool whole = sums_ == DType::i32;
    const void *alpha = whole ? static_cast<const void*>(&whole_one) : &one, *beta = whole ? static_cast<const void*>(&whole_none) : &none;
    check_cublas(cublaslt().matmul(handle_, desc_.get(), alpha, b, b_.get(), a, cut.a.get(), beta, c, cut.c.get(), c, cut.c.get(),
                                   &cut.algorithm->algo, workspace, cut.algorithm->workspaceSize, stream),
                 "a product of codes");
  }

  static void copy(std::byte* to, const std::byte* from, std::size_t size, cudaStream_t stream) {
    cuda::check(cudaMemcpyAsync(to, from, size, cudaMemcpyDeviceToDevice, stream), "copying rows of a product");
  }

  DequantProblem p_;
  const PackedBlock& b_codes_;        // as [n, k]
  DType sums_, result_ = DType::f32;  // of the sums; of what cuBLASLt writes
  cublasLtHandle_t handle_ = nullptr;
  std::size_t most_workspace_ = 0, library_bytes_ = 0, c_at_ = 0, a_at_ = 0, scales_at_ = 0, workspace_bytes_ = 0;
  bool scales_inside_ = false, bias_inside_ = false;
  LtDesc desc_;
  LtLayout b_;
  Cut whole_, piece_;
};

TurnedFormat format_of(const OpCall& call) {
  const Shape b = shape_of(call.operand(kDequantB));
  return {kDequantB, b[0], b[1], 1};
}

std::optional<std::string> refuse(const OpCall& call, bool floats) {
  std::string why;
  if (!find_library(Which::cublaslt, &why)) return "cuBLASLt cannot be used: " + why;
  const DType a = call.operand(kDequantA).dtype, b = call.operand(kDequantB).dtype;
  if (is_float(a) != floats) return floats ? "it multiplies 8-bit floats only" : "it multiplies i8 only";
  if (a == DType::f8e5m2 && b == DType::f8e5m2) return "cuBLASLt has no product of two f8e5m2";
  return dequant_refusal(call);
}

// A matrix that cuBLASLt multiplies on this GPU.
bool is_able(const OpCall& call, int sm) {
  const Shape b = shape_of(call.operand(kDequantB));
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  if (b[0] == 0 || b[1] == 0 || b[0] % kAlignment != 0 || b[1] % kAlignment != 0 || b[0] > kMost || b[1] > kMost) return false;
  return is_integer(call.operand(kDequantA).dtype) ? b[0] <= kMostDepth : sm >= kFirstWithSmallFloats;
}

std::size_t packed_bytes(const OpCall& call, std::span<const std::byte* const> weights) {
  if (weights.size() <= kDequantB || !weights[kDequantB] || !is_able(call, current_sm())) return 0;
  return format_of(call).size_bytes();
}

// b as [n, k].
std::unique_ptr<Packed> pack(const OpCall& call, std::span<const std::byte* const> weights) {
  if (packed_bytes(call, weights) == 0) return nullptr;
  return turned(weights[kDequantB], format_of(call));
}

bool packs_operand(const OpCall&, std::size_t operand) { return operand == kDequantB; }

// Null for calls that cuBLASLt does not do.
std::unique_ptr<CublasLtQuantMatMul> prepare_own(const PrepareArgs& args) {
  cublaslt();  // says what is missing before anything else
  const std::int64_t m = dequant_problem(args.call).m;
  if (!args.packed || m == 0 || m > std::numeric_limits<std::int32_t>::max()) return nullptr;
  auto kernel = std::make_unique<CublasLtQuantMatMul>(args);
  return kernel->is_able() ? std::move(kernel) : nullptr;
}

std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  if (auto kernel = prepare_own(args)) return kernel;
  return args.packed ? turn_back(format_of(args.call), args, cuda_quant_matmul.prepare) : cuda_quant_matmul.prepare(args);
}

std::vector<std::string> algorithms(const PrepareArgs& args) {
  const auto kernel = prepare_own(args);
  return kernel ? kernel->algorithms() : std::vector<std::string>{};
}

}  // namespace

extern const KernelDef cublaslt_fp8_matmul, cublaslt_int8_matmul;
const KernelDef cublaslt_fp8_matmul = {
    .name = "cublaslt_fp8_matmul",
    .op = "QuantMatMul",
    .refuse = [](const OpCall& call) { return refuse(call, true); },
    .prepare = prepare,
    .pack = pack,
    .packed_bytes = packed_bytes,
    .packs_operand = packs_operand,
    .library = "cublaslt",
    .weaker = "tensor cores add products of 8-bit floats with fewer bits than f32 has",
    .device = "cuda",
    .algorithms = algorithms,
};
const KernelDef cublaslt_int8_matmul = {
    .name = "cublaslt_int8_matmul",
    .op = "QuantMatMul",
    .refuse = [](const OpCall& call) { return refuse(call, false); },
    .prepare = prepare,
    .pack = pack,
    .packed_bytes = packed_bytes,
    .packs_operand = packs_operand,
    .library = "cublaslt",
    .device = "cuda",
    .algorithms = algorithms,
};

}  // namespace tandem::kernels
