#include "docs/op_reference.h"

#include <sstream>

#include "core/check.h"
#include "graph/text_values.h"
#include "ops/ops.h"

namespace tandem::testing {
namespace {

constexpr std::string_view kHead =
    "# Ops\n"
    "Made from `src/ops/ops.def`; do not edit. When it is stale, the test `docs_test` says how to renew it.\n\n"
    "An attribute shows its type and default. *Pointwise*: element i of the result depends on the elements i of the operands, after numpy's "
    "broadcasting. *Collective*: all ranks of a group take part. ONNX names carry the first opset they are read from.\n";

std::string_view kind_word(FieldKind kind) {
  switch (kind) {
    case FieldKind::integer: return "integer";
    case FieldKind::real: return "real";
    case FieldKind::boolean: return "bool";
    case FieldKind::text: return "text";
    case FieldKind::integers: return "integers";
    case FieldKind::dim: return "dim";
    case FieldKind::dims: return "dims";
    case FieldKind::dtype: return "dtype";
    case FieldKind::tensor: return "tensor";
    case FieldKind::rank_lists: break;
  }
  return "lists of ranks";
}

std::string operands(const OpDef& op) {
  if (op.max_operands < 0) return fmt::format("{} or more", op.min_operands);
  if (op.min_operands == op.max_operands) return op.max_operands == 0 ? "none" : fmt::format("{}", op.max_operands);
  return fmt::format("{} to {}", op.min_operands, op.max_operands);
}

std::string onnx_names(const OpDef& op) {
  std::string text;
  for (const OnnxRule& rule : op.onnx) {
    text += fmt::format("{}`{}{}{}`", text.empty() ? "" : ", ", rule.domain, rule.domain.empty() ? "" : ".", rule.op_type);
    if (rule.since > 1) text += fmt::format(" from {}", rule.since);
  }
  return text;
}

std::string section(const OpDef& op) {
  std::string text = fmt::format("\n### {}\n{}\n\n", op.name, op.doc);
  text += fmt::format("Operands: {}.{}{}", operands(op), op.pointwise ? " Pointwise." : "", op.collective ? " Collective." : "");
  if (!op.onnx.empty()) text += fmt::format(" ONNX: {}.", onnx_names(op));
  text += "\n";
  for (const Field& field : op.fields) {
    std::string words;
    for (const std::string& word : field.words) words += fmt::format("{}`{}`", words.empty() ? ": " : ", ", word);
    text += fmt::format("- `{}` ({} = `{}`) – {}{}\n", field.name, kind_word(field.kind), print_value(field.initial), field.doc, words);
  }
  return text;
}

}  // namespace

std::string op_reference(const std::string& list) {
  std::string text(kHead);
  std::istringstream lines(list);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("// ") && line.ends_with("/")) {
      text += fmt::format("\n## {}\n", line.substr(3, line.size() - 4));
    } else if (line.starts_with("TANDEM_OP(")) {
      const std::string name = line.substr(10, line.find(')') - 10);
      const OpDef* op = all_ops().find(name);
      check(op != nullptr, "a line of ops.def is an op");
      text += section(*op);
    }
  }
  return text;
}

}  // namespace tandem::testing
