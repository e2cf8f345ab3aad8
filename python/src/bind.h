// The areas of the extension module: one function per file, called by module.cpp in this order.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

namespace nb = nanobind;

namespace tandem::python {

void bind_lifetime(nb::module_& module);
void bind_errors(nb::module_& module);
void bind_device_array(nb::module_& module);
void bind_engine(nb::module_& module);
void bind_build(nb::module_& module);
void bind_group(nb::module_& module);
void bind_model(nb::module_& module);
void bind_context(nb::module_& module);
void bind_network(nb::module_& module);
void bind_host_memory(nb::module_& module);

}  // namespace tandem::python
