// DeviceArray: a dense array in the memory of a GPU, for who has no library that makes such arrays. Needs the GIL.
#pragma once

#include "arrays.h"
#include "tandem/gpu.h"

namespace tandem::python {

// The GPU of this number; the same one each time.
const Gpu& gpu_of(int number);
// The stream that work is given to unless the caller says which: the current one of torch where that uses GPUs, else CUDA's default stream.
void* current_stream(int gpu);
// A stream as its user gives it: a number, or an object that has one (torch, cupy, cuda.core); 0 and 1 are CUDA's default stream, null
// here.
void* stream_of(nb::handle stream);

struct DeviceArray {
  int gpu = 0;
  DType dtype = DType::f32;
  Shape shape;
  std::shared_ptr<std::byte> data;
  void* stream = nullptr;  // in whose order the contents are there

  std::size_t size_bytes() const { return bytes(dtype, element_count(shape)); }
};

// A fresh one, whose contents are to be written in the order of `stream`.
MadeArray make_device_array(DType dtype, const Shape& shape, int gpu, void* stream);

}  // namespace tandem::python
