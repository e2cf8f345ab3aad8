// What the writer and the reader of engine files agree on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "core/check.h"
#include "core/numeric.h"
#include "core/stored_bytes.h"
#include "plan/plan.h"

namespace tandem {

inline constexpr std::int64_t kPage = 4096;          // the data starts on one, and so does every slice of kPagedBytes or more
inline constexpr std::int64_t kSliceAlignment = 64;  // of smaller slices
inline constexpr std::int64_t kPagedBytes = 16 * kPage;
inline constexpr std::size_t kMetadataLimit = 64 << 10;  // bytes of all keys and values
inline constexpr std::string_view kPlanTensor = ".tandem/plan";
inline constexpr std::string_view kOwnPrefix = ".tandem/";
inline constexpr std::string_view kPadPrefix = ".pad/";
inline std::string code_tensor(std::size_t index) { return fmt::format(".tandem/kernel/{}", index); }  // of Plan::code

inline constexpr const char* kFormatKey = "tandem.format";
inline constexpr const char* kDigestKey = "tandem.digest";            // of the header, computed with sixteen zeros in its place
inline constexpr const char* kPlanDigestKey = "tandem.plan_digest";   // of the bytes of the plan
inline constexpr const char* kFingerprintKey = "tandem.fingerprint";  // what ranks compare: digest(plan)
inline constexpr const char* kDeviceKey = "tandem.device";
inline constexpr const char* kMeshKey = "tandem.mesh";
inline constexpr const char* kWeightsKey = "tandem.weights";  // "all" or "frozen"

// How a slice is stored: safetensors has no 4-bit types, so they lie packed in bytes and the plan knows their type.
inline std::pair<DType, Shape> stored_type(const PlanWeight& weight) {
  if (bits(weight.dtype) >= 8) return {weight.dtype, weight.shape};
  return {DType::u8, {static_cast<std::int64_t>(stored_bytes(weight.dtype, element_count(weight.shape)))}};
}

// The first rank of each distinct slice.
inline std::vector<int> slice_ranks(const PlanWeight& weight, const Mesh& mesh) {
  std::vector<int> ranks = {0};
  for (const std::string& axis : weight.axes) {
    std::vector<int> more;
    for (const int rank : ranks)
      for (const int member : mesh.group(rank, axis)) more.push_back(member);
    ranks = std::move(more);
  }
  return ranks;
}

inline std::int64_t slice_alignment(std::int64_t size) { return size >= kPagedBytes ? kPage : kSliceAlignment; }

inline std::string hex_digest(std::uint64_t digest) { return fmt::format("{:016x}", digest); }

}  // namespace tandem
