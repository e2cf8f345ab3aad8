#include "ops/gather/blocks_cuda.h"

#include <algorithm>

#include "core/check.h"
#include "ops/shape_rules.h"

namespace tandem::cuda {

BlockMove block_move(DType dtype, std::int64_t inner, std::int64_t rows, std::int64_t most) {
  const auto size = static_cast<std::int64_t>(bytes(dtype, inner));
  BlockMove move;
  if (size == 0 || rows == 0) return move;
  move.bytes = static_cast<int>(std::min(most, size & -size));
  const std::int64_t vectors = size / move.bytes;
  if (rows > kMostItems || vectors > kMostItems)
    fail(ErrorCode::unsupported, "{} rows of {} bytes are more than one kernel moves", rows, size);
  move.vectors = Divisor(vectors);
  move.rows = rows;
  return move;
}

TupleView tuple_view(const OpCall& call, std::size_t batch, std::int64_t most) {
  const Shape from = shape_of(call.operand(0)), indices = shape_of(call.operand(1));
  const auto part = [](const Shape& shape, std::size_t begin, std::size_t end) {
    return element_count({shape.begin() + static_cast<std::ptrdiff_t>(begin), shape.begin() + static_cast<std::ptrdiff_t>(end)});
  };
  const auto length = static_cast<std::size_t>(indices.back()), named = batch + length;
  TupleView view;
  view.length = static_cast<int>(length);
  view.index_dtype = call.operand(1).dtype;
  view.move = block_move(call.operand(0).dtype, part(from, named, from.size()), part(indices, 0, indices.size() - 1), most);
  view.per_batch = Divisor(std::max<std::int64_t>(part(indices, batch, indices.size() - 1), 1));
  view.batch_step = part(from, batch, named);
  for (std::size_t k = 0; k < length; ++k) {
    view.extents[k] = from[batch + k];
    view.strides[k] = part(from, batch + k + 1, named);
  }
  return view;
}

Plans<TupleView> tuple_views(const OpCall& call, std::size_t batch) {
  return {tuple_view(call, batch, 16), tuple_view(call, batch, bits(call.operand(0).dtype) / 8)};
}

std::optional<std::string> refuse_parts_of_bytes(const OpCall& call) {
  if (bits(call.operand(0).dtype) < 8) return "its elements are parts of bytes";
  return std::nullopt;
}

std::optional<std::string> refuse_tuples(const OpCall& call) {
  const Dim& length = call.operand(1).dims.back();
  if (length.is_constant() && length.constant() > kTupleLength) return fmt::format("its tuples are longer than {}", kTupleLength);
  return refuse_parts_of_bytes(call);
}

}  // namespace tandem::cuda
