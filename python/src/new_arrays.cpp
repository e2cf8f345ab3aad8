// Arrays that outputs are written to: made by the library that the inputs came from, so that they live as long as their user wants.
#include <cstring>

#include "device_array.h"
#include "tandem/error.h"

namespace tandem::python {
namespace {

constexpr std::size_t kTypes = static_cast<std::size_t>(DType::u4) + 1;

const char* numpy_name(DType type) {
  constexpr const char* names[kTypes] = {"float32", "float16", "bfloat16", "float64", "float8_e4m3fn", "float8_e5m2",
                                         "int8",    "uint8",   "int16",    "uint16",  "int32",         "uint32",
                                         "int64",   "uint64",  "bool",     nullptr,   nullptr};
  return names[static_cast<std::size_t>(type)];
}

bool needs_ml_dtypes(DType type) { return type == DType::bf16 || type == DType::f8e4m3 || type == DType::f8e5m2; }

[[noreturn]] void no_type(DType type) {
  throw Error(ErrorCode::unsupported, std::string("arrays of ") + std::string(to_string(type)) + " elements cannot be given to Python");
}

// What is looked up once; never given back, for it may be used until the very end.
struct Library {
  nb::object empty;
  nb::object types[kTypes];
};

Library& numpy() {
  static Library* library = new Library{nb::module_::import_("numpy").attr("empty"), {}};
  return *library;
}

Library& torch() {
  static Library* library = new Library{nb::module_::import_("torch").attr("empty"), {}};
  return *library;
}

nb::handle numpy_type(DType type) {
  nb::object& found = numpy().types[static_cast<std::size_t>(type)];
  if (found) return found;
  if (!numpy_name(type)) no_type(type);
  if (needs_ml_dtypes(type)) {
    try {
      nb::module_::import_("ml_dtypes");
    } catch (nb::python_error&) {
      throw Error(ErrorCode::unsupported,
                  std::string("numpy arrays of ") + std::string(to_string(type)) + " elements need the package ml_dtypes");
    }
    found = nb::module_::import_("numpy").attr("dtype")(nb::module_::import_("ml_dtypes").attr(numpy_name(type)));
  } else {
    found = nb::module_::import_("numpy").attr("dtype")(numpy_name(type));
  }
  return found;
}

nb::handle torch_type(DType type) {
  nb::object& found = torch().types[static_cast<std::size_t>(type)];
  if (!found && !numpy_name(type)) no_type(type);
  if (!found) found = nb::module_::import_("torch").attr(numpy_name(type));  // the same names
  return found;
}

nb::object shape_tuple(const Shape& shape) {
  PyObject* tuple = PyTuple_New(static_cast<Py_ssize_t>(shape.size()));
  if (!tuple) throw nb::python_error();
  for (std::size_t d = 0; d < shape.size(); ++d) PyTuple_SetItem(tuple, static_cast<Py_ssize_t>(d), PyLong_FromLongLong(shape[d]));
  return nb::steal(tuple);
}

std::byte* writable_memory(nb::handle array) {
  Py_buffer buffer;
  if (PyObject_GetBuffer(array.ptr(), &buffer, PyBUF_WRITABLE) != 0) throw nb::python_error();
  auto* data = static_cast<std::byte*>(buffer.buf);
  PyBuffer_Release(&buffer);
  return data;
}

}  // namespace

MadeArray make_array(ArrayKind kind, DType dtype, const Shape& shape) {
  const nb::object dims = shape_tuple(shape);
  if (kind == ArrayKind::torch) {
    nb::object made = torch().empty(dims, nb::arg("dtype") = torch_type(dtype));
    return {made, BorrowedArray(made, "output").data()};
  }
  if (needs_ml_dtypes(dtype)) {  // has no buffer of its own, its bits have
    const nb::object raw = numpy().empty(dims, numpy_type(bits(dtype) == 8 ? DType::u8 : DType::u16));
    return {raw.attr("view")(numpy_type(dtype)), writable_memory(raw)};
  }
  nb::object made = numpy().empty(dims, numpy_type(dtype));
  std::byte* data = writable_memory(made);
  return {std::move(made), data};
}

MadeArray make_array(ArrayKind kind, DType dtype, const Shape& shape, const Place& place) {
  if (place.gpu < 0) return make_array(kind, dtype, shape);
  if (kind != ArrayKind::torch) return make_device_array(dtype, shape, place.gpu, place.stream);
  const std::string device = "cuda:" + std::to_string(place.gpu);
  nb::object made = torch().empty(shape_tuple(shape), nb::arg("dtype") = torch_type(dtype), nb::arg("device") = nb::str(device.c_str()));
  std::byte* const data = BorrowedArray(made, "output", place).data();
  return {std::move(made), data};
}

nb::object narrowed(const nb::object& array, const Shape& shape) {
  if (nb::isinstance<DeviceArray>(array)) {
    DeviceArray part = nb::cast<DeviceArray&>(array);
    part.shape = shape;
    return nb::cast(std::move(part));
  }
  const nb::object first = array.attr("reshape")(-1)[nb::slice(nb::int_(0), nb::int_(element_count(shape)), nb::none())];
  return first.attr("reshape")(shape_tuple(shape));
}

nb::object converted_like(const nb::object& made, nb::handle like) {
  const nb::handle type(reinterpret_cast<PyObject*>(Py_TYPE(like.ptr())));
  const auto module = nb::cast<std::string>(nb::str(nb::getattr(type, "__module__", nb::str(""))));
  const std::string library = module.substr(0, module.find('.'));
  const nb::object loaded = nb::module_::import_("sys").attr("modules").attr("get")(library);
  for (const nb::object& place : {nb::getattr(loaded, "numpy", nb::none()), loaded}) {
    const nb::object from = nb::getattr(place, "from_dlpack", nb::none());
    if (!from.is_none() && library != "numpy") return from(made);
  }
  return made;
}

nb::object to_numpy(const Array& array) {
  MadeArray made = make_array(ArrayKind::numpy, array.dtype, array.shape);
  if (array.size_bytes() > 0) std::memcpy(made.data, array.data.get(), array.size_bytes());
  return made.object;
}

}  // namespace tandem::python
