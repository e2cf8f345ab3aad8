#include "ops/custom/registry.h"

#include <charconv>
#include <map>
#include <mutex>

#include "core/check.h"

namespace tandem {
namespace {

struct Registry {
  std::mutex mutex;
  std::map<std::string, CustomOp> ops;
};

Registry& registry() {
  static Registry one;
  return one;
}

// One attribute per line: name, a letter for the type, the value; of text its length first, since it may hold anything.
void write(std::string& out, const std::string& name, const CustomAttributes::Value& value) {
  out += name;
  if (const auto* integer = std::get_if<std::int64_t>(&value)) out += fmt::format(" i {}", *integer);
  else if (const auto* real = std::get_if<double>(&value)) out += fmt::format(" f {}", *real);
  else if (const auto* text = std::get_if<std::string>(&value)) out += fmt::format(" s {} {}", text->size(), *text);
  else if (const auto* integers = std::get_if<std::vector<std::int64_t>>(&value)) out += fmt::format(" I {}", fmt::join(*integers, ","));
  else out += fmt::format(" F {}", fmt::join(std::get<std::vector<double>>(value), ","));
  out += '\n';
}

// Reads what write() wrote.
class Reader {
 public:
  explicit Reader(const std::string& text) : text_(text) {}
  bool done() const { return at_ == text_.size(); }
  std::string until(char end) {
    const std::size_t found = text_.find(end, at_);
    if (found == std::string::npos) broken();
    return text_.substr(std::exchange(at_, found + 1), found - at_);
  }
  std::string take(std::size_t count) {
    if (count >= text_.size() - at_ || text_[at_ + count] != '\n') broken();
    return text_.substr(std::exchange(at_, at_ + count + 1), count);
  }
  template <typename T>
  static T number(const std::string& text) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) broken();
    return value;
  }
  template <typename T>
  static std::vector<T> numbers(const std::string& text) {
    std::vector<T> values;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = std::min(text.find(',', at), text.size());
      values.push_back(number<T>(text.substr(at, end - at)));
      at = end + 1;
    }
    return values;
  }
  [[noreturn]] static void broken() { fail(ErrorCode::invalid_model, "the attributes of a custom op are damaged"); }

 private:
  const std::string& text_;
  std::size_t at_ = 0;
};

}  // namespace

void register_op(CustomOp op) {
  if (op.domain.empty() || op.domain == "ai.onnx" || op.name.empty())
    fail(ErrorCode::invalid_argument, "an op needs a name, and a domain that is not ONNX's own");
  if (!op.cpu && !op.cuda) fail(ErrorCode::invalid_argument, "op '{}::{}' has code for no device", op.domain, op.name);
  const std::string name = op.domain + "::" + op.name;
  const std::lock_guard lock(registry().mutex);
  if (!registry().ops.try_emplace(name, std::move(op)).second) fail(ErrorCode::invalid_argument, "op '{}' is registered already", name);
}

const CustomOp* find_custom_op(const std::string& name) {
  const std::lock_guard lock(registry().mutex);
  const auto found = registry().ops.find(name);
  return found == registry().ops.end() ? nullptr : &found->second;
}

const CustomOp& custom_op_of(const OpCall& call) {
  const std::string& name = call.attributes.text("op");
  const CustomOp* op = find_custom_op(name);
  if (!op)
    fail(ErrorCode::unsupported, "op '{}' is not registered in this program: call tandem::register_op() before building or loading", name);
  return *op;
}

std::string to_text(const CustomAttributes& attributes) {
  std::string out;
  for (const auto& [name, value] : attributes.values()) write(out, name, value);
  return out;
}

CustomAttributes custom_attributes(const std::string& text) {
  std::map<std::string, CustomAttributes::Value> values;
  for (Reader reader(text); !reader.done();) {
    const std::string name = reader.until(' '), kind = reader.until(' ');
    if (kind == "i") values[name] = Reader::number<std::int64_t>(reader.until('\n'));
    else if (kind == "f") values[name] = Reader::number<double>(reader.until('\n'));
    else if (kind == "s") values[name] = reader.take(Reader::number<std::size_t>(reader.until(' ')));
    else if (kind == "I") values[name] = Reader::numbers<std::int64_t>(reader.until('\n'));
    else if (kind == "F") values[name] = Reader::numbers<double>(reader.until('\n'));
    else Reader::broken();
  }
  return CustomAttributes(std::move(values));
}

}  // namespace tandem
