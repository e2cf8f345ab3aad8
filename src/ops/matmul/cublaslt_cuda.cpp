#include "ops/matmul/cublaslt_cuda.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <mutex>

#include "core/check.h"
#include "device/cuda/library.h"

namespace tandem::cuda {

const CublasLt& cublaslt() {
  static const CublasLt functions = [] {
    const Library& l = library(Which::cublaslt);
    return CublasLt{
        .create = l.function<decltype(cublasLtCreate)>("cublasLtCreate"),
        .matmul = l.function<decltype(cublasLtMatmul)>("cublasLtMatmul"),
        .heuristic = l.function<decltype(cublasLtMatmulAlgoGetHeuristic)>("cublasLtMatmulAlgoGetHeuristic"),
        .config_of = l.function<decltype(cublasLtMatmulAlgoConfigGetAttribute)>("cublasLtMatmulAlgoConfigGetAttribute"),
        .make_desc = l.function<decltype(cublasLtMatmulDescCreate)>("cublasLtMatmulDescCreate"),
        .free_desc = l.function<decltype(cublasLtMatmulDescDestroy)>("cublasLtMatmulDescDestroy"),
        .set_desc = l.function<decltype(cublasLtMatmulDescSetAttribute)>("cublasLtMatmulDescSetAttribute"),
        .make_layout = l.function<decltype(cublasLtMatrixLayoutCreate)>("cublasLtMatrixLayoutCreate"),
        .free_layout = l.function<decltype(cublasLtMatrixLayoutDestroy)>("cublasLtMatrixLayoutDestroy"),
        .set_layout = l.function<decltype(cublasLtMatrixLayoutSetAttribute)>("cublasLtMatrixLayoutSetAttribute"),
        .make_preference = l.function<decltype(cublasLtMatmulPreferenceCreate)>("cublasLtMatmulPreferenceCreate"),
        .free_preference = l.function<decltype(cublasLtMatmulPreferenceDestroy)>("cublasLtMatmulPreferenceDestroy"),
        .set_preference = l.function<decltype(cublasLtMatmulPreferenceSetAttribute)>("cublasLtMatmulPreferenceSetAttribute"),
    };
  }();
  return functions;
}

cublasLtHandle_t cublaslt_handle(int ordinal) {
  static std::mutex mutex;
  static std::map<int, cublasLtHandle_t> handles;
  const std::lock_guard lock(mutex);
  cublasLtHandle_t& handle = handles[ordinal];
  if (!handle) check_cublas(cublaslt().create(&handle), "starting it");
  return handle;
}

void check_cublas(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  fail(status == CUBLAS_STATUS_ALLOC_FAILED ? ErrorCode::out_of_memory : ErrorCode::internal, "cuBLASLt {}: {}: status {}",
       library(Which::cublaslt).version(), what, static_cast<int>(status));
}

cudaDataType cuda_type(DType dtype) {
  switch (dtype) {
    case DType::f16: return CUDA_R_16F;
    case DType::bf16: return CUDA_R_16BF;
    case DType::f32: return CUDA_R_32F;
    case DType::f64: return CUDA_R_64F;
    case DType::f8e4m3: return CUDA_R_8F_E4M3;
    case DType::f8e5m2: return CUDA_R_8F_E5M2;
    case DType::i8: return CUDA_R_8I;
    case DType::i32: return CUDA_R_32I;
    default: fail(ErrorCode::internal, "cuBLASLt is not given {}", to_string(dtype));
  }
}

LtLayout make_layout(DType dtype, std::int64_t rows, std::int64_t columns, std::int64_t count, std::int64_t stride) {
  cublasLtMatrixLayout_t layout = nullptr;
  check_cublas(
      cublaslt().make_layout(&layout, cuda_type(dtype), static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(columns), rows),
      "describing a matrix");
  LtLayout owned(layout);
  const auto batch = static_cast<std::int32_t>(count);
  check_cublas(cublaslt().set_layout(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch), "describing a matrix");
  check_cublas(cublaslt().set_layout(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride), "describing a matrix");
  return owned;
}

std::string algorithm_words(const cublasLtMatmulAlgo_t& algorithm) {
  static constexpr std::pair<const char*, cublasLtMatmulAlgoConfigAttributes_t> kParts[] = {
      {"id", CUBLASLT_ALGO_CONFIG_ID},
      {"tile", CUBLASLT_ALGO_CONFIG_TILE_ID},
      {"stages", CUBLASLT_ALGO_CONFIG_STAGES_ID},
      {"splits", CUBLASLT_ALGO_CONFIG_SPLITK_NUM},
      {"reduction", CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME},
      {"swizzle", CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING},
      {"custom", CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION},
      {"inner", CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID},
      {"cluster", CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID},
  };
  std::string words;
  for (const auto& [name, attribute] : kParts) {
    std::array<std::byte, 8> value{};
    std::size_t size = 0;
    if (cublaslt().config_of(&algorithm, attribute, value.data(), value.size(), &size) != CUBLAS_STATUS_SUCCESS) continue;
    std::uint64_t number = 0;  // of two or four bytes
    std::memcpy(&number, value.data(), std::min(size, sizeof number));
    if (number != 0) words += fmt::format("{}{}={}", words.empty() ? "" : " ", name, number);
  }
  return words;
}

namespace {

constexpr int kMostAlgorithms = 16;  // that the library is asked for where one of them is to be chosen

// Best first; none if the library has none.
std::vector<LtAlgorithm> find_algorithms(const LtProduct& product, int most) {
  cublasLtMatmulPreference_t made = nullptr;
  check_cublas(cublaslt().make_preference(&made), "saying what algorithms may need");
  const LtPreference preference(made);
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, product.most_workspace);
  // Partial sums are not rounded to 16 bits, and are added in one order.
  set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, product.first_alignment);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, product.second_alignment);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, product.result_alignment);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, product.result_alignment);
  std::vector<LtAlgorithm> found(static_cast<std::size_t>(most));
  int count = 0;
  const cublasStatus_t status =
      cublaslt().heuristic(product.handle, product.desc.get(), product.first.get(), product.second.get(), product.result.get(),
                           product.result.get(), preference.get(), most, found.data(), &count);
  found.resize(status == CUBLAS_STATUS_SUCCESS ? static_cast<std::size_t>(count) : 0);
  std::erase_if(found, [](const LtAlgorithm& result) { return result.state != CUBLAS_STATUS_SUCCESS; });
  return found;
}

}  // namespace

