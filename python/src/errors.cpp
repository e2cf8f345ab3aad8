// tandem::Error becomes the Python exception of its code, see tandem/errors.py.
#include "bind.h"
#include "tandem/error.h"

namespace tandem::python {
namespace {

// The class for a code. Errors before tandem.errors can be imported are RuntimeError.
nb::object error_class(const Error& error) {
  const nb::module_ errors = nb::module_::import_("tandem.errors");
  return errors.attr("error_class")(nb::str(to_string(error.code()).data(), to_string(error.code()).size()));
}

void translate(const std::exception_ptr& pointer, void*) {
  try {
    std::rethrow_exception(pointer);
  } catch (const Error& error) {
    const nb::object type = error_class(error);
    const nb::object node = error.node().empty() ? nb::none() : nb::object(nb::str(error.node().c_str(), error.node().size()));
    const nb::object rank = error.rank() < 0 ? nb::none() : nb::object(nb::int_(error.rank()));
    const nb::object made = type(nb::str(error.what()), nb::arg("node") = node, nb::arg("rank") = rank);
    PyErr_SetObject(type.ptr(), made.ptr());
  }
}

}  // namespace

void bind_errors(nb::module_&) { nb::register_exception_translator(translate); }

}  // namespace tandem::python
