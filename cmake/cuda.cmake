# The CUDA device: nvcc and its static runtime. Libraries (cuBLASLt, cuDNN, NVRTC, NCCL) are opened when the program runs; only their
# headers are needed here, from the toolkit or, by tools/cuda_headers.py, from the wheels.
find_package(CUDAToolkit 12.8 REQUIRED)
get_filename_component(TANDEM_CUDA_SHARED ${CMAKE_SOURCE_DIR}/.venv REALPATH)  # its neighbour .cache is shared with it
find_path(TANDEM_CUDA_HEADERS nvrtc.h HINTS ${CUDAToolkit_INCLUDE_DIRS} ${TANDEM_CUDA_SHARED}/../.cache/cuda-headers/include)
find_path(TANDEM_CUBLASLT_HEADERS cublasLt.h HINTS ${CUDAToolkit_INCLUDE_DIRS} ${TANDEM_CUDA_SHARED}/../.cache/cuda-headers/include)
if(NOT TANDEM_CUDA_HEADERS OR NOT TANDEM_CUBLASLT_HEADERS)
  message(FATAL_ERROR "headers of NVRTC or cuBLASLt are missing: run tools/cuda_headers.py, which `make cuda` does")
endif()
# Machine code serves newer GPUs of its generation too (8.6, 8.9, 10.3, 12.1; not that of 90a), the text for 10.0 all that are newer. There
# is no text for less than 9.0: newer GPUs are told to start kernels early, which its kernels do not wait for.
set(TANDEM_CUDA_ARCHITECTURES "80-real;90a-real;100;120-real" CACHE STRING "what kernels are compiled for")
foreach(architecture ${TANDEM_CUDA_ARCHITECTURES})
  if(NOT architecture MATCHES "^[0-9]+[af]?(-real|-virtual)?$")
    message(FATAL_ERROR "TANDEM_CUDA_ARCHITECTURES: '${architecture}' is none of 80, 90a, 100f and the like, alone or with -real or -virtual")
  endif()
  if(architecture MATCHES "^[1-8][0-9](-virtual)?$")
    message(FATAL_ERROR "TANDEM_CUDA_ARCHITECTURES: '${architecture}' has text, which would run on newer GPUs and be wrong there: say ${architecture}-real")
  endif()
endforeach()
set(CMAKE_CUDA_COMPILER ${CUDAToolkit_NVCC_EXECUTABLE})
set(CMAKE_CUDA_FLAGS "-Xcudafe --display_error_number -Werror all-warnings -Xcompiler=-Wall,-Wextra,-Wno-missing-field-initializers,-fno-omit-frame-pointer -lineinfo")
if(CUDAToolkit_VERSION VERSION_GREATER_EQUAL 13)  # with 12 it would ask for a newer driver than the rest of the program does
  string(APPEND CMAKE_CUDA_FLAGS " --compress-mode=size")
endif()
# A kernel that spills registers or has a stack frame does not compile: either means traffic to memory that nobody asked for. Other versions
# of the compiler allot registers otherwise, and what spills there is slow, not wrong.
if(CUDAToolkit_VERSION VERSION_GREATER_EQUAL 13.0 AND CUDAToolkit_VERSION VERSION_LESS 13.1)
  string(APPEND CMAKE_CUDA_FLAGS " -Xptxas=-warn-spills,-warn-lmem-usage")
endif()
set(CMAKE_CUDA_ARCHITECTURES ${TANDEM_CUDA_ARCHITECTURES})
set(CMAKE_CUDA_FLAGS_RELWITHDEBINFO "-O3")
if(CCACHE)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()
enable_language(CUDA)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 knows no C++20 of nvcc
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  list(APPEND CMAKE_CUDA_COMPILE_FEATURES cuda_std_20)
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)

# tandem_cuda_sources(target dir): its *_cuda.cu files, whose warnings are errors too.
function(tandem_cuda_sources target dir)
  file(GLOB_RECURSE found CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${dir}/*_cuda.cu)
  target_sources(${target} PRIVATE ${found})
endfunction()

# The headers of the libraries that are opened when the program runs.
add_library(cuda_headers INTERFACE)
target_include_directories(cuda_headers SYSTEM INTERFACE ${TANDEM_CUDA_HEADERS} ${TANDEM_CUBLASLT_HEADERS})
