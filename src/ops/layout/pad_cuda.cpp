#include "ops/layout/pad_cuda.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "core/tensor.h"
#include "device/cuda/runtime.h"
#include "ops/aligned_cuda.h"
#include "ops/kernel.h"
#include "ops/shape_rules.h"
#include "ops/start_cuda.h"

namespace tandem::kernels {
namespace {

// One dimension: rows of the operand, `stride` elements apart, and those added.
struct Padded {
  std::int64_t before, from, after, stride;
  std::int64_t extent() const { return before + from + after; }
  bool grows() const { return before > 0 || after > 0; }
};

// Innermost first; errors as the evaluator has them.
std::vector<Padded> padded_axes(const OpCall& call, cuda::PadMode mode) {
  const Shape from = shape_of(call.operand(0)), strides = row_major_strides(from);
  const auto& pads = call.attributes.dims("pads");
  std::vector<Padded> axes;
  for (std::size_t d = from.size(); d-- > 0;) {
    const Padded axis{pads[d].constant(), from[d], pads[d + from.size()].constant(), strides[d]};
    const std::int64_t most = std::max(axis.before, axis.after);
    if (mode == cuda::PadMode::reflect && most >= std::max<std::int64_t>(axis.from, 1))
      fail(ErrorCode::invalid_argument, "reflecting {} and {} rows needs more than {}", axis.before, axis.after, axis.from);
    if (mode == cuda::PadMode::edge && axis.from == 0 && axis.grows()) fail(ErrorCode::invalid_argument, "there is no edge to repeat");
    axes.push_back(axis);
  }
  return axes;
}

// A dimension whose inner neighbour is not padded becomes one with it, if it is not padded either or is so with one value.
std::vector<Padded> merged(const std::vector<Padded>& axes, cuda::PadMode mode) {
  std::vector<Padded> out;
  for (const Padded& axis : axes) {
    if (out.empty() || out.back().grows() || (axis.grows() && mode != cuda::PadMode::constant)) {
      out.push_back(axis);
      continue;
    }
    Padded& inner = out.back();
    inner = {axis.before * inner.from, axis.from * inner.from, axis.after * inner.from, inner.stride};
  }
  return out;
}

// Pairs of elements that are always moved together become one, up to 16 bytes.
void widen(std::vector<Padded>& axes, int& bytes, cuda::PadMode mode) {
  const auto even = [](std::int64_t n) { return n % 2 == 0; };
  if (axes.empty() || (axes[0].grows() && mode != cuda::PadMode::constant)) return;
  while (bytes < 16 && axes[0].extent() > 0 && even(axes[0].before) && even(axes[0].from) && even(axes[0].after)) {
    bytes *= 2;
    axes[0] = {axes[0].before / 2, axes[0].from / 2, axes[0].after / 2, 1};
    for (auto a = axes.begin() + 1; a != axes.end(); ++a) a->stride /= 2;
  }
}

class Pad final : public PreparedKernel {
 public:
  explicit Pad(const OpCall& call) : views_{view(call, true), view(call, false)} {}

  void run(const RunArgs& args) const override {
    cuda::launch_pad(views_.at({args.operands[0], args.results[0]}), args.operands[0], args.results[0], cuda::start_of(args));
    cuda::check_launch("pad");
  }

 private:
  static cuda::PadView view(const OpCall& call, bool wide) {
    const DType dtype = call.operand(0).dtype;
    const std::string& mode = call.attributes.text("mode");
    cuda::PadView v;
    v.mode = mode == "constant" ? cuda::PadMode::constant : mode == "edge" ? cuda::PadMode::edge : cuda::PadMode::reflect;
    v.bytes = bits(dtype) / 8;
    for (int i = 0; i < 16 / v.bytes; ++i) store_element(dtype, reinterpret_cast<std::byte*>(&v.value), i, call.attributes.real("value"));
    std::vector<Padded> axes = padded_axes(call, v.mode);
    const std::int64_t count = element_count(shape_of(call.results.at(0)));
    if (count == 0) return v;
    axes = merged(axes, v.mode);
    const int element = v.bytes;
    if (wide) widen(axes, v.bytes, v.mode);
    const std::int64_t items = count * element / v.bytes;
    if (items > cuda::kMostItems) fail(ErrorCode::unsupported, "{} elements are more than one kernel counts", items);
    v.items = static_cast<std::uint32_t>(items);
    for (const Padded& axis : axes) {
      v.extents[v.rank] = cuda::Divisor(axis.extent());
      v.before[v.rank] = axis.before;
      v.from[v.rank] = axis.from;
      v.strides[v.rank] = axis.stride;
      ++v.rank;
    }
    return v;
  }

  cuda::Plans<cuda::PadView> views_;
};

class Trilu final : public PreparedKernel {
 public:
  explicit Trilu(const OpCall& call) : views_{view(call, true), view(call, false)} {}

  void run(const RunArgs& args) const override {
    cuda::launch_trilu(views_.at({args.operands[0], args.results[0]}), args.operands[0], args.results[0], cuda::start_of(args));
    cuda::check_launch("trilu");
  }

 private:
  static cuda::TriluView view(const OpCall& call, bool wide) {
    const Shape shape = shape_of(call.operand(0));
    cuda::TriluView v;
    v.bytes = bits(call.operand(0).dtype) / 8;
    v.upper = call.attributes.boolean("upper");
    v.k = call.attributes.dim("k").constant();
    v.items = element_count(shape);
    if (v.items == 0) return v;
    const std::int64_t columns = shape.back(), vector = wide && columns % (16 / v.bytes) == 0 ? 16 / v.bytes : 1;
    v.vectors = vector > 1;
    v.items /= vector;
    if (v.items > cuda::kMostItems) fail(ErrorCode::unsupported, "{} elements are more than one kernel counts", v.items);
    v.columns = cuda::Divisor(columns / vector);
    v.rows = cuda::Divisor(shape[shape.size() - 2]);
    return v;
  }

  cuda::Plans<cuda::TriluView> views_;
};

std::optional<std::string> refuse(const OpCall& call) {
  if (bits(call.operand(0).dtype) < 8) return "its elements are parts of bytes";
  if (call.operand(0).rank() > cuda::kPadRank) return fmt::format("it has more than {} dimensions", cuda::kPadRank);
  return std::nullopt;
}

template <typename K>
std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  return std::make_unique<K>(args.call);
}

}  // namespace

extern const KernelDef cuda_pad, cuda_trilu;
const KernelDef cuda_pad = {
    .name = "cuda_pad", .op = "Pad", .refuse = refuse, .prepare = prepare<Pad>, .device = "cuda", .dependent = true};
const KernelDef cuda_trilu = {.name = "cuda_trilu",
                              .op = "Trilu",
                              .refuse = refuse,
                              .prepare = prepare<Trilu>,
                              .in_place_operand = 0,
                              .device = "cuda",
                              .dependent = true};

}  // namespace tandem::kernels
