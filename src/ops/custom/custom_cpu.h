// A user's function bound to shapes, for the kernels of every device.
#pragma once

#include <vector>

#include "ops/custom/registry.h"
#include "ops/kernel.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {

class CustomKernel final : public PreparedKernel {
 public:
  CustomKernel(const OpCall& call, const std::function<void(const CustomCall&)>& function)
      : function_(function), attributes_(custom_attributes(call.attributes.text("attributes"))) {
    for (const auto& type : call.operands) operands_.push_back(type ? CustomTensor{type->dtype, shape_of(*type)} : CustomTensor());
    for (const Type& type : call.results) results_.push_back({type.dtype, shape_of(type)});
  }

  void run(const RunArgs& args) const override {
    for (std::size_t i = 0; i < operands_.size(); ++i) operands_[i].data = const_cast<std::byte*>(args.operands[i]);
    for (std::size_t i = 0; i < results_.size(); ++i) results_[i].data = args.results[i];
    function_({attributes_, operands_, results_, args.stream.native()});
  }

 private:
  const std::function<void(const CustomCall&)>& function_;
  CustomAttributes attributes_;
  mutable std::vector<CustomTensor> operands_, results_;  // by one thread at a time
};

// Null if the op is registered with a function for that kind of device.
std::optional<std::string> custom_refusal(const OpCall& call, std::function<void(const CustomCall&)> CustomOp::*function,
                                          std::string_view device);

}  // namespace tandem::kernels