std::optional<LtAlgorithm> choose_algorithm(const LtProduct& product, std::string_view words) {
  const auto found = find_algorithms(product, words.empty() ? 1 : kMostAlgorithms);
  if (found.empty()) return std::nullopt;
  const auto chosen = std::ranges::find_if(found, [&](const LtAlgorithm& result) { return algorithm_words(result.algo) == words; });
  return chosen == found.end() ? found.front() : *chosen;
}

std::vector<std::string> words_of_algorithms(const LtProduct& product) {
  std::vector<std::string> words;
  for (const LtAlgorithm& found : find_algorithms(product, kMostAlgorithms)) words.push_back(algorithm_words(found.algo));
  return words;
}

LtDesc make_desc(DType dtype, bool tf32) {
  cublasLtMatmulDesc_t desc = nullptr;
  const bool wide = dtype == DType::f64, whole = dtype == DType::i32, rounds = tf32 && dtype == DType::f32;
  const cublasComputeType_t compute = wide     ? CUBLAS_COMPUTE_64F
                                      : whole  ? CUBLAS_COMPUTE_32I
                                      : rounds ? CUBLAS_COMPUTE_32F_FAST_TF32
                                               : CUBLAS_COMPUTE_32F;
  check_cublas(cublaslt().make_desc(&desc, compute, wide ? CUDA_R_64F : whole ? CUDA_R_32I : CUDA_R_32F), "describing a product");
  return LtDesc(desc);
}

}  // namespace tandem::cuda
