#include "device_array.h"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <optional>
#include <string_view>

#include "lifetime.h"
#include "tandem/error.h"

namespace tandem::python {
namespace {

constexpr std::array kNames = {"float32", "float16", "bfloat16", "float64", "float8_e4m3fn", "float8_e5m2", "int8", "uint8", "int16",
                               "uint16",  "int32",   "uint32",   "int64",   "uint64",        "bool",        "int4", "uint4"};

[[noreturn]] void refuse(const std::string& message) { throw Error(ErrorCode::invalid_argument, message); }

std::optional<DType> dtype_of_name(std::string_view name) {
  for (std::size_t i = 0; i < kNames.size() - 2; ++i)  // 4-bit elements are a byte each in numpy: not our layout
    if (name == kNames[i]) return static_cast<DType>(i);
  return std::nullopt;
}

std::optional<DType> dtype_of_format(std::string_view format, std::size_t itemsize) {
  if (format.empty()) return DType::u8;
  if (format.size() == 2 && (format[0] == '@' || format[0] == '=' || format[0] == '<')) format.remove_prefix(1);
  if (format.size() != 1) return std::nullopt;
  const auto sized = [&](DType one, DType two, DType four, DType eight) {
    return itemsize == 1 ? one : itemsize == 2 ? two : itemsize == 4 ? four : eight;
  };
  switch (format[0]) {
    case 'f': return DType::f32;
    case 'e': return DType::f16;
    case 'd': return DType::f64;
    case '?': return DType::boolean;
    case 'b':
    case 'h':
    case 'i':
    case 'l':
    case 'q': return sized(DType::i8, DType::i16, DType::i32, DType::i64);
    case 'B':
    case 'H':
    case 'I':
    case 'L':
    case 'Q': return sized(DType::u8, DType::u16, DType::u32, DType::u64);
    default: return std::nullopt;
  }
}

std::optional<DType> dtype_of_dlpack(dlpack::DataType type) {
  if (type.lanes != 1) return std::nullopt;
  const auto sized = [&](DType one, DType two, DType four, DType eight) -> std::optional<DType> {
    return type.bits == 8 ? one : type.bits == 16 ? two : type.bits == 32 ? four : type.bits == 64 ? std::optional(eight) : std::nullopt;
  };
  switch (type.code) {
    case dlpack::kInt: return sized(DType::i8, DType::i16, DType::i32, DType::i64);
    case dlpack::kUInt: return sized(DType::u8, DType::u16, DType::u32, DType::u64);
    case dlpack::kFloat: return type.bits == 8 ? std::nullopt : sized(DType::f16, DType::f16, DType::f32, DType::f64);
    case dlpack::kBfloat: return DType::bf16;
    case dlpack::kBool: return DType::boolean;
    case dlpack::kFloat8E4m3fn: return DType::f8e4m3;
    case dlpack::kFloat8E5m2: return DType::f8e5m2;
    default: return std::nullopt;
  }
}

std::string class_name(nb::handle object) {
  return nb::cast<std::string>(nb::handle(reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()))).attr("__name__"));
}

// What is known about a type that has no buffer protocol; types are few, and are kept alive.
struct TypeFacts {
  PyTypeObject* type = nullptr;
  ArrayKind kind = ArrayKind::other;
  const dlpack::ExchangeApi* exchange = nullptr;
};

const dlpack::ExchangeApi* exchange_api(nb::handle type) {
  const nb::object capsule = nb::getattr(type, "__dlpack_c_exchange_api__", nb::none());
  if (!PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return nullptr;
  const auto* api = static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  return api->header.version.major == 1 && api->tensor_from_object ? api : nullptr;
}

const TypeFacts& facts_of(PyObject* object) {
  static std::array<TypeFacts, 4> cache;
  static std::size_t next = 0;
  PyTypeObject* type = Py_TYPE(object);
  for (const TypeFacts& facts : cache)
    if (facts.type == type) return facts;
  TypeFacts& facts = cache[next++ % cache.size()];
  Py_XDECREF(reinterpret_cast<PyObject*>(std::exchange(facts.type, nullptr)));
  Py_INCREF(reinterpret_cast<PyObject*>(type));
  const nb::handle handle(reinterpret_cast<PyObject*>(type));
  const auto module = nb::cast<std::string>(nb::str(nb::getattr(handle, "__module__", nb::str(""))));
  const bool torch = module == "torch" || module.starts_with("torch.");
  facts = {type, torch ? ArrayKind::torch : ArrayKind::other, exchange_api(handle)};
  return facts;
}

}  // namespace

// Delegates, so that what was taken is given back when reading throws.
BorrowedArray::BorrowedArray(nb::handle object, const std::string& what, const Place& place) : BorrowedArray() {
  object_ = object.inc_ref().ptr();
  if (PyObject_CheckBuffer(object_) && read_buffer(what)) return;
  if (!read_device_array(what, place) && !read_dlpack(what, place))
    refuse(fmt::format("{} is of type {}, expected an array: numpy, torch, or anything with DLPack or the buffer protocol", what,
                       class_name(object)));
}

