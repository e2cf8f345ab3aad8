#include "tandem/ops.h"

#include <algorithm>
#include <cctype>

#include "api/build/op_attributes.h"
#include "core/check.h"
#include "graph/text_values.h"
#include "ops/ops.h"

namespace tandem {
namespace {

// "LayerNorm" → "layer_norm", "GatherND" → "gather_nd".
std::string method_name(std::string_view name) {
  if (name == "MatMul") return "matmul";
  if (name == "DequantMatMul") return "dequant_matmul";
  if (name == "QuantMatMul") return "quant_matmul";
  if (name == "IsNaN") return "is_nan";
  const auto upper = [&](std::size_t i) { return i < name.size() && std::isupper(static_cast<unsigned char>(name[i])) != 0; };
  std::string method;
  for (std::size_t i = 0; i < name.size(); ++i) {
    if (i > 0 && upper(i) && !upper(i - 1)) method += '_';
    method += static_cast<char>(std::tolower(static_cast<unsigned char>(name[i])));
  }
  return method;
}

OpInfo info_of(const OpDef& op) {
  OpInfo info{.name = std::string(op.name), .method = method_name(op.name), .doc = std::string(op.doc)};
  for (std::size_t i = 0; i < op.operands.size(); ++i)
    info.operands.push_back({std::string(op.operands[i].name), std::string(op.operands[i].doc), static_cast<int>(i) >= op.min_operands});
  info.variadic = op.max_operands < 0;
  for (const Operand& result : op.results) info.results.push_back({std::string(result.name), std::string(result.doc)});
  for (const Field& field : op.fields)
    info.attributes.push_back(
        {field.name, std::string(to_string(field.kind)), to_public(field.initial), print_value(field.initial), field.words, field.doc});
  info.pointwise = op.pointwise;
  info.collective = op.collective;
  return info;
}

// Letters to insert, drop or change; upper and lower case are alike.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t corner = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const bool equal = std::tolower(static_cast<unsigned char>(a[i - 1])) == std::tolower(static_cast<unsigned char>(b[j - 1]));
      const std::size_t change = corner + (equal ? 0 : 1);
      corner = row[j];
      row[j] = std::min({change, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

Extent::Extent(const std::string& expression) {
  const Dim dim = Dim::parse(expression);
  text_ = dim.to_string();
  value_ = dim.value();
}

const std::vector<OpInfo>& list_ops() {
  static const std::vector<OpInfo> list = [] {
    std::vector<OpInfo> made;
    for (const OpDef* op : all_ops().all()) made.push_back(info_of(*op));
    return made;
  }();
  return list;
}

const OpInfo& op_info(const std::string& name) {
  const auto found = std::ranges::find(list_ops(), name, &OpInfo::name);
  if (found != list_ops().end()) return *found;
  std::vector<std::string> close;
  for (const OpInfo& op : list_ops())
    if (distance(name, op.name) <= 2 || name == op.method) close.push_back(op.name);
  fail(ErrorCode::invalid_argument, "there is no op '{}'{}", name,
       close.empty() ? "; docs/ops.md lists them" : fmt::format("; did you mean {}?", fmt::join(close, " or ")));
}

}  // namespace tandem
