// Tensor: a dense row-major array in host memory, for constants, weights, inputs and outputs.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "tandem/types.h"

namespace tandem {

// Copies share the memory (and keep its owner alive); the contents are not copied.
class Tensor {
 public:
  Tensor() = default;
  // Fresh zeroed memory, aligned to 64 bytes.
  Tensor(DType dtype, Shape shape);
  // Memory of somebody else, kept alive by `owner`; must hold bytes(dtype, element_count(shape)).
  Tensor(DType dtype, Shape shape, const std::byte* data, std::shared_ptr<const void> owner);
  // A tensor with these values, converted to `dtype`.
  static Tensor of(DType dtype, Shape shape, std::span<const double> values);
  static Tensor of_ints(DType dtype, Shape shape, std::span<const std::int64_t> values);

  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  std::int64_t count() const { return count_; }
  std::size_t size_bytes() const { return bytes_; }
  const std::byte* data() const { return data_; }
  // Only for memory made by the first constructor; throws Error(internal) for borrowed memory.
  std::byte* mutable_data();
  std::span<const std::byte> bytes() const { return {data_, bytes_}; }
  template <typename T>
  const T* as() const {
    return reinterpret_cast<const T*>(data_);
  }
  template <typename T>
  T* mutable_as() {
    return reinterpret_cast<T*>(mutable_data());
  }

  // One element as a double or an integer, whatever the dtype (row-major index); i4/u4 low nibble first.
  double at(std::int64_t index) const;
  std::int64_t int_at(std::int64_t index) const;
  // Every element, converted.
  std::vector<double> to_doubles() const;
  std::vector<std::int64_t> to_ints() const;
  // The same memory under another shape of equal count.
  Tensor reshaped(Shape shape) const;
  Tensor converted(DType dtype) const;

 private:
  DType dtype_ = DType::f32;
  Shape shape_ = {0};
  std::int64_t count_ = 0;
  std::size_t bytes_ = 0;
  const std::byte* data_ = nullptr;
  bool writable_ = false;
  std::shared_ptr<const void> owner_;
};

// Reads or writes element `index` of raw memory, rounding to nearest even; integers saturate, bool is value != 0.
double load_element(DType dtype, const std::byte* data, std::int64_t index);
void store_element(DType dtype, std::byte* data, std::int64_t index, double value);
std::int64_t load_int(DType dtype, const std::byte* data, std::int64_t index);
// Wraps modulo 2^bits as C++ conversions do.
void store_int(DType dtype, std::byte* data, std::int64_t index, std::int64_t value);

}  // namespace tandem
