// ITensor and ILayer: what networks are made of. Public; include tandem/tensorrt.h.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tandem/network.h"
#include "tandem/tensorrt/types.h"

namespace nvinfer1 {

class ILayer;
class INetworkDefinition;

// A value of a network; belongs to it. Its type and extents follow from the layers as they are when they are asked for.
class ITensor {
 public:
  const char* getName() const { return name_.c_str(); }
  void setName(const char* name) {
    name_ = name;
    changed();
  }
  inline Dims getDimensions() const;
  inline DataType getType() const;
  bool isNetworkInput() const { return input_; }

 private:
  friend class ILayer;
  friend class INetworkDefinition;
  ITensor(INetworkDefinition* network, std::string name, ILayer* layer) : network_(network), name_(std::move(name)), layer_(layer) {}
  inline void changed();
  INetworkDefinition* network_;
  std::string name_;
  ILayer* layer_;
  bool input_ = false;
  DataType type_ = DataType::kFLOAT;  // of inputs that were added
  Dims dims_;
};

// A layer; belongs to its network. What is wrong with its settings is told at the latest when the network is built.
class ILayer {
 public:
  virtual ~ILayer() = default;
  LayerType getType() const { return type_; }
  const char* getName() const { return name_.c_str(); }
  void setName(const char* name) {
    name_ = name;
    changed();
  }
  std::int32_t getNbInputs() const { return static_cast<std::int32_t>(inputs_.size()); }
  std::int32_t getNbOutputs() const { return 1; }
  ITensor* getInput(std::int32_t index) const {
    return index >= 0 && index < getNbInputs() ? inputs_[static_cast<std::size_t>(index)] : nullptr;
  }
  ITensor* getOutput(std::int32_t index) const { return index == 0 ? output_.get() : nullptr; }
  // How many ranks take part. Above 1 only collectives and attention can have; once above 1 it cannot be changed. Throws otherwise.
  bool setNbRanks(std::int32_t ranks) {
    if (ranks < 1) refuse("the number of ranks of layer '" + name_ + "' is " + std::to_string(ranks) + ", expected one from 1");
    if (ranks > 1 && type_ != LayerType::kDIST_COLLECTIVE && type_ != LayerType::kATTENTION_OUTPUT)
      unsupported("setNbRanks of layer '" + name_ + "'", "only collectives and attention run on several ranks");
    if (ranks_ > 1 && ranks != ranks_)
      refuse("the number of ranks of layer '" + name_ + "' is " + std::to_string(ranks_) + " and cannot be changed any more");
    ranks_ = ranks;
    changed();
    return true;
  }
  std::int32_t getNbRanks() const { return ranks_; }

 protected:
  using Value = tandem::Network::Value;
  ILayer(INetworkDefinition* network, LayerType type, std::string name, std::vector<ITensor*> inputs)
      : network_(network),
        type_(type),
        name_(std::move(name)),
        inputs_(std::move(inputs)),
        output_(new ITensor(network, name_ + "_output", this)) {}
  inline void changed();
  // The tensor, which must be of this layer's network.
  inline ITensor& own(ITensor& tensor) const;
  // Adds what the layer means.
  virtual Value lower(tandem::Network& network, const std::vector<Value>& inputs) const = 0;
  // Refuses settings that a network in the making may have, but not one that is built.
  virtual void check_whole() const {}

  friend class INetworkDefinition;
  INetworkDefinition* network_;
  LayerType type_;
  std::string name_;
  std::vector<ITensor*> inputs_;
  std::int32_t ranks_ = 1;
  std::unique_ptr<ITensor> output_;
};

}  // namespace nvinfer1
