// Building engines with TensorRT's names. Public; include tandem/tensorrt.h.
#pragma once

#include <array>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tandem/build.h"
#include "tandem/gpu.h"
#include "tandem/tensorrt/network.h"

namespace nvinfer1 {

// The bytes of a serialized engine.
class IHostMemory {
 public:
  explicit IHostMemory(tandem::Array bytes) : bytes_(std::move(bytes)) {}
  void* data() const noexcept { return const_cast<std::byte*>(bytes_.data.get()); }
  std::size_t size() const noexcept { return bytes_.size_bytes(); }
  DataType type() const noexcept { return DataType::kINT8; }

 private:
  tandem::Array bytes_;
};

// Per input its smallest, typical and largest extents. Belongs to its builder.
class IOptimizationProfile {
 public:
  bool setDimensions(const char* input, OptProfileSelector select, const Dims& dims) {
    shapes_[input][static_cast<std::size_t>(select)] = dims;
    return true;
  }
  Dims getDimensions(const char* input, OptProfileSelector select) const {
    const auto found = shapes_.find(input);
    return found == shapes_.end() ? Dims{-1, {}} : found->second[static_cast<std::size_t>(select)];
  }
  // Ours: as tandem::BuildOptions::shapes.
  std::map<std::string, std::string> texts() const {
    std::map<std::string, std::string> texts;
    for (const auto& [name, shapes] : shapes_)
      for (std::size_t which = 0; which < 3; ++which) {
        texts[name] += which ? ":" : "";
        for (std::int32_t d = 0; d < shapes[which].nbDims; ++d) texts[name] += (d ? "x" : "") + std::to_string(shapes[which].d[d]);
      }
    return texts;
  }

 private:
  std::map<std::string, std::array<Dims, 3>> shapes_;
};

// How an engine is to be built. What it has no method for has no meaning here.
class IBuilderConfig {
 public:
  // kREFIT: weights can be replaced later; kSTRIP_PLAN: they are left out. kTF32: GPUs may round operands of f32
  // products and convolutions to it; not set from the start, other than in TensorRT. kSTRICT_NANS holds anyway.
  // kWEIGHT_STREAMING has no effect: every engine for GPUs can.
  void setFlag(BuilderFlag flag) { flags_.insert(flag); }
  void clearFlag(BuilderFlag flag) { flags_.erase(flag); }
  bool getFlag(BuilderFlag flag) const { return flags_.contains(flag); }
  // Of TensorRT 10.16; on from the start. Networks that communicate are refused where it is switched off.
  void setPreviewFeature(PreviewFeature, bool enable) { multi_device_ = enable; }
  bool getPreviewFeature(PreviewFeature) const { return multi_device_; }
  // kWORKSPACE: the most bytes of activations and workspace of a rank for the typical shapes, above which the build fails.
  // kTACTIC_SHARED_MEMORY: ranks on the CPU take none.
  void setMemoryPoolLimit(MemoryPoolType pool, std::size_t bytes) {
    if (pool == MemoryPoolType::kWORKSPACE) workspace_ = bytes;
  }
  // The most streams besides the one given that runs may use, -1 for any number: for exchanges beside attention over ranks. The build fails
  // where that wants more.
  void setMaxAuxStreams(std::int32_t streams) { aux_streams_ = streams; }
  std::int32_t getMaxAuxStreams() const { return aux_streams_; }
  // Returns its index. The engine has a program for each, whose kernels are chosen for its kOPT shapes, and the weights once.
  std::int32_t addOptimizationProfile(const IOptimizationProfile* profile) {
    if (!profile) refuse("the optimization profile is null");
    profiles_.push_back(profile);
    return getNbOptimizationProfiles() - 1;
  }
  std::int32_t getNbOptimizationProfiles() const { return static_cast<std::int32_t>(profiles_.size()); }
  // kGPU: engines are for GPUs. So they are from the start where there is one, else for the CPU; the environment's TANDEM_DEVICE (cpu or
  // cuda) says otherwise.
  void setDefaultDeviceType(DeviceType type) {
    if (type != DeviceType::kGPU) unsupported("setDefaultDeviceType", "there is no DLA");
    device_ = "cuda";
  }
  // Ours: "cpu" or "cuda".
  void set_device(const std::string& device) { device_ = device; }
  // Ours: what TensorRT leaves to its user. The ranks as named axes, over which a network without layers that communicate is sharded.
  void set_mesh(const std::string& mesh) { mesh_ = mesh; }
  // Ours: how many ranks run the engine, where no layer says so.
  void set_num_ranks(int ranks) { ranks_ = ranks; }

