// Networks with TensorRT's names, over tandem::Network. Public; include tandem/tensorrt.h.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tandem/network.h"
#include "tandem/tensorrt/layers.h"

namespace nvinfer1 {

// Inputs, layers and outputs, as one rank runs them. Strongly typed. Serves one thread at a time; owns its layers and tensors.
class INetworkDefinition {
 public:
  explicit INetworkDefinition(ILogger& logger) : logger_(logger) {}
  INetworkDefinition(const INetworkDefinition&) = delete;

  // -1 stands for an extent that each run may choose; a profile gives its range.
  ITensor* addInput(const char* name, DataType type, const Dims& dims) {
    if (model_) unsupported("an input beside those of a parsed model", "the model says what its inputs are");
    std::unique_ptr<ITensor> tensor(new ITensor(this, name, nullptr));
    tensor->input_ = true;
    tensor->type_ = type;
    tensor->dims_ = dims;
    inputs_.push_back(std::move(tensor));
    changed();
    return inputs_.back().get();
  }
  void markOutput(ITensor& tensor) { outputs_.push_back(&own(tensor)); }

  IShuffleLayer* addShuffle(ITensor& input) { return added(new IShuffleLayer(this, next("Shuffle"), {&own(input)})); }
  IIdentityLayer* addIdentity(ITensor& input) { return added(new IIdentityLayer(this, next("Identity"), {&own(input)})); }
  IConstantLayer* addConstant(const Dims& dims, const Weights& weights) {
    return added(new IConstantLayer(this, next("Constant"), dims, weights));
  }
  IActivationLayer* addActivation(ITensor& input, ActivationType type) {
    return added(new IActivationLayer(this, next("Activation"), &own(input), type));
  }
  IElementWiseLayer* addElementWise(ITensor& a, ITensor& b, ElementWiseOperation op) {
    return added(new IElementWiseLayer(this, next("ElementWise"), {&own(a), &own(b)}, op));
  }
  IMatrixMultiplyLayer* addMatrixMultiply(ITensor& a, MatrixOperation op_a, ITensor& b, MatrixOperation op_b) {
    return added(new IMatrixMultiplyLayer(this, next("MatrixMultiply"), {&own(a), &own(b)}, op_a, op_b));
  }
  // A collective along dimension 0 over the ranks of `groups`, one group in order, or over all ranks. `root` counts over all ranks.
  IDistCollectiveLayer* addDistCollective(ITensor& input, CollectiveOperation operation, ReduceOperation reduce, std::int64_t root,
                                          const std::int64_t* groups, std::int64_t group_size) {
    return added(new IDistCollectiveLayer(this, next("DistCollective"), &own(input),
                                          {operation, reduce, root, {groups, groups + (groups ? group_size : 0)}}));
  }
  // softmax(q·kᵀ)·v without a factor, for q [B,Hq,Sq,D], k and v [B,Hkv,Skv,D].
  IAttention* addAttentionV2(ITensor& query, ITensor& key, ITensor& value, AttentionNormalizationOp norm, CausalMaskKind causal) {
    return added(new IAttention(this, next("Attention"), {&own(query), &own(key), &own(value)}, norm, causal));
  }

  std::int32_t getNbInputs() const { return static_cast<std::int32_t>(inputs_.size()); }
  std::int32_t getNbOutputs() const { return static_cast<std::int32_t>(outputs_.size()); }
  std::int32_t getNbLayers() const { return static_cast<std::int32_t>(layers_.size()); }
  ITensor* getInput(std::int32_t index) const {
    return index >= 0 && index < getNbInputs() ? inputs_[static_cast<std::size_t>(index)].get() : nullptr;
  }
  ITensor* getOutput(std::int32_t index) const {
    return index >= 0 && index < getNbOutputs() ? outputs_[static_cast<std::size_t>(index)] : nullptr;
  }
  ILayer* getLayer(std::int32_t index) const {
    return index >= 0 && index < getNbLayers() ? layers_[static_cast<std::size_t>(index)].get() : nullptr;
  }
  ILogger& logger() const { return logger_; }

