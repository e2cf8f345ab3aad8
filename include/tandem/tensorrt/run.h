// Running engines with TensorRT's names. Public; include tandem/tensorrt.h.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "tandem/context.h"
#include "tandem/engine.h"
#include "tandem/gpu.h"
#include "tandem/group.h"
#include "tandem/nccl.h"
#include "tandem/ops.h"
#include "tandem/tensorrt/memory.h"
#include "tandem/tensorrt/types.h"

namespace nvinfer1 {

class ICudaEngine;

// One rank's memory and state. Serves one thread at a time. Addresses are those of memory of the GPU, or of the host with CPU ranks: dense,
// row-major, of one rank's part.
class IExecutionContext {
 public:
  // Binds the ranks that this one runs with; null releases them. Local, never waits, in any order on the ranks, and again. An engine of one
  // rank takes any, with a notice. Throws tandem::Error(mismatch) for another size than the engine's.
  inline bool setCommunicator(std::shared_ptr<tandem::Group> group);
  bool setCommunicator(std::unique_ptr<tandem::Group>& group) {
    return setCommunicator(std::shared_ptr<tandem::Group>(std::shared_ptr<void>(), group.get()));
  }
  bool setCommunicator(std::nullptr_t) { return setCommunicator(std::shared_ptr<tandem::Group>()); }
  // An ncclComm_t, for an engine for GPUs. It stays the caller's, see tandem/nccl.h. CPU ranks are joined by a tandem::Group.
  inline bool setCommunicator(void* communicator);

  // The profile whose program runs from now on; 0 from the start. Shapes that are set stay, and must fit it. Between calls at any time:
  // work that was given goes on, so the stream has nothing to wait for. All ranks must use the same one; the next call compares.
  inline bool setOptimizationProfileAsync(std::int32_t profile, cudaStream_t stream);
  std::int32_t getOptimizationProfile() const { return profile_; }

  inline bool setInputShape(const char* name, const Dims& dims);
  // -1 for what the shapes set so far leave open, and, before a run and after, for extents that depend on data: an output allocator is told
  // those.
  inline Dims getTensorShape(const char* name);
  // Bytes that an output takes for the input shapes set, at most; -1 where these are not set, or it is no output.
  inline std::int64_t getMaxOutputSize(const char* name);
  // Of an output whose shape depends on data: memory of getMaxOutputSize() bytes.
  inline bool setTensorAddress(const char* name, void* address);
  inline bool setInputTensorAddress(const char* name, const void* address);
  void* getTensorAddress(const char* name) const {
    const auto found = addresses_.find(name);
    return found == addresses_.end() ? nullptr : found->second;
  }
  // On a GPU: gives the work to the stream, null being CUDA's default stream, and returns; while that is recorded the work becomes part of
  // the graph, which wants a run of the same shapes before. On the CPU: runs this rank on the thread that calls; the stream is null, and
  // when it returns outputs are written. Every rank must call: if one does not, the others get an error that names it once the deadline
  // is over.
  inline bool enqueueV3(cudaStream_t stream);
  // Activations and workspace in memory of the caller's, aligned to 256 bytes. Throws tandem::Error(out_of_memory) with the bytes needed
  // where it is too small, and where a context made without memory runs before it has any.
  inline bool setDeviceMemoryV2(void* memory, std::int64_t size);
  // What the shapes set need.
  inline std::size_t updateDeviceMemorySizeForShapes();
  // Before the first use of the context, which keeps what it has; null: the runtime's.
  inline bool setTemporaryStorageAllocator(IGpuAllocator* allocator);
  // Asked in each run, before anything is computed; null: the address that was set counts again. It must outlive its use. Of an output
  // whose shape depends on data it is asked for getMaxOutputSize() bytes, and told the shape when the run has measured it: enqueueV3()
  // waits for that.
  inline bool setOutputAllocator(const char* name, IOutputAllocator* allocator);
  IOutputAllocator* getOutputAllocator(const char* name) const {
    const auto found = output_allocators_.find(name);
    return found == output_allocators_.end() ? nullptr : found->second;
  }
  // Each run then waits until its work is done, and reports it; null: no more.
  inline bool setProfiler(IProfiler* profiler);
  IProfiler* getProfiler() const { return profiler_; }
  bool getEnqueueEmitsProfile() const { return true; }
  // An event that CUDA ranks record; CPU ranks have read their inputs when a run returns, and refuse it.
  inline bool setInputConsumedEvent(cudaEvent_t event);
  // For what runs beside the stream given, as exchanges beside attention over ranks; missing ones are the context's own, those beyond
  // getNbAuxStreams() are left alone.
  inline void setAuxStreams(cudaStream_t* streams, std::int32_t count);
  // Ours: how many ranks run the engine together.
  inline int num_ranks() const;
  const ICudaEngine& getEngine() const { return engine_; }

