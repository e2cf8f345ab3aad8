#include "comm/group.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "core/numeric.h"

namespace tandem {
namespace {

Shape shape_of(const CollectiveCall& call) { return Shape(call.dims.begin(), call.dims.end()); }

void check_axis(const CollectiveCall& call, int axis, const char* word) {
  if (axis < 0 || axis >= static_cast<int>(call.dims.size()))
    fail(ErrorCode::invalid_argument, "{}: {} {} is outside rank {}", to_string(call.kind), word, axis, call.dims.size());
}

std::int64_t divided(const CollectiveCall& call, int axis, int size) {
  const std::int64_t extent = call.dims[static_cast<std::size_t>(axis)];
  if (extent % size != 0)
    fail(ErrorCode::invalid_argument, "{}: dimension {} of {} has extent {}, which {} ranks cannot share evenly", to_string(call.kind),
         axis, to_string(shape_of(call)), extent, size);
  return extent / size;
}

}  // namespace

std::string to_string(const CollectiveCall& call) {
  std::string text = fmt::format("{}(", to_string(call.kind));
  if (call.reduction) text += fmt::format("{} ", to_string(*call.reduction));
  text += fmt::format("{} {}", to_string(call.dtype), to_string(shape_of(call)));
  if (call.kind == Collective::all_to_all) text += fmt::format(" split_axis {} concat_axis {}", call.split_axis, call.concat_axis);
  else if (info(call.kind).extent != CollectiveExtent::same) text += fmt::format(" axis {}", call.axis);
  if (info(call.kind).rooted) text += fmt::format(" root {}", call.root);
  if (call.kind == Collective::shift) text += fmt::format(" by {}", call.shift);
  return text + ")";
}

Shape collective_output_dims(const CollectiveCall& call, int size) {
  Shape dims = shape_of(call);
  if (call.kind == Collective::all_to_all) {
    check_axis(call, call.split_axis, "split_axis");
    check_axis(call, call.concat_axis, "concat_axis");
    dims[static_cast<std::size_t>(call.split_axis)] = divided(call, call.split_axis, size);
    auto& joined = dims[static_cast<std::size_t>(call.concat_axis)];
    joined = checked_multiply(joined, size);
    return dims;
  }
  const CollectiveExtent extent = info(call.kind).extent;
  if (extent == CollectiveExtent::same) return dims;
  check_axis(call, call.axis, "axis");
  auto& along = dims[static_cast<std::size_t>(call.axis)];
  along = extent == CollectiveExtent::times ? checked_multiply(along, size) : divided(call, call.axis, size);
  return dims;
}

void check_call(const CollectiveCall& call, int size) {
  const CollectiveInfo& row = info(call.kind);
  std::int64_t elements = 1;
  for (const std::int64_t extent : call.dims) {
    if (extent < 0) fail(ErrorCode::invalid_argument, "{}: negative extent in {}", row.name, to_string(shape_of(call)));
    elements = checked_multiply(elements, extent);
  }
  if (row.reduces != call.reduction.has_value())
    fail(ErrorCode::invalid_argument, "{} {}", row.name, row.reduces ? "needs a reduction" : "takes no reduction");
  if (bits(call.dtype) < 8 || (row.reduces && call.dtype == DType::boolean))
    fail(ErrorCode::unsupported, "{} does not work on {}", row.name, to_string(call.dtype));
  if (row.rooted && (call.root < 0 || call.root >= size))
    fail(ErrorCode::invalid_argument, "{}: root {} is outside a group of {} ranks", row.name, call.root, size);
  // The dims of the result are only built where they can be wrong: this runs before every collective.
  if (call.kind == Collective::all_to_all || row.extent != CollectiveExtent::same) collective_output_dims(call, size);
  if (elements > 0 && (call.in == nullptr || call.out == nullptr))
    fail(ErrorCode::invalid_argument, "{}: input or output memory is missing", row.name);
  const bool in_place = call.kind != Collective::all_to_all && row.extent == CollectiveExtent::same;
  if (elements > 0 && size > 1 && call.in == call.out && !in_place) fail(ErrorCode::invalid_argument, "{} cannot work in place", row.name);
}

void pass_through(const CollectiveCall& call) {
  CollectiveCall alone = call;
  alone.root = 0;  // it names a rank of a group that this one is not in
  check_call(alone, 1);
  switch (call.kind) {
    case Collective::all_reduce:
    case Collective::reduce:
    case Collective::broadcast: break;
    case Collective::all_to_all:
      if (call.split_axis == call.concat_axis) break;
      [[fallthrough]];
    default: fail(ErrorCode::invalid_argument, "{} changes the shape, so a rank outside every group has no value for it", to_string(call));
  }
  if (const std::size_t size = bytes(call.dtype, element_count(shape_of(call))); size > 0 && call.in != call.out)
    std::memcpy(call.out, call.in, size);
}

std::unique_ptr<Group> split_by_color(Group& group, int color, Deadline deadline) {
  const auto blobs = group.exchange(std::as_bytes(std::span(&color, 1)), deadline);
  std::vector<std::pair<int, int>> pairs;  // color, rank
  for (std::size_t r = 0; r < blobs.size(); ++r) {
    int other = -1;
    std::memcpy(&other, blobs[r].data(), sizeof other);
    if (other >= 0) pairs.emplace_back(other, static_cast<int>(r));
  }
  std::sort(pairs.begin(), pairs.end());
  std::vector<std::vector<int>> lists;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    if (i == 0 || pairs[i].first != pairs[i - 1].first) lists.emplace_back();
    lists.back().push_back(pairs[i].second);
  }
  return group.split(lists, deadline);
}

void require_agreement(Group& group, std::span<const std::uint64_t> values, std::span<const std::string> names, Deadline deadline) {
  check(values.size() == names.size(), "a name per value");
  const auto blobs = group.exchange(std::as_bytes(values), deadline);
  for (std::size_t r = 1; r < blobs.size(); ++r) {
    if (blobs[r] == blobs[0]) continue;
    const std::size_t words = std::min(blobs[r].size(), blobs[0].size()) / sizeof(std::uint64_t);
    std::size_t i = 0;
    while (i < words && std::memcmp(&blobs[r][i * 8], &blobs[0][i * 8], 8) == 0) ++i;
    const int world_rank = group.members()[r];
    const std::string what =
        i < names.size() ? names[i] : fmt::format("the number of values ({} and {})", blobs[0].size() / 8, blobs[r].size() / 8);
    std::uint64_t both[2] = {};
    if (i < words) {
      std::memcpy(&both[0], &blobs[0][i * 8], 8);
      std::memcpy(&both[1], &blobs[r][i * 8], 8);
    }
    throw Error(ErrorCode::mismatch,
                fmt::format("ranks {} and {} disagree on {}{}", group.members()[0], world_rank, what,
                            i < names.size() ? fmt::format(": {:x} and {:x}", both[0], both[1]) : ""),
                {}, world_rank);
  }
}

}  // namespace tandem
