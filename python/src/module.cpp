// tandem._core: the public C++ interface, as Python sees it. Names and words are the same on both sides.
#include "bind.h"

NB_MODULE(_core, module) {
  using namespace tandem::python;
  nb::set_leak_warnings(false);  // what is alive at the interpreter's exit is closed by an exit function, not told about
  module.doc() = "The compiled part of tandem; import tandem instead.";
  bind_lifetime(module);
  bind_errors(module);
  bind_host_memory(module);
  bind_device_array(module);
  bind_engine(module);
  bind_build(module);
  bind_group(module);
  bind_model(module);
  bind_context(module);
  bind_network(module);
}