 private:
  friend class ICudaEngine;
  IExecutionContext(const ICudaEngine& engine, bool own_memory, IGpuAllocator* allocator)
      : engine_(engine), own_memory_(own_memory), allocator_(allocator) {}
  inline tandem::Context& bound();
  inline void pass_on_profiler();
  inline void pass_on_output_allocators();
  const ICudaEngine& engine_;
  std::map<std::string, void*> addresses_;
  std::map<std::string, Dims> shapes_;
  std::map<std::string, IOutputAllocator*> output_allocators_;
  IProfiler* profiler_ = nullptr;
  std::int32_t profile_ = 0;
  std::vector<void*> aux_streams_;
  std::shared_ptr<tandem::Group> group_;
  bool own_memory_;
  IGpuAllocator* allocator_;
  void* memory_ = nullptr;
  std::size_t memory_bytes_ = 0;
  std::optional<tandem::Context> context_;
};

// An engine, immutable, for all its ranks; must outlive its contexts. Shapes are those of what one rank holds.
class ICudaEngine {
 public:
  ICudaEngine(tandem::Engine engine, ILogger& logger, IGpuAllocator* allocator = nullptr)
      : engine_(std::move(engine)), logger_(logger), allocator_(allocator), inputs_(engine_.inputs()), outputs_(engine_.outputs()) {}
  std::int32_t getNbIOTensors() const { return static_cast<std::int32_t>(inputs_.size() + outputs_.size()); }
  // Inputs come first; null for a number that is none.
  const char* getIOTensorName(std::int32_t index) const {
    const auto at = static_cast<std::size_t>(index);
    if (index < 0 || index >= getNbIOTensors()) return nullptr;
    return (at < inputs_.size() ? inputs_[at] : outputs_[at - inputs_.size()]).name.c_str();
  }
  TensorIOMode getTensorIOMode(const char* name) const {
    return find(inputs_, name) ? TensorIOMode::kINPUT : find(outputs_, name) ? TensorIOMode::kOUTPUT : TensorIOMode::kNONE;
  }
  DataType getTensorDataType(const char* name) const { return to_trt(port(name).dtype); }
  TensorLocation getTensorLocation(const char* name) const {
    return port(name), engine_.device() == "cuda" ? TensorLocation::kDEVICE : TensorLocation::kHOST;
  }
  Dims getTensorShape(const char* name) const {
    std::vector<std::int64_t> extents;
    for (const std::string& text : port(name).local_shape) extents.push_back(tandem::Extent(text).value().value_or(-1));
    return dims_of(extents);
  }
  // Of outputs too.
  Dims getProfileShape(const char* name, std::int32_t profile, OptProfileSelector select) const {
    check_profile(profile);
    port(name);
    const std::vector<tandem::Port> inputs = engine_.inputs(profile), outputs = engine_.outputs(profile);
    const tandem::Port* input = find(inputs, name);
    return dims_of((input ? input : find(outputs, name))->local_range.at(static_cast<std::size_t>(select)));
  }
  std::int32_t getNbOptimizationProfiles() const { return engine_.profiles(); }
  std::int32_t getNbAuxStreams() const { return engine_.auxiliary_streams(); }
  bool isRefittable() const { return engine_.refittable(); }
  // Bytes of a GPU that all weights of rank 0 take: with a budget of so many nothing is streamed. Of CPU ranks, as all that follows,
  // Error(unsupported).
  std::int64_t getStreamableWeightsSize() const {
    return told(logger_, [&] { return static_cast<std::int64_t>(engine_.weight_memory().bytes); });
  }
  // Bytes of each rank's GPU that its weights may take, in contexts that are used first from now on; at first all are resident. Less than
  // the least, such as 0, means the least. Other than TensorRT's it holds the scratch memory too.
  bool setWeightStreamingBudgetV2(std::int64_t budget) {
    return told(logger_, [&] {
      if (budget < 0) refuse("a weight streaming budget of " + std::to_string(budget) + " bytes is none; 0 streams as much as can be");
      const tandem::WeightMemory weights = engine_.weight_memory();
      const auto bytes = static_cast<std::size_t>(budget);
      budget_ = bytes >= weights.bytes ? std::optional<std::size_t>() : std::max(bytes, weights.least_budget);
      return true;
    });
  }
  std::int64_t getWeightStreamingBudgetV2() const { return budget_ ? static_cast<std::int64_t>(*budget_) : getStreamableWeightsSize(); }
  // For what is free on rank 0's GPU at present, less activations.
  std::int64_t getWeightStreamingAutomaticBudget() const {
    return told(logger_, [&] { return static_cast<std::int64_t>(engine_.automatic_weight_budget()); });
  }
  // Bytes of the budget in which streamed weights arrive; each context beyond the first takes them again.
  std::int64_t getWeightStreamingScratchMemorySize() const {
    return told(logger_, [&] { return static_cast<std::int64_t>(engine_.weight_memory(budget_).ring_bytes); });
  }
  // The caller owns it.
  IExecutionContext* createExecutionContext() { return make_context(true); }
  // It runs once setDeviceMemoryV2() has given it memory. The caller owns it.
  IExecutionContext* createExecutionContextWithoutDeviceMemory() { return make_context(false); }
  // What the largest shapes need, of all profiles. Several ranks: Error(unsupported), a context says it that has its communicator.
  std::int64_t getDeviceMemorySizeV2() const {
    std::int64_t most = 0;
    for (std::int32_t profile = 0; profile < getNbOptimizationProfiles(); ++profile)
      most = std::max(most, getDeviceMemorySizeForProfileV2(profile));
    return most;
  }
  std::int64_t getDeviceMemorySizeForProfileV2(std::int32_t profile) const {
    return told(logger_, [&] {
      check_profile(profile);
      if (engine_.ranks() > 1)
        unsupported("getDeviceMemorySizeV2 of several ranks",
                    "ask the context of a rank, updateDeviceMemorySizeForShapes(), once it has its communicator");
      return static_cast<std::int64_t>(
          tandem::Context(engine_, {.weight_budget_bytes = budget_}).max_device_memory_bytes(static_cast<std::size_t>(profile)));
    });
  }
  // Ours.
  const tandem::Engine& engine() const { return engine_; }

