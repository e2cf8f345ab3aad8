# Every library we stand on; docs/dependencies.md gives version, licence and reason of each.
find_package(fmt REQUIRED)
find_package(Threads REQUIRED)
find_package(hwy CONFIG REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(Protobuf REQUIRED)
include(GoogleTest)

if(TANDEM_TESTS)
  find_package(GTest REQUIRED)
  enable_testing()
endif()

# Debian's oneDNN package exports CMake targets that need OpenCL headers; library and header are all we use.
if(TANDEM_ONEDNN)
  find_path(DNNL_INCLUDE dnnl.hpp REQUIRED)
  find_library(DNNL_LIBRARY dnnl REQUIRED)
  add_library(onednn INTERFACE)
  target_include_directories(onednn INTERFACE ${DNNL_INCLUDE})
  target_link_libraries(onednn INTERFACE ${DNNL_LIBRARY})
endif()
