// NonZero in two passes: blocks of elements are counted, and each then writes from where those before it end.
#include <algorithm>
#include <cstring>

#include "core/tensor.h"
#include "ops/gather/nonzero.h"
#include "ops/kernel.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

constexpr std::int64_t kBlock = 1 << 14;  // elements

class NonZero final : public PreparedKernel {
 public:
  explicit NonZero(const OpCall& call) : dtype_(call.operand(0).dtype), shape_(shape_of(call.operand(0))), count_(element_count(shape_)) {
    if (bits(dtype_) >= 8) view_ = nonzero_view(call);
  }

  std::size_t workspace_bytes() const override { return static_cast<std::size_t>(blocks()) * sizeof(std::int64_t); }

  void run(const RunArgs& args) const override {
    auto* starts = reinterpret_cast<std::int64_t*>(args.workspace);
    args.pool().split(blocks(), 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t b = begin; b < end; ++b) {
        starts[b] = 0;
        each(b, args.operands[0], [&](std::int64_t) { ++starts[b]; });
      }
    });
    std::int64_t found = 0;
    for (std::int64_t b = 0; b < blocks(); ++b) found += std::exchange(starts[b], found);
    std::memcpy(args.results[1], &found, sizeof found);
    auto* indices = reinterpret_cast<std::int64_t*>(args.results[0]);
    args.pool().split(blocks(), 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t b = begin; b < end; ++b) {
        std::int64_t at = starts[b];
        each(b, args.operands[0], [&](std::int64_t i) { write(i, indices + at++, found); });
      }
    });
  }

 private:
  std::int64_t blocks() const { return (count_ + kBlock - 1) / kBlock; }

  // Calls f(index) for the elements of a block that are not zero.
  template <typename F>
  void each(std::int64_t block, const std::byte* x, const F& f) const {
    switch (view_.element_bytes * (bits(dtype_) < 8 ? 0 : 1)) {
      case 0:
        return each_if(
            block, [&](std::int64_t i) { return load_int(dtype_, x, i) != 0; }, f);
      case 1: return each_as<std::uint8_t>(block, x, f);
      case 2: return each_as<std::uint16_t>(block, x, f);
      case 4: return each_as<std::uint32_t>(block, x, f);
      default: return each_as<std::uint64_t>(block, x, f);
    }
  }

  template <typename U, typename F>
  void each_as(std::int64_t block, const std::byte* x, const F& f) const {
    const auto* from = reinterpret_cast<const U*>(x);
    const auto mask = static_cast<U>(view_.mask);
    each_if(
        block, [&](std::int64_t i) { return (from[i] & mask) != 0; }, f);
  }

  template <typename Is, typename F>
  void each_if(std::int64_t block, const Is& is, const F& f) const {
    for (std::int64_t i = block * kBlock, end = std::min(count_, i + kBlock); i < end; ++i)
      if (is(i)) f(i);
  }

  // The index of element i, down a column of a matrix with rows of `stride`.
  void write(std::int64_t i, std::int64_t* to, std::int64_t stride) const {
    for (std::size_t d = shape_.size(); d-- > 0; i /= shape_[d]) to[static_cast<std::int64_t>(d) * stride] = i % shape_[d];
  }

  DType dtype_;
  Shape shape_;
  std::int64_t count_;
  NonZeroView view_;
};

}  // namespace

extern const KernelDef nonzero;
const KernelDef nonzero = {
    .name = "nonzero",
    .op = "NonZero",
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<NonZero>(args.call); },
};

}  // namespace tandem::kernels