 private:
  friend class IExecutionContext;
  void check_profile(std::int32_t profile) const {
    if (profile < 0 || profile >= getNbOptimizationProfiles())
      refuse("there is no optimization profile " + std::to_string(profile) + ", the engine has " +
             std::to_string(getNbOptimizationProfiles()));
  }
  IExecutionContext* make_context(bool own_memory) {
    return told(logger_, [&] {
      if (!engine_.has_weights())
        refuse("the engine was built with kSTRIP_PLAN and has no weights: write it to a file and run tandem refit");
      return new IExecutionContext(*this, own_memory, allocator_);
    });
  }
  static const tandem::Port* find(const std::vector<tandem::Port>& ports, const std::string& name) {
    for (const tandem::Port& port : ports)
      if (port.name == name) return &port;
    return nullptr;
  }
  const tandem::Port& port(const std::string& name) const {
    const tandem::Port* found = find(inputs_, name);
    if (!found) found = find(outputs_, name);
    if (!found) refuse("the engine has no tensor '" + name + "'");
    return *found;
  }
  tandem::Engine engine_;
  ILogger& logger_;
  IGpuAllocator* allocator_;
  std::vector<tandem::Port> inputs_, outputs_;
  std::optional<std::size_t> budget_;  // of weights
};

// Makes engines from bytes, which it copies. The caller owns the engines.
class IRuntime {
 public:
  explicit IRuntime(ILogger& logger) : logger_(logger) {}
  // Throws tandem::Error(invalid_engine) saying what was expected and what was found.
  ICudaEngine* deserializeCudaEngine(const void* bytes, std::size_t size) {
    return told(logger_, [&] {
      const std::shared_ptr<std::byte> copy(static_cast<std::byte*>(::operator new(size + 1, std::align_val_t(64))),
                                            [](std::byte* p) { ::operator delete(p, std::align_val_t(64)); });
      std::memcpy(copy.get(), bytes, size);
      return new ICudaEngine(tandem::load_engine(tandem::Array{tandem::DType::u8, {static_cast<std::int64_t>(size)}, copy}), logger_,
                             allocator_);
    });
  }
  // Of the contexts of engines made from now on; null: the device's own.
  void setGpuAllocator(IGpuAllocator* allocator) { allocator_ = allocator; }

