#include "core/tensor.h"

#include <cstdlib>
#include <cstring>
#include <limits>

#include "core/check.h"
#include "core/half.h"
#include "core/numeric.h"
#include "core/stored_bytes.h"

namespace tandem {
namespace {

// Calls f with a value of the C++ type behind an integer or 32/64-bit float dtype.
template <typename F>
auto with_type(DType dtype, F f) {
  switch (dtype) {
    case DType::f32: return f(float{});
    case DType::f64: return f(double{});
    case DType::i8: return f(std::int8_t{});
    case DType::u8: return f(std::uint8_t{});
    case DType::i16: return f(std::int16_t{});
    case DType::u16: return f(std::uint16_t{});
    case DType::i32: return f(std::int32_t{});
    case DType::u32: return f(std::uint32_t{});
    case DType::i64: return f(std::int64_t{});
    case DType::u64: return f(std::uint64_t{});
    case DType::boolean: return f(std::uint8_t{});
    default: break;
  }
  fail(ErrorCode::internal, "no plain C++ type for {}", to_string(dtype));
}

template <typename T>
T read(const std::byte* data, std::int64_t index) {
  T value;
  std::memcpy(&value, data + index * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
  return value;
}

template <typename T>
void write(std::byte* data, std::int64_t index, T value) {
  std::memcpy(data + index * static_cast<std::int64_t>(sizeof(T)), &value, sizeof(T));
}

int nibble(const std::byte* data, std::int64_t index) { return (std::to_integer<int>(data[index / 2]) >> (index % 2 * 4)) & 15; }

void set_nibble(std::byte* data, std::int64_t index, int value) {
  const int shift = static_cast<int>(index % 2 * 4);
  const int old = std::to_integer<int>(data[index / 2]);
  data[index / 2] = static_cast<std::byte>((old & ~(15 << shift)) | ((value & 15) << shift));
}

template <typename T>
T saturate(double value) {
  if (std::isnan(value)) return 0;
  if (value <= static_cast<double>(std::numeric_limits<T>::min())) return std::numeric_limits<T>::min();
  if (value >= static_cast<double>(std::numeric_limits<T>::max())) return std::numeric_limits<T>::max();
  return static_cast<T>(value);
}

}  // namespace

double load_element(DType dtype, const std::byte* data, std::int64_t index) {
  switch (dtype) {
    case DType::f16: return f16_to_float(read<std::uint16_t>(data, index));
    case DType::bf16: return bf16_to_float(read<std::uint16_t>(data, index));
    case DType::f8e4m3: return f8e4m3_to_float(read<std::uint8_t>(data, index));
    case DType::f8e5m2: return f8e5m2_to_float(read<std::uint8_t>(data, index));
    case DType::f32: return read<float>(data, index);
    case DType::f64: return read<double>(data, index);
    default: return static_cast<double>(load_int(dtype, data, index));
  }
}

void store_element(DType dtype, std::byte* data, std::int64_t index, double value) {
  switch (dtype) {
    case DType::f16: return write(data, index, float_to_f16(static_cast<float>(value)));
    case DType::bf16: return write(data, index, float_to_bf16(static_cast<float>(value)));
    case DType::f8e4m3: return write(data, index, float_to_f8e4m3(static_cast<float>(value)));
    case DType::f8e5m2: return write(data, index, float_to_f8e5m2(static_cast<float>(value)));
    case DType::boolean: return write(data, index, static_cast<std::uint8_t>(value != 0));
    case DType::i4: return set_nibble(data, index, static_cast<int>(std::fmax(-8, std::fmin(7, value))));
    case DType::u4: return set_nibble(data, index, static_cast<int>(std::fmax(0, std::fmin(15, value))));
    default: break;
  }
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (std::is_floating_point_v<T>) write(data, index, static_cast<T>(value));
    else write(data, index, saturate<T>(value));
  });
}

std::int64_t load_int(DType dtype, const std::byte* data, std::int64_t index) {
  if (dtype == DType::i4) return (nibble(data, index) ^ 8) - 8;
  if (dtype == DType::u4) return nibble(data, index);
  if (is_float(dtype)) return saturate<std::int64_t>(load_element(dtype, data, index));
  return with_type(dtype, [&](auto zero) { return static_cast<std::int64_t>(read<decltype(zero)>(data, index)); });
}

