// Ops of the user's own: a name, what comes out of them, and code that computes it. Public; belongs to ops.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "tandem/error.h"
#include "tandem/types.h"

namespace tandem {

// Extents are numbers, or expressions over the dynamic dimensions like "batch" or "2*sequence".
struct CustomType {
  DType dtype = DType::f32;
  std::vector<std::string> shape;
};

// The attributes of a node, by name. Each call throws Error(invalid_model) where the attribute has another type; `otherwise` where it is
// absent.
class CustomAttributes {
 public:
  using Value = std::variant<std::int64_t, double, std::string, std::vector<std::int64_t>, std::vector<double>>;
  explicit CustomAttributes(std::map<std::string, Value> values = {}) : values_(std::move(values)) {}
  std::int64_t integer(const std::string& name, std::int64_t otherwise) const { return get(name, otherwise); }
  double real(const std::string& name, double otherwise) const { return get(name, otherwise); }
  std::string text(const std::string& name, std::string otherwise) const { return get(name, std::move(otherwise)); }
  std::vector<std::int64_t> integers(const std::string& name, std::vector<std::int64_t> otherwise = {}) const {
    return get(name, std::move(otherwise));
  }
  std::vector<double> reals(const std::string& name, std::vector<double> otherwise = {}) const { return get(name, std::move(otherwise)); }
  const std::map<std::string, Value>& values() const { return values_; }

 private:
  template <typename T>
  T get(const std::string& name, T otherwise) const {
    const auto found = values_.find(name);
    if (found == values_.end()) return otherwise;
    if (const T* value = std::get_if<T>(&found->second)) return *value;
    throw Error(ErrorCode::invalid_model, "attribute '" + name + "' has another type");
  }
  std::map<std::string, Value> values_;
};

// Dense, row-major, what one rank holds.
struct CustomTensor {
  DType dtype = DType::f32;
  Shape shape;
  void* data = nullptr;  // on the rank's device; null for an operand that is absent
};

struct CustomCall {
  const CustomAttributes& attributes;
  std::span<const CustomTensor> operands;  // only to be read
  std::span<const CustomTensor> results;   // to be written completely
  // cuda: the cudaStream_t that the work is to be given to, on the thread's current GPU. It may be recorded, and is replayed with the same
  // addresses: allocate nothing, wait for nothing. cpu: null; all is done on return.
  void* stream = nullptr;
};

struct CustomOp {
  std::string domain;  // of the ONNX nodes that stand for it, "" or "ai.onnx" excepted
  std::string name;    // their op_type
  // Types of the results. Empty: one, of the type of operand 0. Errors that it throws are told with the node.
  std::function<std::vector<CustomType>(std::span<const CustomType> operands, const CustomAttributes& attributes)> infer = {};
  // What may be split over ranks, as a formula: "b s h, h -> b s h" has one word per dimension; '!' after a word keeps it whole, "..."
  // stands for leading dimensions. Empty: every rank computes all of it.
  std::string sharding = {};
  // By kind of device. GPUs without a function of theirs take that of the CPU, with copies to the host and back.
  std::function<void(const CustomCall&)> cpu = {}, cuda = {};
};

// Before a model that has the op is built, and before an engine that has it is loaded, in every process that does. Never taken back.
// Callable from any thread; its functions must be too. Throws Error(invalid_argument) for a name that is taken or no name.
void register_op(CustomOp op);

}  // namespace tandem
