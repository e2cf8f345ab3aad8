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
    "An attribute shows its type and default. *Pointwise*: element i of the result depends on the elements i of the operands, after "
    "numpy's "
    "broadcasting. *Collective*: all ranks of a group take part. ONNX names carry the first opset they are read from.\n";

// "a, b; bias ([n]) and residual may be absent"
std::string operands(const OpDef& op) {
  if (op.operands.empty()) return "none";
  std::string text;
  for (std::size_t i = 0; i < op.operands.size(); ++i) {
    text += i == 0 ? "" : static_cast<int>(i) == op.min_operands ? "; may be absent: " : ", ";
    text += fmt::format("`{}`{}", op.operands[i].name, op.operands[i].doc.empty() ? "" : fmt::format(" ({})", op.operands[i].doc));
  }
  return op.max_operands < 0 ? fmt::format("{} ({} or more)", text, op.min_operands) : text;
}

std::string results(const OpDef& op) {
  if (op.results.size() == 1) return {};
  std::string text;
  for (const Operand& result : op.results) text += fmt::format("{}`{}`", text.empty() ? "" : ", ", result.name);
  return fmt::format(" Results: {}.", text);
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
  text +=
      fmt::format("Operands: {}.{}{}{}", operands(op), results(op), op.pointwise ? " Pointwise." : "", op.collective ? " Collective." : "");
  if (!op.onnx.empty()) text += fmt::format(" ONNX: {}.", onnx_names(op));
  text += "\n";
  for (const Field& field : op.fields) {
    std::string words;
    for (const std::string& word : field.words) words += fmt::format("{}`{}`", words.empty() ? ": " : ", ", word);
    text += fmt::format("- `{}` ({} = `{}`) – {}{}\n", field.name, to_string(field.kind), print_value(field.initial), field.doc, words);
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
