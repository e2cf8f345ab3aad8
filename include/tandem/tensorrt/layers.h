// The layers of tandem/tensorrt.h, and what each means in tandem's ops. Public; include tandem/tensorrt.h.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tandem/tensorrt/layer.h"

namespace nvinfer1 {

class IIdentityLayer : public ILayer {
  friend class INetworkDefinition;
  IIdentityLayer(INetworkDefinition* network, std::string name, std::vector<ITensor*> inputs)
      : ILayer(network, LayerType::kIDENTITY, std::move(name), std::move(inputs)) {}
  Value lower(tandem::Network&, const std::vector<Value>& inputs) const override { return inputs.at(0); }
};

// A transposition, a reshape and another transposition, each only if it is set.
class IShuffleLayer : public ILayer {
 public:
  void setFirstTranspose(const Permutation& permutation) { set(first_, permutation); }
  void setSecondTranspose(const Permutation& permutation) { set(second_, permutation); }
  // 0 copies an extent of the input, one -1 is what the others leave.
  void setReshapeDimensions(const Dims& dims) {
    reshape_ = dims;
    changed();
  }

 private:
  friend class INetworkDefinition;
  IShuffleLayer(INetworkDefinition* network, std::string name, std::vector<ITensor*> inputs)
      : ILayer(network, LayerType::kSHUFFLE, std::move(name), std::move(inputs)) {}
  void set(std::optional<Permutation>& which, const Permutation& permutation) {
    which = permutation;
    changed();
  }
  Value transposed(tandem::Network& network, const Value& x, const std::optional<Permutation>& permutation) const {
    if (!permutation) return x;
    return network.add("Transpose", {x}, {{"permutation", std::vector<std::int64_t>(permutation->order, permutation->order + x.rank())}},
                       name_);
  }
  Value lower(tandem::Network& network, const std::vector<Value>& inputs) const override {
    Value x = transposed(network, inputs.at(0), first_);
    if (reshape_) {
      tandem::Extents extents;
      for (std::int32_t i = 0; i < reshape_->nbDims; ++i)
        extents.push_back(reshape_->d[i] == 0 ? x.shape().at(static_cast<std::size_t>(i)) : tandem::Extent(reshape_->d[i]));
      x = network.add("Reshape", {x}, {{"shape", extents}}, name_);
    }
    return transposed(network, x, second_);
  }
  std::optional<Permutation> first_, second_;
  std::optional<Dims> reshape_;
};

class IConstantLayer : public ILayer {
  friend class INetworkDefinition;
  IConstantLayer(INetworkDefinition* network, std::string name, const Dims& dims, const Weights& weights)
      : ILayer(network, LayerType::kCONSTANT, std::move(name), {}), shape_(shape_of(dims)), weights_(weights) {
    if (tandem::element_count(shape_) != weights.count)
      refuse("layer '" + name_ + "': " + std::to_string(weights.count) + " weights do not fill " + tandem::to_string(shape_));
  }
  Value lower(tandem::Network& network, const std::vector<Value>&) const override {
    const tandem::Array array{to_tandem(weights_.type), shape_, {std::shared_ptr<void>(), static_cast<const std::byte*>(weights_.values)}};
    return weights_.count > 1 && tandem::is_float(array.dtype) ? network.weight(name_, array) : network.constant(array);
  }
  tandem::Shape shape_;
  Weights weights_;
};

class IActivationLayer : public ILayer {
  friend class INetworkDefinition;
  IActivationLayer(INetworkDefinition* network, std::string name, ITensor* input, ActivationType type)
      : ILayer(network, LayerType::kACTIVATION, std::move(name), {input}), function_(type) {}
  Value lower(tandem::Network& network, const std::vector<Value>& inputs) const override {
    switch (function_) {
      case ActivationType::kRELU: return network.add("Relu", inputs, {}, name_);
      case ActivationType::kSIGMOID: return network.add("Sigmoid", inputs, {}, name_);
      case ActivationType::kTANH: return network.add("Tanh", inputs, {}, name_);
      case ActivationType::kGELU_ERF: return network.add("Gelu", inputs, {}, name_);
      case ActivationType::kGELU_TANH: return network.add("Gelu", inputs, {{"approximate", std::string("tanh")}}, name_);
    }
    unsupported("the function of layer '" + name_ + "'", "it is not in the list of ActivationType");
  }
  ActivationType function_;
};

class IElementWiseLayer : public ILayer {
  friend class INetworkDefinition;
  IElementWiseLayer(INetworkDefinition* network, std::string name, std::vector<ITensor*> inputs, ElementWiseOperation op)
      : ILayer(network, LayerType::kELEMENTWISE, std::move(name), std::move(inputs)), op_(op) {}
  Value lower(tandem::Network& network, const std::vector<Value>& inputs) const override {
    static constexpr const char* kOps[] = {"Add", "Mul", "Max", "Min", "Sub", "Div", "Pow"};
    return network.add(kOps[static_cast<std::size_t>(op_)], inputs, {}, name_);
  }
  ElementWiseOperation op_;
};

class IMatrixMultiplyLayer : public ILayer {
  friend class INetworkDefinition;
  IMatrixMultiplyLayer(INetworkDefinition* network, std::string name, std::vector<ITensor*> inputs, MatrixOperation a, MatrixOperation b)
      : ILayer(network, LayerType::kMATRIX_MULTIPLY, std::move(name), std::move(inputs)), ops_{a, b} {}
  Value lower(tandem::Network& network, const std::vector<Value>& inputs) const override {
    std::vector<Value> operands = inputs;
    for (std::size_t i = 0; i < 2; ++i) {
      if (ops_[i] != MatrixOperation::kTRANSPOSE) continue;
      std::vector<std::int64_t> order(static_cast<std::size_t>(operands[i].rank()));
      for (std::size_t d = 0; d < order.size(); ++d) order[d] = static_cast<std::int64_t>(d);
      if (order.size() < 2) refuse("layer '" + name_ + "': operand " + std::to_string(i) + " has fewer than 2 dimensions");
      std::swap(order[order.size() - 1], order[order.size() - 2]);
      operands[i] = network.add("Transpose", {operands[i]}, {{"permutation", order}}, name_);
    }
    return network.add("MatMul", operands, {}, name_);
  }
  MatrixOperation ops_[2];
};

struct CollectiveSettings {
  CollectiveOperation operation;
  ReduceOperation reduce;
  std::int64_t root;
  std::vector<std::int64_t> group;
};

// A collective along dimension 0; setNbRanks(1) is the identity.
class IDistCollectiveLayer : public ILayer {
  friend class INetworkDefinition;
  IDistCollectiveLayer(INetworkDefinition* network, std::string name, ITensor* input, CollectiveSettings settings)
      : ILayer(network, LayerType::kDIST_COLLECTIVE, std::move(name), {input}), settings_(std::move(settings)) {
    const bool none = settings_.reduce == ReduceOperation::kNONE;
    if (reduces() && none) refuse("layer '" + name_ + "' reduces, but its ReduceOperation is kNONE");
    if (!reduces() && !none) refuse("layer '" + name_ + "' reduces nothing: its ReduceOperation must be kNONE");
    if (rooted() && root() < 0) refuse("layer '" + name_ + "': root " + std::to_string(settings_.root) + " is no rank of its group");
  }
  bool reduces() const {
    const auto op = settings_.operation;
    return op == CollectiveOperation::kALL_REDUCE || op == CollectiveOperation::kREDUCE || op == CollectiveOperation::kREDUCE_SCATTER;
  }
  bool rooted() const {
    const auto op = settings_.operation;
    return op == CollectiveOperation::kBROADCAST || op == CollectiveOperation::kREDUCE || op == CollectiveOperation::kGATHER ||
           op == CollectiveOperation::kSCATTER;
  }
  // Within the group; TensorRT counts over all ranks.
  std::int64_t root() const {
    const auto at = std::find(settings_.group.begin(), settings_.group.end(), settings_.root);
    if (settings_.group.empty()) return settings_.root;
    return at == settings_.group.end() ? -1 : at - settings_.group.begin();
  }
  Value lower(tandem::Network& network, const std::vector<Value>& inputs) const override {
    static constexpr const char* kWords[] = {"all_reduce",     "all_gather", "broadcast", "reduce",
                                             "reduce_scatter", "all_to_all", "gather",    "scatter"};
    static constexpr const char* kReductions[] = {"sum", "prod", "max", "min", "avg", ""};
    if (ranks_ == 1) return inputs.at(0);
    tandem::CollectiveOptions options;
    options.num_ranks = ranks_;
    options.reduce = kReductions[static_cast<std::size_t>(settings_.reduce)];
    if (rooted()) options.root = root();
    if (!settings_.group.empty()) options.groups = {settings_.group};
    return network.dist_collective(inputs.at(0), kWords[static_cast<std::size_t>(settings_.operation)], options, name_);
  }
  void check_whole() const override {
    const auto size = static_cast<std::int64_t>(settings_.group.size());
    if (size != 0 && size != ranks_)
      refuse("layer '" + name_ + "': setNbRanks is " + std::to_string(ranks_) + ", but its group has " + std::to_string(size) +
             " ranks; set it to that number");
    if (rooted() && root() >= ranks_)
      refuse("layer '" + name_ + "': root " + std::to_string(settings_.root) + " is no rank of " + std::to_string(ranks_));
  }
  CollectiveSettings settings_;
};

class IAttention : public ILayer {
 public:
  // What may be attended to (bool), or what is added to the scores; not together with a causal kind.
  bool setMask(ITensor& mask) {
    ITensor& given = own(mask);
    inputs_.resize(3);
    inputs_.push_back(&given);
    changed();
    return true;
  }
  // Either way it runs as one step here.
  bool setDecomposable(bool) { return true; }

