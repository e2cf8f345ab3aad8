# tandem_library(NAME SOURCES dir… LINKS row…): one static library per row of the include table.
# Sources are globbed, so a new file needs no edit here. EXCLUDE takes regular expressions.
function(tandem_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINKS;MATCH;EXCLUDE" ${ARGN})
  set(files)
  foreach(dir ${ARG_SOURCES})
    file(GLOB_RECURSE found CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${dir}/*.cpp)
    list(APPEND files ${found})
  endforeach()
  foreach(pattern ${ARG_MATCH})
    list(FILTER files INCLUDE REGEX ${pattern})
  endforeach()
  foreach(pattern ${ARG_EXCLUDE})
    list(FILTER files EXCLUDE REGEX ${pattern})
  endforeach()
  string(REPLACE "/" "_" target ${name})
  add_library(${target} STATIC ${files})
  target_include_directories(${target} PUBLIC ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/include)
  target_link_libraries(${target} PUBLIC ${ARG_LINKS})
endfunction()

# tandem_test(NAME FILES… LINKS targets… LABELS…): one GoogleTest program, one ctest entry per test case.
function(tandem_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "FILES;LINKS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_executable(${name} ${ARG_FILES})
  target_link_libraries(${name} PRIVATE ${ARG_LINKS} GTest::gtest GTest::gtest_main)
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
  gtest_discover_tests(${name} TEST_PREFIX ${name}. DISCOVERY_TIMEOUT 60
    PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
endfunction()

# tandem_baseline_tests(NAME [FILTER pattern] LABELS…): the tests of a program once more, as on a processor that has none of the newer
# vector instructions. The program links support/vector_target.cpp.
function(tandem_baseline_tests name)
  cmake_parse_arguments(ARG "" "FILTER" "LABELS" ${ARGN})
  gtest_discover_tests(${name} TEST_PREFIX ${name}_baseline. TEST_LIST ${name}_baseline TEST_FILTER "${ARG_FILTER}" DISCOVERY_TIMEOUT 60
    PROPERTIES TIMEOUT 120 ENVIRONMENT "TANDEM_TEST_VECTORS=baseline" LABELS "${ARG_LABELS}")
endfunction()