void store_int(DType dtype, std::byte* data, std::int64_t index, std::int64_t value) {
  if (dtype == DType::i4 || dtype == DType::u4) return set_nibble(data, index, static_cast<int>(value & 15));
  if (dtype == DType::boolean) return write(data, index, static_cast<std::uint8_t>(value != 0));
  if (is_float(dtype)) return store_element(dtype, data, index, static_cast<double>(value));
  with_type(dtype, [&](auto zero) { write(data, index, static_cast<decltype(zero)>(value)); });
}

Tensor::Tensor(DType dtype, Shape shape)
    : dtype_(dtype), shape_(std::move(shape)), count_(element_count(shape_)), bytes_(stored_bytes(dtype, count_)), writable_(true) {
  const std::size_t room = (std::max<std::size_t>(bytes_, 1) + 63) / 64 * 64;
  void* memory = std::aligned_alloc(64, room);
  if (!memory) fail(ErrorCode::out_of_memory, "no memory for a tensor of {} bytes", bytes_);
  std::memset(memory, 0, room);
  owner_ = std::shared_ptr<const void>(memory, [](const void* p) { std::free(const_cast<void*>(p)); });
  data_ = static_cast<const std::byte*>(memory);
}

Tensor::Tensor(DType dtype, Shape shape, const std::byte* data, std::shared_ptr<const void> owner)
    : dtype_(dtype),
      shape_(std::move(shape)),
      count_(element_count(shape_)),
      bytes_(stored_bytes(dtype, count_)),
      data_(data),
      owner_(std::move(owner)) {}

Tensor Tensor::of(DType dtype, Shape shape, std::span<const double> values) {
  Tensor t(dtype, std::move(shape));
  check(static_cast<std::size_t>(t.count()) == values.size(), "Tensor::of: one value per element");
  for (std::size_t i = 0; i < values.size(); ++i) store_element(dtype, t.mutable_data(), static_cast<std::int64_t>(i), values[i]);
  return t;
}

Tensor Tensor::of_ints(DType dtype, Shape shape, std::span<const std::int64_t> values) {
  Tensor t(dtype, std::move(shape));
  check(static_cast<std::size_t>(t.count()) == values.size(), "Tensor::of_ints: one value per element");
  for (std::size_t i = 0; i < values.size(); ++i) store_int(dtype, t.mutable_data(), static_cast<std::int64_t>(i), values[i]);
  return t;
}

std::byte* Tensor::mutable_data() {
  check(writable_, "writing to borrowed tensor memory");
  return const_cast<std::byte*>(data_);
}

double Tensor::at(std::int64_t index) const { return load_element(dtype_, data_, index); }
std::int64_t Tensor::int_at(std::int64_t index) const { return load_int(dtype_, data_, index); }

std::vector<double> Tensor::to_doubles() const {
  std::vector<double> values(static_cast<std::size_t>(count_));
  for (std::int64_t i = 0; i < count_; ++i) values[static_cast<std::size_t>(i)] = at(i);
  return values;
}

std::vector<std::int64_t> Tensor::to_ints() const {
  std::vector<std::int64_t> values(static_cast<std::size_t>(count_));
  for (std::int64_t i = 0; i < count_; ++i) values[static_cast<std::size_t>(i)] = int_at(i);
  return values;
}

Tensor Tensor::reshaped(Shape shape) const {
  if (element_count(shape) != count_)
    fail(ErrorCode::invalid_argument, "cannot view shape {} as {}: {} elements, expected {}", to_string(shape_), to_string(shape), count_,
         element_count(shape));
  Tensor t = *this;
  t.shape_ = std::move(shape);
  return t;
}

Tensor Tensor::converted(DType dtype) const {
  if (dtype == dtype_) return *this;
  Tensor t(dtype, shape_);
  const bool integral = !is_float(dtype_) && !is_float(dtype);
  for (std::int64_t i = 0; i < count_; ++i) {
    if (integral) store_int(dtype, t.mutable_data(), i, int_at(i));
    else store_element(dtype, t.mutable_data(), i, at(i));
  }
  return t;
}

}  // namespace tandem
