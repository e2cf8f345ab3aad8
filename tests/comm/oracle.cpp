#include "comm/oracle.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "core/check.h"

namespace tandem {
namespace {

Shape position(std::int64_t index, const Shape& shape) {
  Shape at(shape.size());
  for (std::size_t i = shape.size(); i-- > 0; index /= shape[i]) at[i] = index % shape[i];
  return at;
}

std::int64_t flat(const Shape& at, const Shape& shape) {
  std::int64_t index = 0;
  for (std::size_t i = 0; i < shape.size(); ++i) index = index * shape[i] + at[i];
  return index;
}

// The one input element that a moving collective puts at `at`; rank −1 for the zeros of ranks that are not the root.
struct Origin {
  int rank;
  std::int64_t index;
};

Origin origin(const CollectiveCall& call, int n, int rank, Shape at, const Shape& shape) {
  const auto axis = static_cast<std::size_t>(call.axis);
  switch (call.kind) {
    case Collective::gather:
      if (rank != call.root) return {-1, 0};
      [[fallthrough]];
    case Collective::all_gather: {
      const auto from = static_cast<int>(at[axis] / shape[axis]);
      at[axis] %= shape[axis];
      return {from, flat(at, shape)};
    }
    case Collective::scatter: at[axis] += rank * (shape[axis] / n); return {call.root, flat(at, shape)};
    case Collective::all_to_all: {
      const auto split = static_cast<std::size_t>(call.split_axis), concat = static_cast<std::size_t>(call.concat_axis);
      const std::int64_t width = split == concat ? shape[concat] / n : shape[concat];
      const auto from = static_cast<int>(at[concat] / width);
      at[concat] %= width;
      at[split] += rank * (shape[split] / n);
      return {from, flat(at, shape)};
    }
    case Collective::shift: return {((rank - call.shift) % n + n) % n, flat(at, shape)};
    default: return {call.root, flat(at, shape)};  // broadcast
  }
}

std::int64_t wrapped(DType dtype, std::int64_t value) {
  std::byte memory[8];
  store_int(dtype, memory, 0, value);
  return load_int(dtype, memory, 0);
}

std::int64_t reduce_ints(Reduction reduction, DType dtype, const std::vector<std::int64_t>& values) {
  std::int64_t result = values[0];
  for (std::size_t i = 1; i < values.size(); ++i) {
    const auto a = static_cast<std::uint64_t>(result), b = static_cast<std::uint64_t>(values[i]);
    switch (reduction) {
      case Reduction::sum:
      case Reduction::avg: result = static_cast<std::int64_t>(a + b); break;
      case Reduction::prod: result = static_cast<std::int64_t>(a * b); break;
      case Reduction::max: result = std::max(result, values[i]); break;
      case Reduction::min: result = std::min(result, values[i]); break;
    }
  }
  result = wrapped(dtype, result);
  return reduction == Reduction::avg ? result / static_cast<std::int64_t>(values.size()) : result;
}

double rounded(DType dtype, double value) {
  std::byte memory[8];
  store_element(dtype, memory, 0, value);
  return load_element(dtype, memory, 0);
}

// Whether `got` is the reduction up to the rounding of its accumulation and then of its dtype.
bool is_reduction(Reduction reduction, DType dtype, const std::vector<double>& values, double got) {
  double result = values[0], magnitude = std::fabs(values[0]);
  for (std::size_t i = 1; i < values.size(); ++i) {
    if (std::isnan(result) || std::isnan(values[i])) return std::isnan(got);
    magnitude = reduction == Reduction::prod ? magnitude * std::fabs(values[i]) : magnitude + std::fabs(values[i]);
    switch (reduction) {
      case Reduction::sum:
      case Reduction::avg: result += values[i]; break;
      case Reduction::prod: result *= values[i]; break;
      case Reduction::max: result = std::max(result, values[i]); break;
      case Reduction::min: result = std::min(result, values[i]); break;
    }
  }
  if (std::isnan(result)) return std::isnan(got);  // of infinities of both signs
  if (std::isinf(result) || reduction == Reduction::max || reduction == Reduction::min) return got == result;
  const auto n = static_cast<double>(values.size());
  if (reduction == Reduction::avg) result /= n, magnitude /= n;
  const double slack = n * magnitude * (dtype == DType::f64 ? 0x1p-52 : 0x1p-23);
  return rounded(dtype, result - slack) <= got && got <= rounded(dtype, result + slack);
}

void check_element(const CollectiveCall& call, int rank, const std::vector<Tensor>& inputs, const Tensor& out, std::int64_t i) {
  const auto n = static_cast<int>(inputs.size());
  const Shape& shape = inputs[0].shape();
  Shape at = position(i, out.shape());
  bool good;
  if (info(call.kind).reduces) {
    if (call.kind == Collective::reduce_scatter)
      at[static_cast<std::size_t>(call.axis)] += rank * out.shape()[static_cast<std::size_t>(call.axis)];
    const std::int64_t index = flat(at, shape);
    if (call.kind == Collective::reduce && rank != call.root) {
      good = out.at(i) == 0;
    } else if (is_integer(call.dtype)) {
      std::vector<std::int64_t> values;
      for (const Tensor& input : inputs) values.push_back(input.int_at(index));
      good = out.int_at(i) == reduce_ints(*call.reduction, call.dtype, values);
    } else {
      std::vector<double> values;
      for (const Tensor& input : inputs) values.push_back(input.at(index));
      good = is_reduction(*call.reduction, call.dtype, values, out.at(i));
    }
  } else {
    const Origin from = origin(call, n, rank, at, shape);
    const std::size_t size = bytes(call.dtype, 1);
    const std::byte zeros[8] = {};
    const std::byte* expected =
        from.rank < 0 ? zeros : inputs[static_cast<std::size_t>(from.rank)].data() + static_cast<std::size_t>(from.index) * size;
    good = std::memcmp(out.data() + static_cast<std::size_t>(i) * size, expected, size) == 0;
  }
  if (!good)
    fail(ErrorCode::internal, "{} on rank {} of {}: element {} ({}) is {}", to_string(call), rank, n, i,
         to_string(position(i, out.shape())), out.at(i));
}

}  // namespace

Tensor random_input(DType dtype, const Shape& shape, int rank, std::uint64_t seed) {
  Tensor tensor(dtype, shape);
  std::mt19937_64 random(seed * 1009 + static_cast<std::uint64_t>(rank));
  std::byte* data = tensor.mutable_data();
  for (std::int64_t i = 0; i < tensor.count(); ++i) {
    const std::uint64_t bits = random();
    if (dtype == DType::boolean) store_int(dtype, data, i, bits & 1);
    else if (is_integer(dtype)) store_int(dtype, data, i, static_cast<std::int64_t>(bits));
    else store_element(dtype, data, i, (static_cast<double>(bits >> 11) * 0x1p-53 * 4 - 2));
  }
  return tensor;
}

void check_output(const CollectiveCall& call, int rank, const std::vector<Tensor>& inputs, const Tensor& out) {
  for (std::int64_t i = 0; i < out.count(); ++i) check_element(call, rank, inputs, out, i);
}

Tensor run_and_check(Group& group, CollectiveCall call, const Shape& shape, std::uint64_t seed, bool in_place) {
  std::vector<Tensor> inputs;
  for (int r = 0; r < group.size(); ++r) inputs.push_back(random_input(call.dtype, shape, r, seed));
  const Tensor& mine = inputs[static_cast<std::size_t>(group.rank())];
  call.dims = shape;
  Tensor out(call.dtype, collective_output_dims(call, group.size()));
  if (out.size_bytes() > 0) std::memset(out.mutable_data(), 0x5a, out.size_bytes());
  if (in_place && mine.size_bytes() > 0) std::memcpy(out.mutable_data(), mine.data(), mine.size_bytes());
  call.in = in_place ? out.data() : mine.data();
  call.out = out.mutable_data();
  group.run(call);
  check_output(call, group.rank(), inputs, out);
  return out;
}

}  // namespace tandem
