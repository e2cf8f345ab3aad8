// MatMul by cuBLASLt, for what prepares it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "ops/kernel.h"
#include "ops/matmul/cublaslt_cuda.h"
#include "ops/matmul/products_cuda.h"
#include "ops/packed_cuda.h"

namespace tandem::kernels {

class CublasLtMatMul final : public PreparedKernel {
 public:
  // `turned`: b [k, n], one matrix, as [n, k]; null: it is an operand. `plain`: for operands without the alignment that cuBLASLt asks for,
  // made where that is needed.
  CublasLtMatMul(const PrepareArgs& args, const PackedBlock* turned, std::unique_ptr<PreparedKernel> (*plain)(const PrepareArgs&));

  std::vector<std::string> algorithms() const { return cuda::words_of_algorithms(product(kWideAlignment)); }
  // Whether cuBLASLt has an algorithm for it.
  bool is_able() const { return aligned_.has_value(); }
  std::size_t workspace_bytes() const override;
  void run(const RunArgs& args) const override;

 private:
  static constexpr std::int64_t kWideAlignment = 16;  // of what the faster algorithms read

  static bool fits(const std::byte* address) { return reinterpret_cast<std::uintptr_t>(address) % kWideAlignment == 0; }
  void split_epilogue();
  void describe(bool tf32);
  cuda::LtProduct product(std::int64_t alignment) const;

  MatMulProblem p_;
  const PackedBlock* turned_;
  ProductBatches batches_;
  cublasLtHandle_t handle_ = nullptr;
  std::size_t most_workspace_ = 0;
  bool gelu_inside_ = false, bias_inside_ = false, bias_after_ = false, residual_inside_ = false, residual_after_ = false;
  Activation finish_ = Activation::none;
  cuda::LtDesc desc_;
  cuda::LtLayout a_, b_, c_;
  std::optional<cuda::LtAlgorithm> aligned_, anywhere_;
  std::unique_ptr<PreparedKernel> plain_;
};

// Null for calls that cuBLASLt does not do.
std::unique_ptr<CublasLtMatMul> prepare_cublaslt_matmul(const PrepareArgs& args, const PackedBlock* turned,
                                                        std::unique_ptr<PreparedKernel> (*plain)(const PrepareArgs&));
// Null where cuBLASLt multiplies that type here.
std::optional<std::string> cublaslt_matmul_refusal(const OpCall& call);

}  // namespace tandem::kernels