 private:
  friend class INetworkDefinition;
  IAttention(INetworkDefinition* network, std::string name, std::vector<ITensor*> inputs, AttentionNormalizationOp norm,
             CausalMaskKind causal)
      : ILayer(network, LayerType::kATTENTION_OUTPUT, std::move(name), std::move(inputs)), causal_(causal) {
    if (norm != AttentionNormalizationOp::kSOFTMAX)
      unsupported("AttentionNormalizationOp::kNONE of layer '" + name_ + "'", "two matrix products are that");
  }
  Value lower(tandem::Network& network, const std::vector<Value>& inputs) const override {
    static constexpr const char* kWords[] = {"none", "upper_left", "lower_right"};
    if (inputs.size() > 3 && causal_ != CausalMaskKind::kNONE)
      refuse("layer '" + name_ + "': a mask and a causal kind exclude each other, as in TensorRT");
    tandem::AttentionOptions options;
    if (inputs.size() > 3) options.mask = inputs[3];
    options.scale = 1;
    options.causal = kWords[static_cast<std::size_t>(causal_)];
    options.num_ranks = ranks_;
    return network.attention(inputs.at(0), inputs.at(1), inputs.at(2), options, name_);
  }
  CausalMaskKind causal_;
};

}  // namespace nvinfer1
