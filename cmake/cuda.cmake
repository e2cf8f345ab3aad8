# The CUDA device: nvcc and its static runtime. Libraries (cuBLASLt, cuDNN, NVRTC, NCCL) are opened when the program runs; only their
# headers are needed here, from the toolkit or, by tools/cuda_headers.py, from the wheels.
find_package(CUDAToolkit 12.8 REQUIRED)
get_filename_component(TANDEM_CUDA_SHARED ${CMAKE_SOURCE_DIR}/.venv REALPATH)  # its neighbour .cache is shared with it
find_path(TANDEM_CUDA_HEADERS nvrtc.h HINTS ${CUDAToolkit_INCLUDE_DIRS} ${TANDEM_CUDA_SHARED}/../.cache/cuda-headers/include)
find_path(TANDEM_CUBLASLT_HEADERS cublasLt.h HINTS ${CUDAToolkit_INCLUDE_DIRS} ${TANDEM_CUDA_SHARED}/../.cache/cuda-headers/include)
if(NOT TANDEM_CUDA_HEADERS OR NOT TANDEM_CUBLASLT_HEADERS)
  message(FATAL_ERROR "headers of NVRTC or cuBLASLt are missing: run tools/cuda_headers.py, which `make cuda` does")
endif()
set(TANDEM_CUDA_ARCHITECTURES "80-real;90a-real" CACHE STRING "what kernels are compiled for")
set(CMAKE_CUDA_COMPILER ${CUDAToolkit_NVCC_EXECUTABLE})
set(CMAKE_CUDA_FLAGS "-Xcudafe --display_error_number -Werror all-warnings -Xcompiler=-Wall,-Wextra,-Wno-missing-field-initializers,-fno-omit-frame-pointer -lineinfo")
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