 private:
  friend class IBuilder;
  std::set<BuilderFlag> flags_;
  bool multi_device_ = true;
  std::size_t workspace_ = SIZE_MAX;
  std::int32_t aux_streams_ = -1;
  std::vector<const IOptimizationProfile*> profiles_;
  static std::string default_device() {
    const char* asked = std::getenv("TANDEM_DEVICE");
    return asked && *asked ? asked : tandem::gpu_count() > 0 ? "cuda" : "cpu";
  }
  std::string mesh_, device_ = default_device();
  int ranks_ = 0;
};

// Makes networks, their settings, and engines from both. The caller owns what create… and build… return; profiles belong to the builder.
class IBuilder {
 public:
  explicit IBuilder(ILogger& logger) : logger_(logger) {}
  INetworkDefinition* createNetworkV2(std::uint32_t flags) {
    if (flags > 3) unsupported("createNetworkV2 with flags " + std::to_string(flags), "there are kEXPLICIT_BATCH and kSTRONGLY_TYPED");
    return new INetworkDefinition(logger_);
  }
  IBuilderConfig* createBuilderConfig() { return new IBuilderConfig; }
  IOptimizationProfile* createOptimizationProfile() { return profiles_.emplace_back(new IOptimizationProfile).get(); }
  // Throws tandem::Error naming the layer and what is wrong with it.
  IHostMemory* buildSerializedNetwork(INetworkDefinition& network, IBuilderConfig& config) {
    return told(logger_, [&] {
      tandem::BuildOptions options;
      options.device = config.device_;
      options.mesh = config.mesh_;
      options.ranks = config.ranks_;
      options.refittable = config.getFlag(BuilderFlag::kREFIT) || config.getFlag(BuilderFlag::kSTRIP_PLAN);
      options.tf32 = config.getFlag(BuilderFlag::kTF32);
      if (config.profiles_.size() == 1) options.shapes = config.profiles_[0]->texts();
      for (std::size_t p = 0; config.profiles_.size() > 1 && p < config.profiles_.size(); ++p)
        options.profiles.push_back(config.profiles_[p]->texts());
      const tandem::Engine engine = tandem::build(network.lowered(), options);
      if (!config.multi_device_ && !engine.collectives().empty())
        throw tandem::Error(tandem::ErrorCode::invalid_argument,
                            "the network communicates, but PreviewFeature::kMULTIDEVICE_RUNTIME_10_16 was switched off");
      const std::size_t bytes = engine.activation_bytes();
      if (bytes > config.workspace_)
        throw tandem::Error(tandem::ErrorCode::out_of_memory,
                            "a rank takes " + std::to_string(bytes) +
                                " bytes of activations and workspace for the typical shapes; the limit is " +
                                std::to_string(config.workspace_));
      if (config.aux_streams_ >= 0 && engine.auxiliary_streams() > config.aux_streams_)
        throw tandem::Error(tandem::ErrorCode::unsupported, "attention over ranks uses " + std::to_string(engine.auxiliary_streams()) +
                                                                " auxiliary streams here, the limit is " +
                                                                std::to_string(config.aux_streams_));
      return new IHostMemory(engine.to_bytes({.weights = !config.getFlag(BuilderFlag::kSTRIP_PLAN)}));
    });
  }
  ILogger* getLogger() const { return &logger_; }

