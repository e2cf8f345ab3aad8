#include "import/onnx/symbols.h"

#include <algorithm>
#include <cctype>

#include "core/check.h"
#include "ops/onnx_dtype.h"

namespace tandem::onnx_import {
namespace {

constexpr std::size_t kExpressionLimit = 96;  // characters; longer ones are names like any other
constexpr std::ptrdiff_t kProductLimit = 8;   // '*' in an expression: expanding products grows fast

bool is_plain_name(const std::string& text) {
  const auto part = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.'; };
  return !text.empty() && text.size() <= kExpressionLimit && !std::isdigit(static_cast<unsigned char>(text[0])) && text[0] != '.' &&
         std::ranges::all_of(text, part);
}

std::optional<Dim> parse(const std::string& text) {
  if (text.size() > kExpressionLimit || text.find('@') != std::string::npos || std::ranges::count(text, '*') > kProductLimit)
    return std::nullopt;
  try {
    return Dim::parse(text);
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

Symbols::Symbols(const std::vector<const onnx::ValueInfoProto*>& inputs) {
  for (const onnx::ValueInfoProto* input : inputs)
    for (const auto& dim : input->type().tensor_type().shape().dim())
      if (dim.has_dim_param() && is_plain_name(dim.dim_param())) alone_.insert(dim.dim_param());
  taken_ = alone_;
}

Dim Symbols::named(const std::string& text) {
  if (const auto found = by_text_.find(text); found != by_text_.end()) return found->second;
  std::string name;
  for (const char c : text.substr(0, kExpressionLimit)) name += std::isalnum(static_cast<unsigned char>(c)) || c == '.' ? c : '_';
  if (name.empty() || (!std::isalpha(static_cast<unsigned char>(name[0])) && name[0] != '_')) name = "_" + name;
  const std::string wanted = name;
  for (int i = 1; !taken_.insert(name).second; ++i) name = fmt::format("{}_{}", wanted, i);
  return by_text_[text] = Dim::symbol(name);
}

Dim Symbols::dim_of(const onnx::TensorShapeProto::Dimension& dim, const std::string& input, int index) {
  if (dim.has_dim_value() && dim.dim_value() >= 0) return dim.dim_value();
  const std::string& text = dim.dim_param();
  if (dim.has_dim_value() || text.empty()) return named(fmt::format("{}_dim_{}", input, index));  // -1 and nothing: unknown
  if (alone_.contains(text)) return Dim::symbol(text);
  const auto parsed = parse(text);
  std::set<std::string> symbols;
  if (parsed) parsed->collect_symbols(symbols);
  const bool bindable = parsed && std::ranges::includes(alone_, symbols) && !(parsed->is_constant() && parsed->constant() < 0);
  return bindable ? *parsed : named(text);
}

Type Symbols::type_of(const onnx::ValueInfoProto& input) {
  if (!input.type().has_tensor_type())
    fail(ErrorCode::unsupported, "input '{}' is no tensor; sequences, maps and optional values are not supported", input.name());
  const auto& tensor = input.type().tensor_type();
  if (!tensor.has_shape()) fail(ErrorCode::unsupported, "input '{}' has no rank; export the model with shapes", input.name());
  if (tensor.shape().dim_size() > 64) fail(ErrorCode::invalid_model, "input '{}' has rank {}", input.name(), tensor.shape().dim_size());
  Type type;
  try {
    type.dtype = dtype_from_onnx(tensor.elem_type());
  } catch (const Error& error) {
    fail(error.code(), "input '{}': {}", input.name(), error.message());
  }
  for (int i = 0; i < tensor.shape().dim_size(); ++i) type.dims.push_back(dim_of(tensor.shape().dim(i), input.name(), i));
  return type;
}

}  // namespace tandem::onnx_import
