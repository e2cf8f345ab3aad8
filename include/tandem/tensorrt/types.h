// The plain types of tandem/tensorrt.h: enumerations with TensorRT's words and numbers, extents, weights, logger. Public.
#pragma once

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>

#include "tandem/error.h"
#include "tandem/types.h"

namespace nvinfer1 {

enum class CollectiveOperation : std::int32_t {
  kALL_REDUCE,
  kALL_GATHER,
  kBROADCAST,
  kREDUCE,
  kREDUCE_SCATTER,
  kALL_TO_ALL,
  kGATHER,
  kSCATTER
};
enum class ReduceOperation : std::int32_t { kSUM, kPROD, kMAX, kMIN, kAVG, kNONE };
enum class AttentionNormalizationOp : std::int32_t { kNONE, kSOFTMAX };
enum class CausalMaskKind : std::int32_t { kNONE, kUPPER_LEFT, kLOWER_RIGHT };
enum class NetworkDefinitionCreationFlag : std::int32_t { kEXPLICIT_BATCH, kSTRONGLY_TYPED };
enum class BuilderFlag : std::int32_t { kREFIT = 4, kTF32 = 7, kSTRIP_PLAN = 19, kWEIGHT_STREAMING = 21, kSTRICT_NANS = 24 };
enum class PreviewFeature : std::int32_t { kMULTIDEVICE_RUNTIME_10_16 = 3 };
enum class MemoryPoolType : std::int32_t { kWORKSPACE = 0, kTACTIC_SHARED_MEMORY = 5 };
enum class OptProfileSelector : std::int32_t { kMIN, kOPT, kMAX };
enum class TensorIOMode : std::int32_t { kNONE, kINPUT, kOUTPUT };
enum class DeviceType : std::int32_t { kGPU, kDLA };
enum class TensorLocation : std::int32_t { kDEVICE, kHOST };
enum class ElementWiseOperation : std::int32_t { kSUM, kPROD, kMAX, kMIN, kSUB, kDIV, kPOW };
enum class MatrixOperation : std::int32_t { kNONE, kTRANSPOSE };
enum class ActivationType : std::int32_t { kRELU = 0, kSIGMOID = 1, kTANH = 2, kGELU_ERF = 12, kGELU_TANH = 13 };
enum class DataType : std::int32_t { kFLOAT, kHALF, kINT8, kINT32, kBOOL, kUINT8, kFP8, kBF16, kINT64 };
enum class LayerType : std::int32_t {
  kACTIVATION = 2,
  kELEMENTWISE = 9,
  kSHUFFLE = 13,
  kMATRIX_MULTIPLY = 17,
  kCONSTANT = 19,
  kIDENTITY = 20,
  kATTENTION_OUTPUT = 52,
  kDIST_COLLECTIVE = 56
};

// A setting or call of TensorRT that cannot have its meaning here.
[[noreturn]] inline void unsupported(const std::string& what, const std::string& why) {
  throw tandem::Error(tandem::ErrorCode::unsupported, "tandem/tensorrt.h: " + what + " is not supported: " + why);
}
[[noreturn]] inline void refuse(const std::string& message) { throw tandem::Error(tandem::ErrorCode::invalid_argument, message); }

inline constexpr tandem::DType kDTypes[] = {tandem::DType::f32,    tandem::DType::f16,     tandem::DType::i8,
                                            tandem::DType::i32,    tandem::DType::boolean, tandem::DType::u8,
                                            tandem::DType::f8e4m3, tandem::DType::bf16,    tandem::DType::i64};

inline tandem::DType to_tandem(DataType type) { return kDTypes[static_cast<std::size_t>(type)]; }
inline DataType to_trt(tandem::DType type) {
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(std::size(kDTypes)); ++i)
    if (kDTypes[i] == type) return static_cast<DataType>(i);
  unsupported("element type " + std::string(tandem::to_string(type)), "TensorRT has no name for it");
}

// Extents; -1 stands for one that is chosen at run time, nbDims -1 for "invalid".
struct Dims64 {
  static constexpr std::int32_t MAX_DIMS = 8;
  std::int32_t nbDims = 0;
  std::int64_t d[MAX_DIMS] = {};
};
using Dims = Dims64;
struct Dims2 : Dims {
  Dims2(std::int64_t a, std::int64_t b) : Dims{2, {a, b}} {}
};
struct Dims3 : Dims {
  Dims3(std::int64_t a, std::int64_t b, std::int64_t c) : Dims{3, {a, b, c}} {}
};
struct Dims4 : Dims {
  Dims4(std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t e) : Dims{4, {a, b, c, e}} {}
};

inline tandem::Shape shape_of(const Dims& dims) { return {dims.d, dims.d + (dims.nbDims > 0 ? dims.nbDims : 0)}; }
template <typename Extents>
Dims dims_of(const Extents& extents) {
  Dims dims;
  if (extents.size() > Dims::MAX_DIMS) unsupported("a tensor of " + std::to_string(extents.size()) + " dimensions", "Dims holds 8");
  for (const auto extent : extents) dims.d[dims.nbDims++] = extent;
  return dims;
}

struct Permutation {
  std::int32_t order[Dims::MAX_DIMS];
};

// Values of the user's, not copied: they must not change while the network or an engine made from it lives.
struct Weights {
  DataType type;
  const void* values;
  std::int64_t count;
};

// Derive from it to hear what is going on. Errors are told before they are thrown.
class ILogger {
 public:
  enum class Severity : std::int32_t { kINTERNAL_ERROR, kERROR, kWARNING, kINFO, kVERBOSE };
  virtual void log(Severity severity, const char* message) noexcept = 0;
  virtual ~ILogger() = default;
};

// Of this thread, each in the other.
inline int& calls_under_way() {
  thread_local int count = 0;
  return count;
}

// What `work` gives; an error it throws is told to the logger first, once however many of these it passes.
template <typename Work>
auto told(ILogger& logger, const Work& work) -> decltype(work()) {
  struct Inside {
    Inside() { ++calls_under_way(); }
    ~Inside() { --calls_under_way(); }
  };
  try {
    const Inside inside;
    return work();
  } catch (const tandem::Error& error) {
    if (calls_under_way() > 0) throw;
    const bool ours = error.code() == tandem::ErrorCode::internal;
    logger.log(ours ? ILogger::Severity::kINTERNAL_ERROR : ILogger::Severity::kERROR, error.what());
    throw;
  }
}

}  // namespace nvinfer1