BorrowedArray::BorrowedArray(BorrowedArray&& other) noexcept
    : object_(std::exchange(other.object_, nullptr)),
      buffer_(std::exchange(other.buffer_, Py_buffer{})),
      managed_(std::exchange(other.managed_, nullptr)),
      versioned_(other.versioned_),
      dtype_(other.dtype_),
      shape_(std::move(other.shape_)),
      strides_(std::move(other.strides_)),
      data_(other.data_),
      read_only_(other.read_only_),
      on_gpu_(other.on_gpu_),
      kind_(other.kind_) {}

BorrowedArray::~BorrowedArray() {
  if (buffer_.obj) PyBuffer_Release(&buffer_);
  if (managed_ && versioned_) {
    auto* tensor = static_cast<dlpack::ManagedTensorVersioned*>(managed_);
    if (tensor->deleter) tensor->deleter(tensor);
  } else if (managed_) {
    auto* tensor = static_cast<dlpack::ManagedTensor*>(managed_);
    if (tensor->deleter) tensor->deleter(tensor);
  }
  Py_XDECREF(object_);
}

// Keeps strides only where they are not those of a dense row-major array. `unit`: bytes that a stride counts in.
void BorrowedArray::set_strides(const std::int64_t* strides, std::int64_t unit, std::size_t itemsize) {
  strides_.clear();
  auto expected = static_cast<std::int64_t>(itemsize);
  bool dense = true, empty = false;
  for (std::size_t d = shape_.size(); d-- > 0;) {
    if (shape_[d] > 1 && strides[d] * unit != expected) dense = false;
    empty = empty || shape_[d] == 0;
    expected *= shape_[d];
  }
  if (dense || empty) return;
  for (std::size_t d = 0; d < shape_.size(); ++d) strides_.push_back(strides[d] * unit);
}

// False of arrays of GPUs that have the protocol's functions, which refuse (cupy).
bool BorrowedArray::read_buffer(const std::string& what) {
  if (PyObject_GetBuffer(object_, &buffer_, PyBUF_RECORDS_RO) != 0) {
    PyErr_Clear();
    if (PyObject_HasAttrString(object_, "__cuda_array_interface__")) return false;
    read_extension_type(what);
    return true;
  }
  const std::string_view format = buffer_.format ? buffer_.format : "";
  const auto dtype = dtype_of_format(format, static_cast<std::size_t>(buffer_.itemsize));
  if (!dtype) refuse(fmt::format("{} has elements of format '{}', which no engine takes", what, format));
  dtype_ = *dtype;
  shape_.assign(buffer_.shape, buffer_.shape + buffer_.ndim);
  if (buffer_.strides) set_strides(reinterpret_cast<const std::int64_t*>(buffer_.strides), 1, static_cast<std::size_t>(buffer_.itemsize));
  data_ = static_cast<std::byte*>(buffer_.buf);
  read_only_ = buffer_.readonly != 0;
  return true;
}

// numpy arrays of ml_dtypes' element types (bf16, fp8) have no buffer of their own: their bits have one.
void BorrowedArray::read_extension_type(const std::string& what) {
  const nb::object dtype = nb::getattr(object_, "dtype", nb::none());
  const auto name = nb::cast<std::string>(nb::str(nb::getattr(dtype, "name", nb::str(""))));
  const auto found = dtype_of_name(name);
  if (!found || bits(*found) > 16)
    refuse(fmt::format("{} has element type {}, which no engine takes", what, name.empty() ? class_name(object_) : name));
  const nb::object view_of_bits = nb::handle(object_).attr("view")(nb::str(bits(*found) == 8 ? "uint8" : "uint16"));
  BorrowedArray view(view_of_bits, what);
  std::swap(buffer_, view.buffer_);
  shape_ = view.shape_;
  strides_ = view.strides_;
  data_ = view.data_;
  read_only_ = view.read_only_;
  dtype_ = *found;
}

void BorrowedArray::check_place(const dlpack::Device& device, const std::string& what, const Place& place) {
  if (dlpack::is_host(device)) return;
  const std::string where =
      dlpack::is_gpu(device) ? fmt::format("GPU {}", device.id) : fmt::format("a device (DLPack device type {})", device.type);
  if (place.gpu < 0) refuse(fmt::format("{} lies on {}, expected memory of the host: {}", what, where, place.why_not));
  if (!dlpack::is_gpu(device) || device.id != place.gpu)
    refuse(fmt::format("{} lies on {}, the engine runs on GPU {}", what, where, place.gpu));
  on_gpu_ = true;
}

