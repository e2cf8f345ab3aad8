// cuBLASLt as our matrix kernels use it: its functions, found when the program runs, and its objects with owners.
#pragma once

#include <cublasLt.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "tandem/types.h"

namespace tandem::cuda {

struct CublasLt {
  decltype(cublasLtCreate)* create;
  decltype(cublasLtMatmul)* matmul;
  decltype(cublasLtMatmulAlgoGetHeuristic)* heuristic;
  decltype(cublasLtMatmulAlgoConfigGetAttribute)* config_of;
  decltype(cublasLtMatmulDescCreate)* make_desc;
  decltype(cublasLtMatmulDescDestroy)* free_desc;
  decltype(cublasLtMatmulDescSetAttribute)* set_desc;
  decltype(cublasLtMatrixLayoutCreate)* make_layout;
  decltype(cublasLtMatrixLayoutDestroy)* free_layout;
  decltype(cublasLtMatrixLayoutSetAttribute)* set_layout;
  decltype(cublasLtMatmulPreferenceCreate)* make_preference;
  decltype(cublasLtMatmulPreferenceDestroy)* free_preference;
  decltype(cublasLtMatmulPreferenceSetAttribute)* set_preference;
};

// Throws Error(unsupported) where there is no cuBLASLt.
const CublasLt& cublaslt();
// One per GPU and process, made on first use and kept. The GPU must be the thread's current one.
cublasLtHandle_t cublaslt_handle(int ordinal);
// Throws Error(internal | out_of_memory) saying what was tried.
void check_cublas(cublasStatus_t status, const char* what);

struct FreeCublasLt {
  void operator()(cublasLtMatmulDescOpaque_t* p) const { cublaslt().free_desc(p); }
  void operator()(cublasLtMatrixLayoutOpaque_t* p) const { cublaslt().free_layout(p); }
  void operator()(cublasLtMatmulPreferenceOpaque_t* p) const { cublaslt().free_preference(p); }
};
using LtDesc = std::unique_ptr<cublasLtMatmulDescOpaque_t, FreeCublasLt>;
using LtLayout = std::unique_ptr<cublasLtMatrixLayoutOpaque_t, FreeCublasLt>;
using LtPreference = std::unique_ptr<cublasLtMatmulPreferenceOpaque_t, FreeCublasLt>;

cudaDataType cuda_type(DType dtype);  // f16, bf16, f32, f64, 8-bit floats, i8, i32
// Column-major, dense; `count` matrices `stride` elements apart.
LtLayout make_layout(DType dtype, std::int64_t rows, std::int64_t columns, std::int64_t count, std::int64_t stride);

// A product as the library is asked about it, in its own order: first · second = result. Alignments in bytes, of the addresses to come.
struct LtProduct {
  cublasLtHandle_t handle;
  const LtDesc& desc;
  const LtLayout &first, &second, &result;
  std::uint32_t first_alignment, second_alignment, result_alignment;
  std::size_t most_workspace;
};
using LtAlgorithm = cublasLtMatmulHeuristicResult_t;
// Of compute capability sm / 10, in bytes.
inline std::size_t most_workspace_of(int sm) { return sm >= 90 ? 32 << 20 : 8 << 20; }
// The one of these words, if the library has it; else its best; nothing if it has none.
std::optional<LtAlgorithm> choose_algorithm(const LtProduct& product, std::string_view words);
// The words of those that there are to choose from, best first.
std::vector<std::string> words_of_algorithms(const LtProduct& product);
// Its configuration, "id=66 tile=18 stages=36 cluster=2": tells it from the others that one version of the library proposes for one call.
std::string algorithm_words(const cublasLtMatmulAlgo_t& algorithm);
LtDesc make_desc(DType dtype,
                 bool tf32 = false);  // sums in f32, or in f64 for f64, in i32 for i32; `tf32`: operands of f32 are rounded to it

template <typename T>
void set(const LtDesc& desc, cublasLtMatmulDescAttributes_t which, const T& value) {
  check_cublas(cublaslt().set_desc(desc.get(), which, &value, sizeof value), "describing a product");
}
template <typename T>
void set(const LtPreference& preference, cublasLtMatmulPreferenceAttributes_t which, const T& value) {
  check_cublas(cublaslt().set_preference(preference.get(), which, &value, sizeof value), "saying what algorithms may need");
}

}  // namespace tandem::cuda
