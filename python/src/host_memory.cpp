#include "host_memory.h"

#include "arrays.h"
#include "lifetime.h"

namespace tandem::python {
namespace {

int get_buffer(PyObject* self, Py_buffer* view, int flags) {
  const Array& bytes = nb::inst_ptr<HostMemory>(self)->bytes;
  return PyBuffer_FillInfo(view, self, const_cast<std::byte*>(bytes.data.get()), static_cast<Py_ssize_t>(bytes.size_bytes()), 1, flags);
}

PyType_Slot slots[] = {{Py_bf_getbuffer, reinterpret_cast<void*>(get_buffer)}, {0, nullptr}};

}  // namespace

Array bytes_of(nb::handle object) {
  auto* view = new Py_buffer;
  if (PyObject_GetBuffer(object.ptr(), view, PyBUF_SIMPLE) != 0) {
    delete view;
    throw nb::python_error();
  }
  const auto release = [](Py_buffer* held) {
    if (!interpreter_alive()) return;
    const nb::gil_scoped_acquire gil;
    PyBuffer_Release(held);
    delete held;
  };
  const std::shared_ptr<Py_buffer> owner(view, release);
  return {DType::u8, {view->len}, {owner, static_cast<const std::byte*>(view->buf)}};
}

void bind_host_memory(nb::module_& module) {
  nb::class_<HostMemory>(
      module, "HostMemory", nb::type_slots(slots),
      "The bytes of an engine file, in memory: a read-only buffer for bytes(), memoryview() or file.write(); len() is their number.")
      .def_prop_ro(
          "nbytes", [](const HostMemory& memory) { return memory.bytes.size_bytes(); }, "The number of bytes.")
      .def("__len__", [](const HostMemory& memory) { return memory.bytes.size_bytes(); })
      .def("__bool__", [](const HostMemory&) { return true; })
      .def(
          "__reduce__",
          [](nb::handle self) {
            return nb::make_tuple(nb::borrow(reinterpret_cast<PyObject*>(&PyBytes_Type)),
                                  nb::make_tuple(nb::bytes(nb::cast<const HostMemory&>(self).bytes.data.get(),
                                                           nb::cast<const HostMemory&>(self).bytes.size_bytes())));
          },
          nb::sig("def __reduce__(self) -> tuple[typing.Any, ...]"), "Pickles as bytes.");
}

}  // namespace tandem::python