// Its own kind of array, without the way over a capsule. False for any other object.
bool BorrowedArray::read_device_array(const std::string& what, const Place& place) {
  const DeviceArray* array = nullptr;
  if (!nb::try_cast(nb::handle(object_), array, false) || !array) return false;
  kind_ = ArrayKind::other;
  check_place({dlpack::kCuda, array->gpu}, what, place);
  gpu_of(array->gpu).order(array->stream, place.stream);
  dtype_ = array->dtype;
  shape_ = array->shape;
  data_ = array->data.get();
  return true;
}

void BorrowedArray::take(const dlpack::Tensor& tensor, const std::string& what, const Place& place) {
  check_place(tensor.device, what, place);
  const auto dtype = dtype_of_dlpack(tensor.dtype);
  if (!dtype)
    refuse(
        fmt::format("{} has an element type (DLPack code {}, {} bits) that no engine takes", what, tensor.dtype.code, tensor.dtype.bits));
  dtype_ = *dtype;
  shape_.assign(tensor.shape, tensor.shape + tensor.ndim);
  const auto itemsize = static_cast<std::size_t>(bits(dtype_)) / 8;
  if (tensor.strides) set_strides(tensor.strides, static_cast<std::int64_t>(itemsize), itemsize);
  data_ = static_cast<std::byte*>(tensor.data) + tensor.byte_offset;
}

// False if the object has no DLPack.
bool BorrowedArray::read_dlpack(const std::string& what, const Place& place) {
  const TypeFacts facts = facts_of(object_);
  kind_ = facts.kind;
  if (facts.exchange) {
    dlpack::Tensor tensor{};
    if (facts.exchange->tensor_from_object(object_, &tensor) != 0) {
      const nb::python_error error;
      const std::string text = nb::cast<std::string>(nb::str(error.value()));
      refuse(fmt::format("{} cannot be read: {}", what, text.substr(0, text.find('\n'))));
    }
    take(tensor, what, place);
    void* current = nullptr;
    if (on_gpu_ && facts.exchange->current_stream && facts.exchange->current_stream(tensor.device.type, tensor.device.id, &current) == 0)
      gpu_of(place.gpu).order(current, place.stream);
    return true;
  }
  if (!PyObject_HasAttrString(object_, "__dlpack__") || !PyObject_HasAttrString(object_, "__dlpack_device__")) return false;
  const nb::handle handle(object_);
  const nb::object device = handle.attr("__dlpack_device__")();
  check_place({nb::cast<int>(nb::int_(device[0])), nb::cast<int>(nb::int_(device[1]))}, what, place);
  nb::dict options;  // a producer on the host may know none of them
  if (on_gpu_) options["stream"] = place.stream ? reinterpret_cast<std::uintptr_t>(place.stream) : 1;
  nb::object capsule;
  try {
    capsule = handle.attr("__dlpack__")(**options, nb::arg("max_version") = nb::make_tuple(1, 0));
  } catch (nb::python_error& error) {
    if (!error.matches(PyExc_TypeError)) throw;
    capsule = handle.attr("__dlpack__")(**options);
  }
  versioned_ = PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned");
  const char* name = versioned_ ? "dltensor_versioned" : "dltensor";
  managed_ = PyCapsule_GetPointer(capsule.ptr(), name);
  if (!managed_) throw nb::python_error();
  PyCapsule_SetName(capsule.ptr(), versioned_ ? "used_dltensor_versioned" : "used_dltensor");
  if (versioned_) read_only_ = (static_cast<dlpack::ManagedTensorVersioned*>(managed_)->flags & dlpack::kReadOnly) != 0;
  take(versioned_ ? static_cast<dlpack::ManagedTensorVersioned*>(managed_)->tensor : static_cast<dlpack::ManagedTensor*>(managed_)->tensor,
       what, place);
  return true;
}

std::shared_ptr<std::byte> BorrowedArray::packed_copy() const {
  const auto itemsize = static_cast<std::size_t>(bits(dtype_)) / 8;
  std::shared_ptr<std::byte> packed(new std::byte[static_cast<std::size_t>(element_count(shape_)) * itemsize + 1],
                                    std::default_delete<std::byte[]>());
  std::byte* to = packed.get();
  Shape index(shape_.size(), 0);
  for (std::int64_t left = element_count(shape_); left > 0; --left) {
    std::int64_t offset = 0;
    for (std::size_t d = 0; d < index.size(); ++d) offset += index[d] * strides_[d];
    std::memcpy(to, data_ + offset, itemsize);
    to += itemsize;
    for (std::size_t d = index.size(); d-- > 0 && ++index[d] == shape_[d];) index[d] = 0;
  }
  return packed;
}

Array BorrowedArray::share(BorrowedArray&& array) {
  if (!array.contiguous()) return {array.dtype_, array.shape_, array.packed_copy()};
  Array out{array.dtype_, array.shape_, nullptr};
  auto* owner = new BorrowedArray(std::move(array));
  out.data = std::shared_ptr<const std::byte>(owner->data_, [owner](const std::byte*) { delete_with_gil(owner); });
  return out;
}

}  // namespace tandem::python
