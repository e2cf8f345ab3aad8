// Kernels of ops that move elements without looking at them.
#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "ops/kernel.h"
#include "ops/layout/copy_cpu.h"
#include "ops/layout/views.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

std::optional<std::string> refuse_parts_of_bytes(const OpCall& call) {
  if (bits(call.operand(0).dtype) < 8) return "its elements are parts of bytes";
  return std::nullopt;
}

class Strided final : public PreparedKernel {
 public:
  explicit Strided(StridedCopy copy) : copy_(std::move(copy)) {}
  void run(const RunArgs& args) const override { copy_.run(args.pool(), args.operands[0], args.results[0]); }

 private:
  StridedCopy copy_;
};

template <OperandView (*kView)(const OpCall&)>
std::unique_ptr<PreparedKernel> prepare_view(const PrepareArgs& args) {
  const OperandView view = kView(args.call);
  const auto size = static_cast<std::size_t>(bits(args.call.operand(0).dtype)) / 8;
  return std::make_unique<Strided>(StridedCopy(size, shape_of(args.call.results.at(0)), view.strides, view.offset));
}

class Reshape final : public PreparedKernel {
 public:
  explicit Reshape(const OpCall& call) : size_(bytes(call.operand(0).dtype, element_count(shape_of(call.operand(0))))) {}
  void run(const RunArgs& args) const override {
    if (args.operands[0] != args.results[0]) copy_bytes(args.pool(), args.operands[0], args.results[0], size_);
  }

 private:
  std::size_t size_;
};

// Parts of [outer, extent, inner] blocks one after the other.
class Concat final : public PreparedKernel {
 public:
  explicit Concat(const OpCall& call) {
    const int axis = normalize_axis(call.attributes.integer("axis"), call.results.at(0).rank());
    const AxisView whole(shape_of(call.results[0]), axis);
    outer_ = whole.outer;
    line_ = bytes(call.results[0].dtype, whole.extent * whole.inner);
    for (std::size_t i = 0; i < call.operands.size(); ++i)
      parts_.push_back(bytes(call.results[0].dtype, AxisView(shape_of(call.operand(i)), axis).extent * whole.inner));
  }
  void run(const RunArgs& args) const override {
    const std::int64_t grain = std::max<std::int64_t>(1, (1 << 16) / static_cast<std::int64_t>(std::max<std::size_t>(line_, 1)));
    args.pool().split(outer_, grain, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t o = begin; o < end; ++o) {
        std::byte* to = args.results[0] + static_cast<std::size_t>(o) * line_;
        for (std::size_t i = 0; i < parts_.size(); to += parts_[i++])
          if (parts_[i] != 0) std::memcpy(to, args.operands[i] + static_cast<std::size_t>(o) * parts_[i], parts_[i]);
      }
    });
  }

 private:
  std::int64_t outer_ = 0;
  std::size_t line_ = 0;
  std::vector<std::size_t> parts_;
};

// Rows begin … begin+length along one dimension; what lies past the end is zero.
class ShardSlice final : public PreparedKernel {
 public:
  explicit ShardSlice(const OpCall& call) {
    const ShardRows rows = shard_rows(call);
    const DType dtype = call.operand(0).dtype;
    outer_ = rows.outer;
    from_line_ = bytes(dtype, rows.extent * rows.inner);
    to_line_ = bytes(dtype, rows.length * rows.inner);
    copied_ = bytes(dtype, rows.copied * rows.inner);
    offset_ = copied_ == 0 ? 0 : bytes(dtype, rows.begin * rows.inner);
  }
  void run(const RunArgs& args) const override {
    for (std::int64_t o = 0; o < outer_; ++o) {
      std::byte* to = args.results[0] + static_cast<std::size_t>(o) * to_line_;
      if (copied_ != 0) std::memcpy(to, args.operands[0] + static_cast<std::size_t>(o) * from_line_ + offset_, copied_);
      if (copied_ != to_line_) std::memset(to + copied_, 0, to_line_ - copied_);
    }
  }

 private:
  std::int64_t outer_ = 0;
  std::size_t from_line_ = 0, to_line_ = 0, copied_ = 0, offset_ = 0;
};

template <typename K>
std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  return std::make_unique<K>(args.call);
}

}  // namespace

extern const KernelDef concat, expand, reshape, shard_slice, slice, transpose;
const KernelDef concat = {.name = "concat", .op = "Concat", .refuse = refuse_parts_of_bytes, .prepare = prepare<Concat>};
const KernelDef expand = {.name = "expand", .op = "Expand", .refuse = refuse_parts_of_bytes, .prepare = prepare_view<expand_view>};
const KernelDef reshape = {.name = "reshape", .op = "Reshape", .prepare = prepare<Reshape>, .in_place_operand = 0};
const KernelDef shard_slice = {.name = "shard_slice", .op = "ShardSlice", .refuse = refuse_parts_of_bytes, .prepare = prepare<ShardSlice>};
const KernelDef slice = {.name = "slice", .op = "Slice", .refuse = refuse_parts_of_bytes, .prepare = prepare_view<slice_view>};
const KernelDef transpose = {
    .name = "transpose", .op = "Transpose", .refuse = refuse_parts_of_bytes, .prepare = prepare_view<transpose_view>};

}  // namespace tandem::kernels