 private:
  ILogger& logger_;
  IGpuAllocator* allocator_ = nullptr;
};

inline IRuntime* createInferRuntime(ILogger& logger) { return new IRuntime(logger); }

inline int IExecutionContext::num_ranks() const { return engine_.engine_.ranks(); }

inline bool IExecutionContext::setCommunicator(std::shared_ptr<tandem::Group> group) {
  return told(engine_.logger_, [&] {
    if (group && num_ranks() == 1) {
      engine_.logger_.log(ILogger::Severity::kWARNING, "the engine is for one rank and communicates with none of this communicator");
      return true;
    }
    if (group && group->size() != num_ranks())
      throw tandem::Error(tandem::ErrorCode::mismatch, "the engine is for " + std::to_string(num_ranks()) +
                                                           " ranks, the communicator has " + std::to_string(group->size()));
    if (group && engine_.engine_.collectives().empty())
      engine_.logger_.log(ILogger::Severity::kWARNING, "the engine has no collectives: it does not communicate with this communicator");
    if (context_ && group && context_->rank() != group->rank()) context_.reset();
    if (context_) context_->set_communicator(group);
    group_ = std::move(group);
    return true;
  });
}

inline bool IExecutionContext::setCommunicator(void* communicator) {
  return told(engine_.logger_, [&] {
    if (!communicator) return setCommunicator(nullptr);
    if (engine_.engine_.device() != "cuda")
      unsupported("setCommunicator of an ncclComm_t", "this engine is for CPU ranks: give it a tandem::Group");
    if (num_ranks() > 1)
      return setCommunicator(std::shared_ptr<tandem::Group>(tandem::group_from_nccl(static_cast<ncclComm*>(communicator))));
    engine_.logger_.log(ILogger::Severity::kWARNING, "the engine is for one rank and communicates with none of this communicator of NCCL");
    return true;
  });
}

// The rank itself, once it is known which one.
inline tandem::Context& IExecutionContext::bound() {
  if (context_) return *context_;
  if (num_ranks() > 1 && !group_)
    refuse("the engine is for " + std::to_string(num_ranks()) + " ranks: call setCommunicator() on every rank first");
  context_.emplace(engine_.engine_, tandem::ContextOptions{.rank = group_ ? group_->rank() : 0,
                                                           .profile = profile_,
                                                           .weight_budget_bytes = engine_.budget_,
                                                           .allocator = to_tandem(allocator_)});
  if (memory_) context_->set_device_memory(memory_, memory_bytes_);
  pass_on_profiler();
  pass_on_output_allocators();
  context_->set_auxiliary_streams(aux_streams_);
  if (group_) context_->set_communicator(group_);
  for (std::size_t i = 0; i < engine_.inputs_.size(); ++i)
    if (const auto found = shapes_.find(engine_.inputs_[i].name); found != shapes_.end())
      context_->set_local_input_shape(i, shape_of(found->second));
  return *context_;
}

inline bool IExecutionContext::setOptimizationProfileAsync(std::int32_t profile, cudaStream_t stream) {
  return told(engine_.logger_, [&] {
    if (stream && engine_.engine_.device() != "cuda")
      unsupported("a stream", "an engine of CPU ranks runs on the thread that calls: pass nullptr");
    engine_.check_profile(profile);
    if (context_) context_->set_profile(profile);
    profile_ = profile;
    return true;
  });
}

inline bool IExecutionContext::setDeviceMemoryV2(void* memory, std::int64_t size) {
  return told(engine_.logger_, [&] {
    if (context_) context_->set_device_memory(memory, static_cast<std::size_t>(size));
    memory_ = memory;
    memory_bytes_ = static_cast<std::size_t>(size);
    return true;
  });
}

inline std::size_t IExecutionContext::updateDeviceMemorySizeForShapes() {
  return told(engine_.logger_, [&] { return bound().device_memory_bytes(); });
}

inline void IExecutionContext::pass_on_profiler() {
  if (!profiler_) return context_->set_profiler({});
  context_->set_profiler([profiler = profiler_](const tandem::StepTime& step) {
    profiler->reportLayerTime(step.node.c_str(), static_cast<float>(step.seconds * 1e3));
  });
}

inline void IExecutionContext::pass_on_output_allocators() {
  for (std::size_t i = 0; i < engine_.outputs_.size(); ++i) {
    IOutputAllocator* user = getOutputAllocator(engine_.outputs_[i].name.c_str());
    context_->set_output_allocator(i, user ? std::make_shared<OutputAllocatorOfUser>(*user, engine_.outputs_[i].name) : nullptr);
  }
}

inline bool IExecutionContext::setOutputAllocator(const char* name, IOutputAllocator* allocator) {
  return told(engine_.logger_, [&] {
    if (engine_.getTensorIOMode(name) != TensorIOMode::kOUTPUT) refuse(std::string("the engine has no output '") + name + "'");
    output_allocators_[name] = allocator;
    if (context_) pass_on_output_allocators();
    return true;
  });
}

inline bool IExecutionContext::setProfiler(IProfiler* profiler) {
  profiler_ = profiler;
  if (context_) pass_on_profiler();
  return true;
}

inline void IExecutionContext::setAuxStreams(cudaStream_t* streams, std::int32_t count) {
  told(engine_.logger_, [&] {
    if (count < 0 || (count > 0 && !streams)) refuse(std::to_string(count) + " auxiliary streams are given at no address");
    const std::vector<void*> given(streams, streams + std::min(count, engine_.getNbAuxStreams()));
    if (std::ranges::find(given, nullptr) != given.end()) refuse("an auxiliary stream is null, which is the default stream");
    if (context_) context_->set_auxiliary_streams(given);
    aux_streams_ = given;
    return true;
  });
}

inline bool IExecutionContext::setInputConsumedEvent(cudaEvent_t event) {
  return told(engine_.logger_, [&] {
    bound().set_inputs_consumed_event(event);
    return true;
  });
}

inline bool IExecutionContext::setTemporaryStorageAllocator(IGpuAllocator* allocator) {
  if (context_) refuse("the context has been used: give it an allocator before");
  allocator_ = allocator ? allocator : engine_.allocator_;
  return true;
}

inline bool IExecutionContext::setInputShape(const char* name, const Dims& dims) {
  return told(engine_.logger_, [&] {
    const Dims expected = engine_.getTensorShape(name);
    bool fits = engine_.getTensorIOMode(name) == TensorIOMode::kINPUT && expected.nbDims == dims.nbDims;
    for (std::int32_t d = 0; fits && d < dims.nbDims; ++d) fits = dims.d[d] >= 0 && (expected.d[d] == -1 || expected.d[d] == dims.d[d]);
    if (!fits)
      refuse(std::string("input '") + name + "' cannot be " + tandem::to_string(shape_of(dims)) + ", expected " +
             tandem::to_string(shape_of(expected)));
    shapes_[name] = dims;
    for (std::size_t i = 0; context_ && i < engine_.inputs_.size(); ++i)
      if (engine_.inputs_[i].name == name) context_->set_local_input_shape(i, shape_of(dims));
    return true;
  });
}

inline Dims IExecutionContext::getTensorShape(const char* name) {
  return told(engine_.logger_, [&] {
    const auto is_open = [](const Dims& dims) { return std::find(dims.d, dims.d + dims.nbDims, -1) != dims.d + dims.nbDims; };
    const auto set = shapes_.find(name);
    const Dims fixed = set != shapes_.end() ? set->second : engine_.getTensorShape(name);
    if (!is_open(fixed) || engine_.getTensorIOMode(name) == TensorIOMode::kINPUT) return fixed;
    for (const tandem::Port& input : engine_.inputs_)
      if (is_open(getTensorShape(input.name.c_str()))) return fixed;
    for (std::size_t i = 0; i < engine_.outputs_.size(); ++i)
      if (engine_.outputs_[i].name == name) {
        Dims dims = dims_of(bound().output_shape(i));
        const std::vector<bool> measured = bound().measured_dims(i);
        for (std::size_t d = 0; d < measured.size(); ++d)
          if (measured[d]) dims.d[d] = -1;
        return dims;
      }
    return fixed;
  });
}

inline std::int64_t IExecutionContext::getMaxOutputSize(const char* name) {
  return told(engine_.logger_, [&]() -> std::int64_t {
    for (const tandem::Port& input : engine_.inputs_) {
      const Dims dims = getTensorShape(input.name.c_str());
      if (std::find(dims.d, dims.d + dims.nbDims, -1) != dims.d + dims.nbDims) return -1;
    }
    for (std::size_t i = 0; i < engine_.outputs_.size(); ++i)
      if (engine_.outputs_[i].name == name) {
        for (const tandem::Port& input : engine_.inputs_)
          if (!shapes_.contains(input.name)) setInputShape(input.name.c_str(), getTensorShape(input.name.c_str()));
        const std::int64_t count = tandem::element_count(bound().output_shape(i));
        return (count * tandem::bits(engine_.outputs_[i].dtype) + 7) / 8;
      }
    return -1;
  });
}

inline bool IExecutionContext::setTensorAddress(const char* name, void* address) {
  return told(engine_.logger_, [&] {
    engine_.port(name);
    addresses_[name] = address;
    return true;
  });
}

inline bool IExecutionContext::setInputTensorAddress(const char* name, const void* address) {
  if (engine_.getTensorIOMode(name) != TensorIOMode::kINPUT) refuse(std::string("the engine has no input '") + name + "'");
  return setTensorAddress(name, const_cast<void*>(address));
}

inline bool IExecutionContext::enqueueV3(cudaStream_t stream) {
  return told(engine_.logger_, [&] {
    const bool on_gpu = engine_.engine_.device() == "cuda";
    if (stream && !on_gpu) unsupported("a stream", "an engine of CPU ranks runs on the thread that calls: pass nullptr");
    std::vector<const void*> inputs;
    std::vector<void*> outputs;
    const auto address = [&](const tandem::Port& port) {
      void* found = getTensorAddress(port.name.c_str());
      if (!found && !getOutputAllocator(port.name.c_str()))
        refuse("no address was set for '" + port.name + "': call setTensorAddress() for every input and output");
      return found;
    };
    for (const tandem::Port& port : engine_.inputs_) inputs.push_back(address(port));
    for (const tandem::Port& port : engine_.outputs_) outputs.push_back(address(port));
    for (const tandem::Port& port : engine_.inputs_) {
      const Dims dims = getTensorShape(port.name.c_str());
      if (std::find(dims.d, dims.d + dims.nbDims, -1) != dims.d + dims.nbDims)
        refuse("no shape was set for '" + port.name + "': call setInputShape()");
      if (!shapes_.contains(port.name)) setInputShape(port.name.c_str(), dims);
    }
    if (!own_memory_ && !memory_)
      throw tandem::Error(tandem::ErrorCode::out_of_memory,
                          "the context was made without device memory: " + std::to_string(bound().device_memory_bytes()) +
                              " bytes are needed, call setDeviceMemoryV2()");
    if (on_gpu) bound().enqueue(inputs, outputs, stream ? stream : tandem::default_stream());
    else bound().run(inputs, outputs);
    return true;
  });
}

}  // namespace nvinfer1
