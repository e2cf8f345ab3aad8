# The CUDA device: nvcc and its static runtime. Libraries (cuBLASLt, cuDNN, NVRTC, NCCL) are opened when the program runs; only their
# headers are needed here, from the toolkit or, by tools/cuda_headers.py, from the wheels.
find_package(CUDAToolkit 12.8 REQUIRED)
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
