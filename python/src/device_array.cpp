#include "device_array.h"

#include <fmt/format.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <map>

#include "lifetime.h"
#include "tandem/error.h"
#include "tandem/machine.h"

using namespace nb::literals;

namespace tandem::python {
namespace {

// What a DLPack tensor of ours keeps alive; needs no GIL, for anybody may drop it anywhere.
struct Exported {
  std::shared_ptr<std::byte> data;
  Shape shape, strides;
  dlpack::ManagedTensorVersioned versioned{};
  dlpack::ManagedTensor plain{};
};

dlpack::DataType dlpack_type(DType type) {
  const auto of = [&](dlpack::Code code) { return dlpack::DataType{code, static_cast<std::uint8_t>(bits(type)), 1}; };
  switch (type) {
    case DType::f32:
    case DType::f16:
    case DType::f64: return of(dlpack::kFloat);
    case DType::bf16: return of(dlpack::kBfloat);
    case DType::f8e4m3: return of(dlpack::kFloat8E4m3fn);
    case DType::f8e5m2: return of(dlpack::kFloat8E5m2);
    case DType::boolean: return of(dlpack::kBool);
    case DType::i8:
    case DType::i16:
    case DType::i32:
    case DType::i64: return of(dlpack::kInt);
    case DType::u8:
    case DType::u16:
    case DType::u32:
    case DType::u64: return of(dlpack::kUInt);
    default: throw Error(ErrorCode::unsupported, fmt::format("arrays of {} elements cannot be given to Python", to_string(type)));
  }
}

// The word of numpy's array interface; empty where it has none.
std::string interface_type(DType type) {
  const int size = bits(type) / 8;
  switch (type) {
    case DType::f32:
    case DType::f16:
    case DType::f64: return fmt::format("<f{}", size);
    case DType::boolean: return "|b1";
    case DType::i8:
    case DType::i16:
    case DType::i32:
    case DType::i64: return fmt::format("<i{}", size);
    case DType::u8:
    case DType::u16:
    case DType::u32:
    case DType::u64: return fmt::format("<u{}", size);
    default: return "";
  }
}

nb::tuple shape_tuple(const Shape& shape) {
  nb::list extents;
  for (const std::int64_t extent : shape) extents.append(extent);
  return nb::tuple(extents);
}

[[noreturn]] void refuse_export(const char* why) {
  PyErr_SetString(PyExc_BufferError, why);
  throw nb::python_error();
}

// A capsule that nobody took is dropped with what is in it.
template <typename Managed>
void drop(PyObject* capsule, const char* name) {
  if (!PyCapsule_IsValid(capsule, name)) return;
  auto* tensor = static_cast<Managed*>(PyCapsule_GetPointer(capsule, name));
  tensor->deleter(tensor);
}

nb::object to_dlpack(const DeviceArray& array, nb::handle stream, nb::handle max_version, nb::handle dl_device, nb::handle copy) {
  if (!copy.is_none() && nb::cast<bool>(copy)) refuse_export("a DeviceArray gives its own memory, not a copy");
  if (!dl_device.is_none() && (nb::cast<int>(dl_device[0]) != dlpack::kCuda || nb::cast<int>(dl_device[1]) != array.gpu))
    refuse_export("a DeviceArray stays on its GPU; numpy() copies it to the host");
  const bool unordered = !stream.is_none() && PyLong_Check(stream.ptr()) && nb::cast<std::int64_t>(stream) == -1;
  if (!unordered) gpu_of(array.gpu).order(array.stream, stream.is_none() ? nullptr : stream_of(stream));
  auto exported = std::make_unique<Exported>();
  exported->data = array.data;
  exported->shape = array.shape;
  exported->strides.assign(array.shape.size(), 1);
  for (std::size_t d = array.shape.size(); d-- > 1;) exported->strides[d - 1] = exported->strides[d] * array.shape[d];
  const dlpack::Tensor tensor{array.data.get(),
                              {dlpack::kCuda, array.gpu},
                              static_cast<std::int32_t>(array.shape.size()),
                              dlpack_type(array.dtype),
                              exported->shape.data(),
                              exported->strides.data(),
                              0};
  const bool versioned = !max_version.is_none() && nb::cast<int>(max_version[0]) >= 1;
  Exported* const held = exported.get();
  PyObject* capsule = nullptr;
  if (versioned) {
    held->versioned = {
        {1, 0}, held, [](dlpack::ManagedTensorVersioned* self) { delete static_cast<Exported*>(self->manager_ctx); }, 0, tensor};
    capsule = PyCapsule_New(&held->versioned, "dltensor_versioned",
                            [](PyObject* c) { drop<dlpack::ManagedTensorVersioned>(c, "dltensor_versioned"); });
  } else {
    held->plain = {tensor, held, [](dlpack::ManagedTensor* self) { delete static_cast<Exported*>(self->manager_ctx); }};
    capsule = PyCapsule_New(&held->plain, "dltensor", [](PyObject* c) { drop<dlpack::ManagedTensor>(c, "dltensor"); });
  }
  if (!capsule) throw nb::python_error();
  exported.release();
  return nb::steal(capsule);
}

nb::dict array_interface(const DeviceArray& array) {
  const std::string type = interface_type(array.dtype);
  if (type.empty())
    throw nb::attribute_error(
        fmt::format("the array interface has no word for elements of {}: use DLPack", to_string(array.dtype)).c_str());
  gpu_of(array.gpu).order(array.stream, nullptr);
  nb::dict out;
  out["shape"] = shape_tuple(array.shape);
  out["typestr"] = nb::str(type.c_str());
  out["data"] = nb::make_tuple(reinterpret_cast<std::uintptr_t>(array.data.get()), false);
  out["version"] = 3;
  out["strides"] = nb::none();
  out["stream"] = 1;
  return out;
}

// Given back without the GIL, whether or not its last user holds it: that waits for the GPU, and what the GPU waits for in turn may be for
// another thread of Python to give.
std::shared_ptr<std::byte> allocated(const Gpu& gpu, std::size_t bytes) {
  const nb::gil_scoped_release release;
  std::shared_ptr<std::byte> memory = gpu.allocate(bytes);
  std::byte* const data = memory.get();
  return {data, [memory = std::move(memory)](std::byte*) mutable {
            if (!interpreter_alive()) return memory.reset();
            const nb::gil_scoped_acquire gil;  // so that there is one to let go of
            const nb::gil_scoped_release without;
            memory.reset();
          }};
}

nb::object fetched(const DeviceArray& array) {
  const MadeArray made = make_array(ArrayKind::numpy, array.dtype, array.shape);
  const Gpu& gpu = gpu_of(array.gpu);
  {
    const nb::gil_scoped_release release;
    gpu.copy(made.data, array.data.get(), array.size_bytes(), array.stream);
    gpu.synchronize(array.stream);
  }
  return made.object;  // which counts references, under the GIL
}

void bring(DeviceArray* self, nb::handle object, int number) {
  BorrowedArray array(object, "the array", {.why_not = "a DeviceArray is made of an array of the host"});
  const Gpu& gpu = gpu_of(number);
  new (self) DeviceArray{number, array.dtype(), array.shape(), nullptr, nullptr};
  try {
    self->data = allocated(gpu, self->size_bytes());
    const Array packed = BorrowedArray::share(std::move(array));
    const nb::gil_scoped_release release;
    gpu.copy(self->data.get(), packed.data.get(), self->size_bytes());
  } catch (...) {
    self->~DeviceArray();
    throw;
  }
}

}  // namespace

const Gpu& gpu_of(int number) {
  static auto* known = new std::map<int, Gpu>();  // guarded by the GIL; never freed, for arrays may be dropped at the very end
  const auto found = known->find(number);
  return found != known->end() ? found->second : known->emplace(number, Gpu(number)).first->second;
}

void* current_stream(int gpu) {
  static PyObject* const name = PyUnicode_InternFromString("torch");
  const nb::object torch = nb::steal(PyImport_GetModule(name));
  if (!torch.is_valid()) return PyErr_Clear(), nullptr;
  const nb::object cuda = nb::getattr(torch, "cuda", nb::none());
  if (cuda.is_none() || !nb::cast<bool>(cuda.attr("is_initialized")())) return nullptr;
  return stream_of(cuda.attr("current_stream")(gpu));
}

void* stream_of(nb::handle stream) {
  nb::object number = nb::borrow(stream);
  for (const char* attribute : {"cuda_stream", "ptr", "handle"})
    if (!PyLong_Check(number.ptr()) && nb::hasattr(number, attribute)) number = number.attr(attribute);
  if (PyBool_Check(number.ptr()) || !PyIndex_Check(number.ptr()))
    throw Error(ErrorCode::invalid_argument, "a stream is given as its number, or as an object of torch, cupy or cuda.core");
  const auto value = nb::cast<std::uintptr_t>(nb::int_(number));
  return reinterpret_cast<void*>(value == 1 ? 0 : value);
}

MadeArray make_device_array(DType dtype, const Shape& shape, int gpu, void* stream) {
  DeviceArray array{gpu, dtype, shape, nullptr, stream};
  array.data = allocated(gpu_of(gpu), array.size_bytes());
  std::byte* const data = array.data.get();
  return {nb::cast(std::move(array)), data};
}

void bind_device_array(nb::module_& module) {
  module.def("gpu_count", &gpu_count, nb::sig("def gpu_count() -> int"),
             "How many GPUs this process can use: 0 where the package was built without CUDA.");
  module.def("device_kinds", &device_kinds, "What engines can be for in this build of the package: \"cpu\", \"cuda\".");
  nb::class_<DeviceArray>(
      module, "DeviceArray",
      "A dense array in the memory of a GPU: what a run gives back for arrays of a GPU that are not torch's. Other libraries take it "
      "without a copy, by DLPack (torch.from_dlpack, cupy.from_dlpack) or the CUDA array interface. Its memory goes with the last user.")
      .def("__init__", &bring, "array"_a, "gpu"_a = 0, nb::sig("def __init__(self, array: typing.Any, gpu: int = 0) -> None"),
           "Copies an array of the host to a GPU. Raises UnsupportedError where there is none, OutOfMemoryError.")
      .def_prop_ro(
          "shape", [](const DeviceArray& a) { return shape_tuple(a.shape); }, nb::sig("def shape(self) -> tuple[int, ...]"),
          "Extents in elements.")
      .def_prop_ro(
          "dtype", [](const DeviceArray& a) { return std::string(to_string(a.dtype)); },
          "Element type: \"f32\", \"bf16\", \"i64\", \"bool\", …")
      .def_prop_ro(
          "device", [](const DeviceArray& a) { return fmt::format("cuda:{}", a.gpu); }, "Where it lies: \"cuda:0\".")
      .def_prop_ro("nbytes", &DeviceArray::size_bytes, "Bytes of all elements.")
      .def("numpy", &fetched, nb::sig("def numpy(self) -> typing.Any"), "A numpy array with a copy; waits until the contents are there.")
      .def("__dlpack__", &to_dlpack, nb::kw_only(), "stream"_a = nb::none(), "max_version"_a = nb::none(), "dl_device"_a = nb::none(),
           "copy"_a = nb::none(),
           nb::sig("def __dlpack__(self, *, stream: int | None = None, max_version: tuple[int, int] | None = None, "
                   "dl_device: tuple[int, int] | None = None, copy: bool | None = None) -> typing.Any"),
           "Its memory as a DLPack capsule. Work given to `stream` afterwards finds the contents; None is CUDA's default stream, -1: the "
           "caller waits itself.")
      .def(
          "__dlpack_device__", [](const DeviceArray& a) { return nb::make_tuple(static_cast<int>(dlpack::kCuda), a.gpu); },
          nb::sig("def __dlpack_device__(self) -> tuple[int, int]"), "DLPack's words for the GPU.")
      .def_prop_ro("__cuda_array_interface__", &array_interface, nb::sig("def __cuda_array_interface__(self) -> dict[str, typing.Any]"),
                   "Its memory for libraries that read this interface. Raises AttributeError for element types that it has no word for.")
      .def(
          "__reduce__", [](nb::handle) -> nb::object { throw nb::type_error("a DeviceArray cannot be pickled; pickle its numpy()"); },
          nb::sig("def __reduce__(self) -> typing.NoReturn"), "Raises TypeError.")
      .def("__repr__",
           [](const DeviceArray& a) { return fmt::format("DeviceArray({}{}, cuda:{})", to_string(a.dtype), to_string(a.shape), a.gpu); });
}

}  // namespace tandem::python