 private:
  ILogger& logger_;
  std::vector<std::unique_ptr<IOptimizationProfile>> profiles_;
};

inline IBuilder* createInferBuilder(ILogger& logger) { return new IBuilder(logger); }

}  // namespace nvinfer1

namespace nvonnxparser {

enum class ErrorCode : std::int32_t {
  kSUCCESS,
  kINTERNAL_ERROR,
  kMEM_ALLOC_FAILED,
  kMODEL_DESERIALIZE_FAILED,
  kINVALID_VALUE,
  kINVALID_GRAPH,
  kINVALID_NODE,
  kUNSUPPORTED_GRAPH,
  kUNSUPPORTED_NODE
};

// Why a model could not be parsed.
class IParserError {
 public:
  explicit IParserError(tandem::Error error) : error_(std::move(error)) {}
  ErrorCode code() const {
    const bool node = !error_.node().empty();
    switch (error_.code()) {
      case tandem::ErrorCode::unsupported: return node ? ErrorCode::kUNSUPPORTED_NODE : ErrorCode::kUNSUPPORTED_GRAPH;
      case tandem::ErrorCode::invalid_model: return node ? ErrorCode::kINVALID_NODE : ErrorCode::kINVALID_GRAPH;
      case tandem::ErrorCode::io: return ErrorCode::kMODEL_DESERIALIZE_FAILED;
      case tandem::ErrorCode::invalid_argument: return ErrorCode::kINVALID_VALUE;
      case tandem::ErrorCode::out_of_memory: return ErrorCode::kMEM_ALLOC_FAILED;
      default: return ErrorCode::kINTERNAL_ERROR;
    }
  }
  const char* desc() const { return error_.what(); }

 private:
  tandem::Error error_;
};

// Fills an empty network with an ONNX model. parse… returns whether that worked; getError says why not.
class IParser {
 public:
  IParser(nvinfer1::INetworkDefinition& network, nvinfer1::ILogger& logger) : network_(network), logger_(logger) {}
  bool parseFromFile(const char* path, int /*verbosity*/ = 0) {
    return attempt([&] { return tandem::Network::from_onnx(std::string(path)); });
  }
  // `path`: the file that the bytes come from, beside which external data lies; null where there is none.
  bool parse(const void* bytes, std::size_t size, const char* path = nullptr) {
    tandem::OnnxOptions options;
    const std::string file = path ? path : "";
    options.folder = file.find('/') == std::string::npos ? (path ? "." : "") : file.substr(0, file.rfind('/'));
    const tandem::Array model{
        tandem::DType::u8, {static_cast<std::int64_t>(size)}, {std::shared_ptr<void>(), static_cast<const std::byte*>(bytes)}};
    return attempt([&] { return tandem::Network::from_onnx(model, options); });
  }
  std::int32_t getNbErrors() const { return static_cast<std::int32_t>(errors_.size()); }
  const IParserError* getError(std::int32_t index) const {
    return index >= 0 && index < getNbErrors() ? &errors_[static_cast<std::size_t>(index)] : nullptr;
  }
  void clearErrors() { errors_.clear(); }

 private:
  template <typename Read>
  bool attempt(const Read& read) {
    errors_.clear();
    try {
      network_.begin_with(read());
      return true;
    } catch (const tandem::Error& error) {
      logger_.log(nvinfer1::ILogger::Severity::kERROR, error.what());
      errors_.emplace_back(error);
      return false;
    }
  }
  nvinfer1::INetworkDefinition& network_;
  nvinfer1::ILogger& logger_;
  std::vector<IParserError> errors_;
};

inline IParser* createParser(nvinfer1::INetworkDefinition& network, nvinfer1::ILogger& logger) { return new IParser(network, logger); }

}  // namespace nvonnxparser
