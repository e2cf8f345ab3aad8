#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "core/tensor.h"
#include "ops/gather/index.h"
#include "ops/kernel.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

// Whole rows of a table.
class Gather final : public PreparedKernel {
 public:
  explicit Gather(const OpCall& call)
      : view_(shape_of(call.operand(0)), normalize_axis(call.attributes.integer("axis"), call.operand(0).rank())),
        indices_(element_count(shape_of(call.operand(1)))),
        index_dtype_(call.operand(1).dtype),
        row_(bytes(call.operand(0).dtype, view_.inner)),
        rows_(gather_rows(call, view_.extent)) {}

  void run(const RunArgs& args) const override {
    const std::int64_t grain = std::max<std::int64_t>(1, (1 << 15) / static_cast<std::int64_t>(std::max<std::size_t>(row_, 1)));
    args.pool().split(view_.outer * indices_, grain, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin; i < end; ++i) {
        const auto row = rows_.find(load_int(index_dtype_, args.operands[1], i % indices_));
        std::byte* to = args.results[0] + static_cast<std::size_t>(i) * row_;
        if (row_ == 0) continue;
        if (!row) std::memset(to, 0, row_);  // another rank's row
        else std::memcpy(to, args.operands[0] + static_cast<std::size_t>(i / indices_ * view_.extent + *row) * row_, row_);
      }
    });
  }

 private:
  AxisView view_;
  std::int64_t indices_;
  DType index_dtype_;
  std::size_t row_;
  GatherRows rows_;
};

// Blocks of data named by tuples of indices.
class GatherND final : public PreparedKernel {
 public:
  explicit GatherND(const OpCall& call) : index_dtype_(call.operand(1).dtype) {
    const Shape from = shape_of(call.operand(0)), indices = shape_of(call.operand(1)), strides = row_major_strides(from);
    const auto batch = static_cast<std::size_t>(call.attributes.integer("batch_dims")), length = static_cast<std::size_t>(indices.back());
    extents_ = {from.begin() + static_cast<std::ptrdiff_t>(batch), from.begin() + static_cast<std::ptrdiff_t>(batch + length)};
    strides_ = {strides.begin() + static_cast<std::ptrdiff_t>(batch), strides.begin() + static_cast<std::ptrdiff_t>(batch + length)};
    tuples_ = element_count({indices.begin(), indices.end() - 1});
    const std::int64_t batches = element_count({indices.begin(), indices.begin() + static_cast<std::ptrdiff_t>(batch)});
    per_batch_ = batches == 0 ? 1 : std::max<std::int64_t>(tuples_ / batches, 1);
    batch_step_ = element_count({from.begin() + static_cast<std::ptrdiff_t>(batch), from.end()});
    element_ = bytes(call.operand(0).dtype, 1);
    block_ = bytes(call.operand(0).dtype, element_count({from.begin() + static_cast<std::ptrdiff_t>(batch + length), from.end()}));
  }

  void run(const RunArgs& args) const override {
    const auto length = static_cast<std::int64_t>(extents_.size());
    args.pool().split(tuples_, std::max<std::int64_t>(64, (1 << 15) / static_cast<std::int64_t>(std::max<std::size_t>(block_, 1))),
                      [&](std::int64_t begin, std::int64_t end, int) {
                        for (std::int64_t n = begin; n < end; ++n) {
                          std::int64_t source = n / per_batch_ * batch_step_;
                          for (std::int64_t k = 0; k < length; ++k)
                            source += checked_index(load_int(index_dtype_, args.operands[1], n * length + k),
                                                    extents_[static_cast<std::size_t>(k)]) *
                                      strides_[static_cast<std::size_t>(k)];
                          const std::byte* from = args.operands[0] + static_cast<std::size_t>(source) * element_;
                          std::byte* to = args.results[0] + static_cast<std::size_t>(n) * block_;
                          if (block_ == 1) *to = *from;
                          else if (block_ != 0) std::memcpy(to, from, block_);
                        }
                      });
  }

 private:
  DType index_dtype_;
  Shape extents_, strides_;
  std::int64_t tuples_ = 0, per_batch_ = 1, batch_step_ = 0;
  std::size_t element_ = 0, block_ = 0;
};

std::optional<std::string> refuse_parts_of_bytes(const OpCall& call) {
  if (bits(call.operand(0).dtype) < 8) return "its elements are parts of bytes";
  return std::nullopt;
}

template <typename K>
std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  return std::make_unique<K>(args.call);
}

}  // namespace

extern const KernelDef gather, gather_nd;
const KernelDef gather = {.name = "gather", .op = "Gather", .refuse = refuse_parts_of_bytes, .prepare = prepare<Gather>};
const KernelDef gather_nd = {.name = "gather_nd", .op = "GatherND", .refuse = refuse_parts_of_bytes, .prepare = prepare<GatherND>};

}  // namespace tandem::kernels
