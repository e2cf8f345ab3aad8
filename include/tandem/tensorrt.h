// TensorRT's names over tandem, for programs written for its multi-device inference: include this instead of NvInfer.h and NvOnnxParser.h.
//
// Header-only, over the public C++ interface. docs/coming-from-tensorrt.md says what differs and why. In short: engines run on CPU ranks,
// so that streams are null and addresses are those of host memory; a communicator is a tandem::Group; errors are exceptions
// (tandem::Error), told to the logger first; objects that create… and build… return belong to the caller, as in TensorRT. Public.
#pragma once

#include "tandem/tensorrt/build.h"
#include "tandem/tensorrt/run.h"