  // Ours: begins with a model, whose outputs are then this network's.
  void begin_with(tandem::Network model) {
    if (!inputs_.empty() || !layers_.empty()) unsupported("parsing into a network that is not empty", "parse first, then add layers");
    for (const auto& input : model.inputs()) inputs_.emplace_back(new ITensor(this, input.name(), nullptr))->input_ = true;
    for (const auto& [name, value] : model.outputs()) {
      results_.emplace_back(new ITensor(this, name, nullptr), name);
      outputs_.push_back(results_.back().first.get());
    }
    model_ = std::move(model);
  }
  // Ours: the program as it is now, with its outputs.
  tandem::Network lowered() {
    if (outputs_.empty()) refuse("the network has no outputs: markOutput() some");
    changed();
    for (ITensor* output : outputs_) value(*output);
    for (ITensor* output : outputs_) program_->output(output->name_, values_.at(output));
    for (const auto& layer : layers_)
      if (values_.contains(layer->output_.get())) layer->check_whole();
    tandem::Network done = *program_;
    changed();
    return done;
  }

 private:
  friend class ITensor;
  friend class ILayer;
  void changed() {
    program_.reset();
    values_.clear();
  }
  ITensor& own(ITensor& tensor) const {
    if (tensor.network_ != this) refuse("tensor '" + tensor.name_ + "' belongs to another network");
    return tensor;
  }
  std::string next(const char* kind) const { return "(Unnamed Layer* " + std::to_string(layers_.size()) + ") [" + kind + "]"; }
  template <typename Layer>
  Layer* added(Layer* layer) {
    layers_.emplace_back(layer);
    return layer;
  }
  const tandem::Network::Value& value(ITensor& tensor) {
    if (!program_) begin();
    for (const auto& layer : layers_) {  // in the order they were added, as far as the tensor asks for
      if (values_.contains(&tensor)) break;
      if (values_.contains(layer->output_.get())) continue;
      std::vector<tandem::Network::Value> operands;
      for (ITensor* input : layer->inputs_) {
        if (!values_.contains(input)) refuse("layer '" + layer->name_ + "' takes '" + input->name_ + "', which a later layer gives");
        operands.push_back(values_.at(input));
      }
      values_[layer->output_.get()] = layer->lower(*program_, operands);
    }
    return values_.at(&tensor);
  }
  void begin_parsed() {
    program_ = model_->copy();
    const auto inputs = program_->inputs();
    for (std::size_t i = 0; i < inputs.size(); ++i) values_[inputs_.at(i).get()] = inputs[i];
    for (const auto& [name, value] : program_->outputs())
      for (const auto& [tensor, result] : results_)
        if (result == name) values_[tensor.get()] = value;
    for (const auto& [tensor, result] : results_) program_->remove_output(result);
  }
  void begin() {
    if (model_) return begin_parsed();
    program_.emplace();
    for (const auto& input : inputs_) {
      tandem::Extents extents;
      for (std::int32_t i = 0; i < input->dims_.nbDims; ++i)
        extents.push_back(input->dims_.d[i] >= 0 ? tandem::Extent(input->dims_.d[i])
                                                 : tandem::Extent(input->name_ + "_" + std::to_string(i)));
      values_[input.get()] = program_->input(input->name_, to_tandem(input->type_), extents);
    }
  }

  ILogger& logger_;
  std::vector<std::unique_ptr<ITensor>> inputs_;
  std::vector<std::unique_ptr<ILayer>> layers_;
  std::vector<ITensor*> outputs_;
  std::optional<tandem::Network> model_;                                   // parsed
  std::vector<std::pair<std::unique_ptr<ITensor>, std::string>> results_;  // its outputs, under their names in the model
  std::optional<tandem::Network> program_;                                 // as far as it was asked for
  std::map<const ITensor*, tandem::Network::Value> values_;
};

inline void ITensor::changed() { network_->changed(); }
inline void ILayer::changed() { network_->changed(); }
inline ITensor& ILayer::own(ITensor& tensor) const { return network_->own(tensor); }
inline DataType ITensor::getType() const { return to_trt(network_->value(*const_cast<ITensor*>(this)).dtype()); }
inline Dims ITensor::getDimensions() const {
  std::vector<std::int64_t> extents;
  for (const tandem::Extent& extent : network_->value(*const_cast<ITensor*>(this)).shape()) extents.push_back(extent.value().value_or(-1));
  return dims_of(extents);
}

}  // namespace nvinfer1
