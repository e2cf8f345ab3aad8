// Arrays of Python (numpy, torch, whatever has DLPack or the buffer protocol) as memory that ranks read and write, and back.
// Everything here needs the GIL unless it says otherwise.
#pragma once

#include <memory>
#include <string>

#include "bind.h"
#include "dlpack.h"
#include "tandem/engine.h"

namespace tandem::python {

// What an array is to its user, so that outputs are of the same kind as inputs.
enum class ArrayKind { numpy, torch, other };

// Where arrays may lie beside the host.
struct Place {
  int gpu = -1;            // this GPU; -1: nowhere
  void* stream = nullptr;  // in whose order their contents are needed; null: CUDA's default stream
  const char* why_not = "the engine is for the device cpu";
};

// A view of somebody's array, without a copy; keeps it alive and, for buffers, unresized.
class BorrowedArray {
 public:
  // Throws Error(invalid_argument) that starts with `what` ("input 'x'") if this is no array of an element type we know, or lies elsewhere
  // than on the host or at `place`.
  BorrowedArray(nb::handle object, const std::string& what, const Place& place = {});
  BorrowedArray(BorrowedArray&& other) noexcept;
  BorrowedArray(const BorrowedArray&) = delete;
  ~BorrowedArray();

  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  ArrayKind kind() const { return kind_; }
  nb::handle object() const { return object_; }
  bool read_only() const { return read_only_; }
  bool on_gpu() const { return on_gpu_; }
  // Dense and row-major, so that the memory can be used as it is.
  bool contiguous() const { return strides_.empty(); }
  std::byte* data() const { return data_; }
  // The array as the engine takes it: the same memory where it is contiguous, else a packed copy. The result may be dropped by any
  // thread, with or without the GIL.
  static Array share(BorrowedArray&& array);
  std::shared_ptr<std::byte> packed_copy() const;

 private:
  BorrowedArray() = default;
  bool read_buffer(const std::string& what);
  void read_extension_type(const std::string& what);
  bool read_dlpack(const std::string& what, const Place& place);
  bool read_device_array(const std::string& what, const Place& place);
  void check_place(const dlpack::Device& device, const std::string& what, const Place& place);
  void take(const dlpack::Tensor& tensor, const std::string& what, const Place& place);
  void set_strides(const std::int64_t* strides, std::int64_t unit, std::size_t itemsize);

  PyObject* object_ = nullptr;
  Py_buffer buffer_{};
  void* managed_ = nullptr;  // a DLPack tensor to give back
  bool versioned_ = false;
  DType dtype_ = DType::f32;
  Shape shape_;
  Shape strides_;  // in bytes; empty: dense row-major
  std::byte* data_ = nullptr;
  bool read_only_ = false, on_gpu_ = false;
  ArrayKind kind_ = ArrayKind::numpy;
};

// A fresh array and where its elements lie. `other` kinds are made as numpy and converted.
struct MadeArray {
  nb::object object;
  std::byte* data = nullptr;
};
MadeArray make_array(ArrayKind kind, DType dtype, const Shape& shape);
// The same on the GPU of `place`, for use in its stream; DeviceArrays where the kind is not torch.
MadeArray make_array(ArrayKind kind, DType dtype, const Shape& shape, const Place& place);
// The first elements of a dense array as an array of `shape`, sharing the memory.
nb::object narrowed(const nb::object& array, const Shape& shape);
// `made` by make_array(numpy) as whatever library `like` comes from, sharing the memory; itself if that library cannot take it.
nb::object converted_like(const nb::object& made, nb::handle like);

// The memory of any buffer as u8, not copied; kept until the last user of it goes, on whatever thread.
Array bytes_of(nb::handle object);
// An array of the engine as a numpy array; copies.
nb::object to_numpy(const Array& array);

}  // namespace tandem::python
